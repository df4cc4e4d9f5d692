"""Batches: order is a function of (seed, step), rows and masks are what they say."""

from __future__ import annotations

import math

import pytest
import torch

from tercet.data import CausalText, MaskedText, Masking, Pairs, Rows, sample_order
from tercet.errors import InputError

TEXT = torch.arange(1000)


def rows(**changes: int) -> Rows:
    return Rows(**{"text": TEXT, "length": 16, "rows": 6, "micro_batch": 6, "seed": 3, **changes})


def test_an_epoch_sees_every_sample_once_and_the_next_in_another_order():
    drawn = sample_order(5, 0, 20, 10)
    assert sorted(drawn[:10]) == [(0, i) for i in range(10)]
    assert sorted(drawn[10:]) == [(1, i) for i in range(10)]
    assert [i for _, i in drawn[:10]] != [i for _, i in drawn[10:]]
    assert sample_order(5, 7, 6, 10) == drawn[7:13]


def test_a_step_is_the_same_whoever_asks_and_however_it_is_cut():
    whole = CausalText(rows())(4)
    cut = CausalText(rows(micro_batch=4))(4)
    assert [batch.layout.n_sequences for batch in cut] == [4, 2]
    assert torch.equal(whole[0].tokens, torch.cat([batch.tokens for batch in cut]))
    assert torch.equal(whole[0].targets, torch.cat([batch.targets for batch in cut]))
    masks = [MaskedText(rows(micro_batch=m), Masking(999, 1000)) for m in (6, 4)]
    whole, cut = masks[0](4), masks[1](4)
    assert torch.equal(whole[0].tokens, torch.cat([batch.tokens for batch in cut]))
    assert whole[0].n_targets == sum(batch.n_targets for batch in cut)


def test_causal_targets_are_the_next_tokens():
    (batch,) = CausalText(rows())(0)
    assert torch.equal(batch.targets, batch.tokens + 1)
    assert batch.layout.lengths == (16,) * 6 and batch.n_targets == 96 == batch.n_tokens


def test_masks_hold_their_rates_and_spare_what_is_protected():
    text = torch.randint(2, 500, (200_000,), generator=torch.Generator().manual_seed(0))
    text[::50] = 0
    data = MaskedText(Rows(text, 500, 300, 300), Masking(1, 500, protected=(0,)))
    (batch,) = data(0)
    original = CausalText(data.rows)(0)[0].tokens
    assert batch.select is not None
    assert torch.equal(original[batch.select], batch.targets)
    assert not (batch.targets == 0).any()
    free = int((original != 0).sum())
    within(batch.n_targets, free, 0.15)
    read = batch.tokens[batch.select]
    within(int((read == 1).sum()), batch.n_targets, 0.8)
    same = int((read == batch.targets).sum())
    within(same, batch.n_targets, 0.1 + 0.1 / 500)
    kept = torch.ones_like(original, dtype=torch.bool)
    kept[batch.select] = False
    assert torch.equal(batch.tokens[kept], original[kept])
    assert not torch.equal(data(0)[0].select, data(1)[0].select)  # type: ignore[arg-type]


def within(count: int, among: int, rate: float) -> None:
    """At most three standard deviations from the rate."""
    assert abs(count - among * rate) <= 3 * math.sqrt(among * rate * (1 - rate)), (count, among)


def test_pairs_read_the_start_and_say_the_end():
    pairs = Pairs([([5, 6], [7]), ([5], [8, 9, 10])], start_id=0, end_id=1, rows=2, micro_batch=2)
    (batch,) = pairs(0)
    texts = {
        tuple(a.tolist()): (b.tolist(), c.tolist())
        for a, b, c in zip(
            batch.source_layout.split(batch.source),  # type: ignore[union-attr]
            batch.layout.split(batch.tokens),
            batch.layout.split(batch.targets),
        )
    }
    assert texts == {(5, 6, 1): ([0, 7], [7, 1]), (5, 1): ([0, 8, 9, 10], [8, 9, 10, 1])}


def test_too_little_text_names_both_lengths():
    with pytest.raises(InputError, match="20 tokens, too few for one row of 16"):
        rows(text=TEXT[:20])

"""Batches: a step's samples are a function of (seed, step) alone, whole, and cut as one likes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.data import (
    Batch,
    Causal,
    Draw,
    Masked,
    Masking,
    Mixture,
    Pieces,
    Rows,
    Sample,
    SentencePairs,
    Spans,
    Stream,
    TextPairs,
    Tokens,
    Translation,
    sample_order,
)
from tercet.data.labelled import Labelled, LabelledTexts
from tercet.data.order import TokenOrder, permutation
from tercet.data.stream import near_equal
from tercet.errors import InputError

END = 1  # the separator in these texts


def texts(seed: int, count: int, longest: int = 40) -> list[list[int]]:
    """Documents of 0 to ``longest`` tokens; every token of the whole corpus is another number."""
    draw = np.random.default_rng(seed)
    edges = np.cumsum([10, *draw.integers(0, longest + 1, count)])
    return [list(range(a, b)) for a, b in zip(edges, edges[1:])]


CORPUS = Tokens.of(texts(0, 60), END)
PLAIN = Tokens.of(texts(0, 60), None)
MASKING = Masking(3, 5000, cls_id=4, sep_id=5)
MAKERS: dict[str, Callable[[], Draw]] = {
    "rows": lambda: Rows(CORPUS, 16, 6, seed=3),
    "pieces": lambda: Pieces(CORPUS, 16, 128, seed=3),
    "pieces, no separator": lambda: Pieces(PLAIN, 16, 128, seed=3),
    "sentence pairs": lambda: SentencePairs(PLAIN, 24, 128, seed=3),
    "text pairs": lambda: TextPairs(PLAIN, 300, seed=3),
    "text pairs by number": lambda: TextPairs(PLAIN, None, seed=3, rows=8),
    "mixture": lambda: Mixture([Pieces(CORPUS, 16, 160, 3), Rows(PLAIN, 16, 10, 4)], [3, 1.5]),
}
SHAPES = {
    "rows": Causal(),
    "pieces": Masked(MASKING, seed=5),
    "pieces, no separator": Spans(tuple(range(4000, 4020)), 0, 2, seed=5),
    "sentence pairs": Masked(MASKING, seed=5, next_sentence=True),
    "text pairs": Translation(0, 2),
    "text pairs by number": Translation(0, 2),
    "mixture": Causal(),
}


def plain(sample: Sample) -> tuple:
    """All that a sample says, to be compared."""
    seen = [None if x is None else x.tolist() for x in (sample.ids, sample.targets, sample.second)]
    return sample.key, *seen, sample.label, sample.document, sample.start


def rows_of(batches: list[Batch]) -> list[tuple]:
    """Each sequence of some batches: its key, tokens, targets, source, types, label."""
    found = []
    for batch in batches:
        n = batch.layout.n_tokens
        targets = torch.full((n,), -1)
        targets[slice(None) if batch.select is None else batch.select] = batch.targets
        nothing = [None] * len(batch.keys)
        sides = [batch.layout.split(x) for x in (batch.tokens, targets)]
        sides.append(nothing if batch.types is None else batch.layout.split(batch.types))
        layout = batch.source_layout
        sides.append(nothing if layout is None else layout.split(batch.source))  # type: ignore[arg-type]
        labels = nothing if batch.labels is None else batch.labels.tolist()
        for key, *parts, label in zip(batch.keys, *sides, labels):
            found.append((key, *(None if x is None else x.tolist() for x in parts), label))
    return found


# order -------------------------------------------------------------------------------------------


def test_an_epoch_sees_every_sample_once_and_the_next_in_another_order():
    drawn = sample_order(5, 0, 20, 10)
    assert sorted(drawn[:10]) == [(0, i) for i in range(10)]
    assert sorted(drawn[10:]) == [(1, i) for i in range(10)]
    assert [i for _, i in drawn[:10]] != [i for _, i in drawn[10:]]
    assert sample_order(5, 7, 6, 10) == drawn[7:13]


def test_the_order_is_an_array_and_not_a_list_of_objects():
    assert permutation(0, 0, 1000).nbytes == 4000


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    step_tokens=st.one_of(st.integers(30, 200), st.floats(30, 200)),
    steps=st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_steps_by_tokens_lie_end_to_end_and_keep_their_budget(sizes, step_tokens, steps):
    order = TokenOrder(np.array(sizes), step_tokens, seed=1)
    taken = [order.step(step) for step in range(steps)]
    assert all(taken) and order.fewest >= 1
    flat = [drawn for step in taken for drawn in step]
    n_epochs = -(-len(flat) // len(sizes))
    line = [(e, int(i)) for e in range(n_epochs) for i in permutation(1, e, len(sizes))]
    assert flat == line[: len(flat)]
    sums = np.cumsum([sum(sizes[i] for _, i in step) for step in taken])
    wanted = step_tokens * np.arange(1, steps + 1)
    assert (np.abs(sums - wanted) < max(sizes) + 1).all()
    for epoch in (0, 3):
        assert [d for part in order.epoch(epoch) for d in part] == [
            (epoch, int(i)) for i in permutation(1, epoch, len(sizes))
        ]


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=40), parts=st.integers(1, 40))
def test_parts_are_contiguous_and_nearly_equal(sizes, parts):
    parts = min(parts, len(sizes))
    edges = near_equal(sizes, parts)
    assert edges[0] == 0 and edges[-1] == len(sizes)
    assert all(a < b for a, b in zip(edges, edges[1:]))
    sums = [sum(sizes[a:b]) for a, b in zip(edges, edges[1:])]
    if max(sizes) * 4 * parts <= sum(sizes):
        assert max(sums) - min(sums) <= 2 * max(sizes)


# purity ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_is_the_same_in_any_order_of_asking(name: str):
    draw = MAKERS[name]()
    forwards = [list(map(plain, draw.samples(step))) for step in range(12)]
    again = MAKERS[name]()
    for step in (11, 3, 0, 7, 3):
        assert list(map(plain, again.samples(step))) == forwards[step]
    keys = [key for step in forwards for key, *_ in step]
    assert len(set(keys)) == len(keys)
    assert min(len(step) for step in forwards) >= draw.fewest >= 1


@pytest.mark.parametrize("name", MAKERS)
def test_neither_micro_batches_nor_processes_change_a_sample(name: str):
    draw, shape = MAKERS[name](), SHAPES[name]
    for step in (0, 5):
        whole = Stream(draw, shape)(step)
        assert len(whole) == 1
        expected = rows_of(whole)
        assert [row[0] for row in expected] == [s.key for s in draw.samples(step)]
        for micro_tokens, world in ((40, 1), (None, 2), (40, 2), (20, 3)):
            ranks = [Stream(draw, shape, micro_tokens, r, world)(step) for r in range(world)]
            assert len({len(batches) for batches in ranks}) == 1
            cut = [batch for batches in ranks for batch in batches]
            assert rows_of(cut) == expected
            counts = np.array([batch.counts for batch in cut])
            assert counts.sum(0).tolist() == list(whole[0].counts)


def test_micro_batches_hold_about_what_was_asked():
    stream = Stream(Pieces(CORPUS, 16, 256, seed=3), Causal(), 64)
    assert stream.micro_batches == 4
    for step in range(5):
        batches = stream(step)
        assert len(batches) == 4
        assert all(abs(batch.n_tokens - 64) <= 2 * 16 for batch in batches)


def test_steps_with_long_texts_have_more_micro_batches():
    texts = [[1] * (100 if i % 10 == 0 else 5) for i in range(100)]
    stream = Stream(LabelledTexts(texts, [0] * 100, rows=10, seed=2), Labelled(), 100)
    sizes = [[batch.n_tokens for batch in stream(step)] for step in range(10)]
    assert stream.micro_batches == 2 and {len(step) for step in sizes} == {2, 3}
    for step in sizes:
        assert max(step) <= 125 + 100 and len(step) <= max(2, sum(step) / 100 + 1)


def test_too_few_samples_for_the_processes():
    draw = Pieces(CORPUS, 16, 30)
    assert len(Stream(draw, Causal(), rank=0, world=1)(0)) == 1
    with pytest.raises(InputError, match="30 tokens may hold only 1 .* too few for 2 processes"):
        Stream(draw, Causal(), rank=0, world=2)


# draws -------------------------------------------------------------------------------------------


def test_rows_are_equal_and_their_targets_the_next_tokens():
    (batch,) = Stream(Rows(CORPUS, 16, 6), Causal())(0)
    assert batch.layout.lengths == (16,) * 6 and batch.select is None
    assert batch.counts == (96,) and batch.n_tokens == 96
    for sample in Rows(CORPUS, 16, 6).samples(3):
        stream = CORPUS.take(sample.start, sample.start + 17)
        assert torch.equal(sample.ids, stream[:-1])
        assert sample.targets is not None and torch.equal(sample.targets, stream[1:])
        assert CORPUS.starts[sample.document] <= sample.start


def test_too_little_text_names_both_lengths():
    with pytest.raises(InputError, match="20 tokens, too few for one row of 16"):
        Rows(Tokens.of([list(range(20))], None), 16, 1)
    with pytest.raises(InputError, match="2 documents of 0 tokens have no piece"):
        Pieces(Tokens.of([[], []], None), 16, 16)
    with pytest.raises(InputError, match="length 0 must be at least 1"):
        Pieces(CORPUS, 0, 16)


@given(
    lengths=st.lists(st.integers(0, 23), min_size=1, max_size=12).filter(any),
    length=st.integers(1, 9),
    separated=st.booleans(),
    epoch=st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_every_token_of_an_epoch_is_read_once_and_a_target_once(lengths, length, separated, epoch):
    edges = np.cumsum([10, *lengths])
    documents = [list(range(a, b)) for a, b in zip(edges, edges[1:])]
    tokens = Tokens.of(documents, END if separated else None)
    draw = Pieces(tokens, length, length + 3, seed=2)
    read, said = [], []
    for samples in draw.epoch(epoch):
        batch = Causal().batch(samples)
        assert max(batch.layout.lengths) <= length
        read += batch.tokens.tolist()
        said += batch.targets.tolist()
        seen = batch.tokens if batch.select is None else batch.tokens[batch.select]
        for before, after in zip(seen.tolist(), batch.targets.tolist()):
            assert after == before + 1 or (separated and END in (before, after))
        for sample in samples:
            offset = sample.start - int(tokens.starts[sample.document])
            assert offset >= 0 and offset % length == 0
    ends = [END] * len(documents) if separated else []
    flat = [token for document in documents for token in document]
    assert sorted(read) == sorted(ends + flat)
    first = [] if separated else [document[0] for document in documents if document]
    assert sorted([*said, *first]) == sorted(ends + flat)


def test_bare_pieces_have_no_separator():
    bare, kept = Pieces(CORPUS, 16, 128, bare=True), Pieces(PLAIN, 16, 128)
    for ours, theirs in zip(bare.samples(3), kept.samples(3), strict=True):
        assert torch.equal(ours.ids, theirs.ids) and ours.document == theirs.document
        assert int(CORPUS.take(ours.start, ours.start + 1)) == int(ours.ids[0])
    pairs = SentencePairs(CORPUS, 24, 128, seed=3), SentencePairs(PLAIN, 24, 128, seed=3)
    for ours, theirs in zip(*(draw.samples(2) for draw in pairs), strict=True):
        assert torch.equal(ours.ids, theirs.ids) and torch.equal(ours.second, theirs.second)  # type: ignore[arg-type]


def test_the_last_token_of_a_text_without_a_separator_has_no_target():
    tokens = Tokens.of([[11, 12, 13], [21]], None)
    (batch,) = Stream(Pieces(tokens, 8, 4), Causal())(0)
    rows = {tuple(ids): targets for _, ids, targets, *_ in rows_of([batch])}
    assert rows == {(11, 12, 13): [12, 13, -1], (21,): [-1]}


def test_half_of_the_second_texts_come_from_another_document():
    tokens = Tokens.of(texts(5, 3, longest=400), None)
    draw = SentencePairs(tokens, 24, 128, seed=3)
    homes = {token: d for d in range(len(tokens)) for token in tokens.document(d).tolist()}
    labels: dict[int, list[int]] = {}
    for epoch in range(2):
        for sample in (s for samples in draw.epoch(epoch) for s in samples):
            assert sample.second is not None and sample.label is not None
            first, second = sample.ids.tolist(), sample.second.tolist()
            assert 2 <= sample.n_tokens <= 24 and first and second
            assert {homes[token] for token in first} == {sample.document}
            (home,) = {homes[token] for token in second}
            if sample.label:
                assert home != sample.document
            else:
                assert second[0] == first[-1] + 1
            labels.setdefault(sample.key[1], []).append(sample.label)
    assert all(sorted(pair) == [0, 1] for pair in labels.values())
    assert abs(2 * sum(pair[0] for pair in labels.values()) - len(labels)) <= 1
    with pytest.raises(InputError, match="needs a second document"):
        SentencePairs(Tokens.of([[2, 3, 4, 5]], None), 3, 3)


def test_pairs_read_the_start_and_say_the_end():
    for separator in (None, END):
        tokens = Tokens.of([[5, 6], [7], [5], [8, 9, 10]], separator)
        (batch,) = Stream(TextPairs(tokens, None, rows=2), Translation(0, 1))(0)
        found = {tuple(source): (ids, said) for _, ids, said, _, source, _ in rows_of([batch])}
        assert found == {(5, 6, 1): ([0, 7], [7, 1]), (5, 1): ([0, 8, 9, 10], [8, 9, 10, 1])}


def test_pairs_that_are_too_long_are_counted():
    tokens = Tokens.of([[5, 6], [7], [5], [8, 9, 10]], None)
    draw = TextPairs(tokens, 8, longest=3)
    assert draw.left_out == 1 and {sample.document for sample in draw.samples(0)} == {0}
    with pytest.raises(InputError, match="none of 2 pairs has at most 1 tokens"):
        TextPairs(tokens, 8, longest=1)
    with pytest.raises(InputError, match="3 texts are not pairs"):
        TextPairs(Tokens.of([[5], [6], [7]], None), 8)
    with pytest.raises(InputError, match="give one of the two"):
        TextPairs(tokens, None)


@given(
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=4),
    steps=st.integers(1, 25),
)
@settings(max_examples=40, deadline=None)
def test_a_mixture_keeps_its_shares_from_the_first_step_on(weights, steps):
    kinds = [Pieces(CORPUS, 16, 200, 1), Rows(PLAIN, 8, 25, 2), Pieces(PLAIN, 30, 200, 3)]
    draws = [kinds[i % 3] for i in range(len(weights))]
    longest = [(16, 8, 30)[i % 3] for i in range(len(weights))]
    mixture = Mixture(draws, weights)
    assert mixture.step_tokens == pytest.approx(200)
    read = np.zeros(len(weights))
    for step in range(steps):
        for sample in mixture.samples(step):
            read[sample.key[0]] += sample.n_tokens
        wanted = 200 * (step + 1) * np.array(weights) / sum(weights)
        assert (np.abs(read - wanted) <= np.array(longest) + 1).all()


def test_an_epoch_of_each_source_is_permuted_once(monkeypatch):
    """Four sources: an order that was forgotten at every step took longer than a small step."""
    kinds = [Pieces(CORPUS, 16, 200, 1), Rows(PLAIN, 8, 25, 2), Pieces(PLAIN, 30, 200, 3)]
    mixture = Mixture([*kinds, Pieces(CORPUS, 20, 200, 977)], [1, 1, 1, 1])
    made, randperm = [], torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **how: made.append(n) or randperm(n, **how))
    for step in range(4):
        list(mixture.samples(step))
    assert len(made) <= 4


def test_a_mixture_reads_every_source_through():
    mixture = Mixture([Pieces(PLAIN, 16, 100), Rows(PLAIN, 16, 5)], [1, 3])
    keys = [s.key for samples in mixture.epoch(0) for s in samples]
    n_rows = PLAIN.n_tokens // 16 - 1
    assert sum(key[0] == 1 for key in keys) == n_rows == len({k for k in keys if k[0] == 1})
    # by turns: a validation that stops early has read of both
    sources = [key[0] for key in keys]
    assert max(sources.index(0), sources.index(1)) < 8
    with pytest.raises(InputError, match="give one for each"):
        Mixture([Rows(PLAIN, 16, 5)], [1, 2])
    with pytest.raises(InputError, match="not all of them 0"):
        Mixture([Rows(PLAIN, 16, 5)], [0])


def test_a_batch_moves_to_a_device_with_its_layouts():
    (batch,) = Stream(TextPairs(PLAIN, 200), Translation(0, 2))(0)
    assert batch.to("cpu") is batch
    moved = batch.to("meta")
    assert moved.tokens.is_meta and moved.source is not None and moved.source.is_meta
    assert moved.layout.device.type == "meta" and moved.layout.lengths == batch.layout.lengths
    assert moved.keys == batch.keys and moved.counts == batch.counts

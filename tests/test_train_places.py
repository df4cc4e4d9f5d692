"""Losses at single tokens of a flat stream, beside their padded twins."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tercet.config import TransformerConfig
from tercet.data import Stream
from tercet.data.placed import AtPlaces, Placed, PlacedWindows, WhichPlaces
from tercet.errors import InputError
from tercet.model import Layout, build
from tercet.train import Span, Tagging
from tercet.train.places import log_totals

CONFIG = TransformerConfig(
    vocab_size=40,
    context_length=32,
    d_model=16,
    d_ff=32,
    n_heads=2,
    encoder_layers=1,
    token_types=2,
    heads=("tagger", "span"),
    n_labels=5,
)
LENGTHS = (3, 9, 1, 7)


def windows(kind: str) -> list[Placed]:
    draw = torch.Generator().manual_seed(1)

    def some(count: int, below: int) -> list[int]:
        return torch.randint(below, (count,), generator=draw).tolist()

    if kind == "tags":
        places = [list(range(0, n, 2)) for n in LENGTHS]
        return [Placed(some(n, 40), at, some(len(at), 5)) for n, at in zip(LENGTHS, places)]
    return [Placed(some(n, 40), sorted(some(2, n)), types=some(n, 2)) for n in LENGTHS]


def test_the_loss_of_tags_is_the_sum_over_words() -> None:
    model = build(CONFIG, 0).eval()
    own = windows("tags")
    (batch,) = Stream(PlacedWindows(own, rows=4), AtPlaces())(0)
    assert batch.counts == (sum(len(window.places) for window in own),)
    loss, weighted = Tagging()(model, batch), Tagging((1.0, 2.0, 0.0, 0.5, 3.0))(model, batch)
    total, other = 0.0, 0.0
    for window in own:
        tokens = torch.tensor(window.ids)
        logits = model.heads.tag(model.states(tokens, Layout([len(tokens)])))[window.places]
        each = F.cross_entropy(logits, torch.tensor(window.targets), reduction="none")
        total += each.sum().item()
        other += (each * torch.tensor([1.0, 2.0, 0.0, 0.5, 3.0])[list(window.targets)]).sum().item()
    assert loss.tolist() == pytest.approx([total], rel=1e-5)
    assert weighted.tolist() == pytest.approx([other], rel=1e-5)


def test_the_loss_of_spans_is_the_sum_over_both_ends() -> None:
    model = build(CONFIG, 0).eval()
    own = windows("spans")
    (batch,) = Stream(PlacedWindows(own, rows=4), WhichPlaces())(0)
    assert batch.counts == (8,) and batch.labels is not None and batch.labels.shape == (4, 2)
    total = 0.0
    for window in own:
        tokens, types = torch.tensor(window.ids), torch.tensor(window.types)
        logits = model.heads.spans(model.states(tokens, Layout([len(tokens)]), types=types))
        total += F.cross_entropy(logits.T, torch.tensor(window.places), reduction="sum").item()
    assert Span()(model, batch).tolist() == pytest.approx([total], rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "shape", "objective"),
    [("tags", AtPlaces(), Tagging()), ("spans", WhichPlaces(), Span())],
)
def test_a_step_is_cut_without_changing_its_gradient(kind, shape, objective) -> None:
    draw = PlacedWindows(windows(kind), rows=4, seed=2)
    gradients = []
    for micro in (None, 9):
        model = build(CONFIG, 0).eval()
        batches = Stream(draw, shape, micro_tokens=micro)(0)
        assert (len(batches) > 1) == (micro is not None)
        for batch in batches:
            objective(model, batch).sum().backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_ragged_log_totals_and_their_gradient() -> None:
    x = torch.randn(sum(LENGTHS), 2, generator=torch.Generator().manual_seed(0)) * 50
    x, twin = x.clone().requires_grad_(), x.clone().requires_grad_()
    layout = Layout(LENGTHS)
    found = log_totals(x, layout)
    expected = torch.stack([part.logsumexp(0) for part in twin.split(LENGTHS)])
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad, rtol=1e-5, atol=1e-6)


def test_nothing_to_learn_from() -> None:
    with pytest.raises(InputError, match="nothing to learn from"):
        PlacedWindows([], rows=2)
    with pytest.raises(InputError, match="rows 0 must be 1 or more"):
        PlacedWindows(windows("tags"), rows=0)

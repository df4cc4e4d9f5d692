"""Losses over the whole step: their values, and the gradient of any cut of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tercet.config import TransformerConfig
from tercet.data import Batch, Stream, keyed
from tercet.data.groups import Group, Grouped, Groups
from tercet.errors import InputError
from tercet.model import build
from tercet.train import Optimizer, Recipe, fit
from tercet.train import contrastive as contrastive_module
from tercet.train.contrastive import Coupled, InBatch, Ordered, SameLabel, vectors
from tercet.train.loop import accumulate, count_targets
from tercet.train.parallel import World

ENCODER = TransformerConfig(
    vocab_size=40,
    context_length=32,
    d_model=16,
    d_ff=32,
    n_heads=2,
    encoder_layers=2,
    heads=(),
)
KINDS = {
    "in-batch": InBatch(),
    "both ways": InBatch(temperature=0.1, symmetric=True),
    "ordered": Ordered(),
    "same label": SameLabel(),
}


def texts(n: int, seed: int = 0) -> list[list[int]]:
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(3, 12, (n,), generator=draw).tolist()
    return [torch.randint(0, 40, (size,), generator=draw).tolist() for size in sizes]


def groups(n: int, kind: str) -> list[Group]:
    """Pairs with a score; or pairs, every third with a negative or two, and some texts twice."""
    some = iter(texts(5 * n))
    if kind in ("ordered", "same label"):
        return [Group((next(some), next(some)), score=float(i % 5)) for i in range(n)]
    found = [
        Group(tuple(next(some) for _ in range(2 + (i % 3 == 0) + (i % 6 == 0)))) for i in range(n)
    ]
    found[1] = Group((found[0].texts[0], found[1].texts[1]))  # a second answer to one question
    found[3] = Group((found[3].texts[0], found[2].texts[1]))  # one answer to two questions
    return found


def batches(kind: str, micro_tokens: int | None, n: int = 24) -> list[Batch]:
    return Stream(Groups(groups(n, kind), rows=n, seed=1), Grouped(), micro_tokens)(0)


def gradient(net) -> Tensor:
    found = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    net.zero_grad(set_to_none=True)
    return found


def at_once(net, objective: Coupled, parts: list[Batch], recipe: Recipe) -> tuple[float, Tensor]:
    """The slow twin: every micro-batch with its graph, one loss, one backward."""
    found = []
    for number, batch in enumerate(parts):
        torch.manual_seed(keyed(recipe.seed, 7, 0, number))
        found.append(vectors(net, batch, objective.pool))
    loss = objective.of_vectors(torch.cat(found), parts) / len(parts_groups(parts))
    loss.sum().backward()
    return float(loss.detach()), gradient(net)


def parts_groups(parts: list[Batch]) -> list[int]:
    return [size for batch in parts for size in batch.groups]


@pytest.mark.parametrize("family", ["encoder", "decoder", "encoder-decoder"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("kind", KINDS)
def test_cached_gradients_are_those_of_one_big_batch(kind: str, dropout: float, family: str):
    layers = {"encoder": (2, 0), "decoder": (0, 2), "encoder-decoder": (1, 1)}[family]
    config = ENCODER.replace(
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        dropout=dropout,
        attention_dropout=dropout,
        **({} if family == "encoder" else {"eos_ids": (1,), "start_id": 0}),
    )
    net, objective = build(config).double().train(), KINDS[kind]
    recipe, found = Recipe(1e-3, steps=1), []
    for micro_tokens in (None, 200, 60, 11):
        parts = batches(kind, micro_tokens)
        wanted = at_once(net, objective, parts, recipe)
        terms = accumulate(net, objective, parts, count_targets(parts), recipe, 7, World())
        assert float(terms) == pytest.approx(wanted[0], rel=1e-9)
        cached = gradient(net)
        assert (cached - wanted[1]).norm() <= 1e-9 * wanted[1].norm()
        found.append(cached)
    assert len(batches(kind, 11)) > 10 and len(batches(kind, 60)) > 3
    for other in found[1:] if not dropout else ():
        assert (other - found[0]).norm() <= 1e-9 * found[0].norm()
    if dropout:
        assert (found[1] - found[0]).norm() > 1e-3 * found[0].norm()


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_they_agree_to_1e_5(kind: str):
    net, recipe = build(ENCODER.replace(dropout=0.1)).train(), Recipe(1e-3, steps=1)
    parts = batches(kind, 40)
    wanted = at_once(net, KINDS[kind], parts, recipe)[1]
    accumulate(net, KINDS[kind], parts, count_targets(parts), recipe, 7, World())
    assert (gradient(net) - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize("symmetric", [False, True])
def test_in_batch_negatives_by_hand(symmetric: bool):
    parts = batches("in-batch", 80)
    rows = groups(24, "in-batch")
    order = [number for batch in parts for _, number in batch.keys]
    found = torch.randn(sum(parts_groups(parts)), 8, dtype=torch.float64)
    place, named = 0, []
    for number in order:
        for role, ids in enumerate(rows[number].texts):
            named.append((number, role, tuple(ids), found[place] / found[place].norm()))
            place += 1

    def search(of: int, to: int, more: bool) -> float:
        total = 0.0
        for number, role, ids, vector in named:
            if role != of:
                continue
            same = [n for n, r, other, _ in named if r == of and other == ids]
            known = {ids} | {o for n, r, o, _ in named if n in same and r == to}
            own = next(v for n, r, _, v in named if n == number and r == to)
            weights = [math.exp(float(vector @ own) / 0.1)]
            for _n, r, other, v in named:
                if (r == to or (more and r > 1)) and other not in known:
                    weights.append(math.exp(float(vector @ v) / 0.1))
            total -= math.log(weights[0] / sum(weights))
        return total

    wanted = search(0, 1, True)
    wanted = (wanted + search(1, 0, False)) / 2 if symmetric else wanted
    loss = InBatch(temperature=0.1, symmetric=symmetric).of_vectors(found, parts)
    assert float(loss) == pytest.approx(wanted, rel=1e-9)


def test_similarities_come_in_blocks(monkeypatch: pytest.MonkeyPatch):
    parts = batches("in-batch", None)
    found = torch.randn(sum(parts_groups(parts)), 8, dtype=torch.float64, requires_grad=True)
    results = []
    for block in (1 << 22, 100, 1):
        monkeypatch.setattr(contrastive_module, "BLOCK", block)
        loss = InBatch(symmetric=True).of_vectors(found, parts)
        results.append((loss, *torch.autograd.grad(loss.sum(), found)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_ordered_pairs_by_hand():
    parts = batches("ordered", 60)
    scores = torch.cat([batch.labels for batch in parts if batch.labels is not None]).tolist()
    found = torch.randn(2 * len(scores), 8, dtype=torch.float64)
    near = torch.cosine_similarity(found[0::2], found[1::2]).tolist()
    total = 1.0
    for high, near_high in zip(scores, near):
        for low, near_low in zip(scores, near):
            total += math.exp(20 * (near_low - near_high)) if high > low else 0
    loss = Ordered().of_vectors(found, parts)
    assert float(loss) == pytest.approx(len(scores) * math.log(total), rel=1e-9)
    same = Stream(Groups([Group(([1, 2], [3]), 1.0)] * 4, rows=4), Grouped())(0)
    assert float(Ordered().of_vectors(found[:8], same)) == 0


def test_texts_of_a_label_by_hand():
    parts = batches("same label", 60)
    labels = [int(label) for batch in parts for label in batch.labels for _ in range(2)]
    found = torch.randn(len(labels), 8, dtype=torch.float64)
    unit, total = found / found.norm(dim=1, keepdim=True), 0.0
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        whole = sum(math.exp(float(unit[i] @ unit[j]) / 0.2) for j in others)
        own = [j for j in others if labels[j] == label]
        said = [math.log(math.exp(float(unit[i] @ unit[j]) / 0.2) / whole) for j in own]
        total -= sum(said) / len(own)
    loss = SameLabel(temperature=0.2).of_vectors(found, parts)
    assert float(loss) == pytest.approx(total / 2, rel=1e-9)  # 2 texts a group


def test_the_same_text_twice_is_read_under_two_draws():
    net = build(ENCODER.replace(dropout=0.1)).train()
    twice = [Group((ids, ids)) for ids in texts(6)]
    (batch,) = Stream(Groups(twice, rows=6), Grouped())(0)
    found = vectors(net, batch, "mean")
    assert not torch.allclose(found[0::2], found[1::2])
    assert float(InBatch()(net, batch)) > 0


def test_it_learns_which_texts_belong_together():
    """A text and the same one with each token a place further in the vocabulary."""
    plain = [[i % 20 for i in ids] for ids in texts(200, seed=3)]
    pairs = [Group((ids, [i + 20 for i in ids])) for ids in plain]
    net = build(ENCODER.replace(dropout=0.0))
    stream = Stream(Groups(pairs[:150], rows=50), Grouped(), micro_tokens=200)
    recipe = Recipe(5e-3, steps=60)

    def found() -> float:
        with torch.no_grad():
            (batch,) = Stream(Groups(pairs[150:], rows=50), Grouped())(0)
            unit = torch.nn.functional.normalize(vectors(net.eval(), batch, "mean"), dim=-1)
        best = (unit[0::2] @ unit[1::2].T).argmax(1)
        return float((best == torch.arange(50)).float().mean())

    before = found()
    fit(net, stream, InBatch(), recipe, Optimizer(net))
    assert found() > 0.8 > before + 0.3


def test_refusals():
    with pytest.raises(InputError, match="temperature 0 must be above 0"):
        InBatch(temperature=0)
    with pytest.raises(InputError, match="temperature 0 must be above 0"):
        SameLabel(temperature=0)
    with pytest.raises(InputError, match="scale -1 must be above 0"):
        Ordered(scale=-1)
    with pytest.raises(InputError, match="a text of row 2 has no tokens"):
        Groups([Group(([1], [2])), Group(([1], []))], rows=1)
    with pytest.raises(InputError, match="the score of row 1 is nan"):
        Groups([Group(([1], [2]), math.nan)], rows=1)
    with pytest.raises(InputError, match="rows 0"):
        Groups([Group(([1], [2]))], rows=0)
    with pytest.raises(InputError, match="no rows"):
        Groups([], rows=1)

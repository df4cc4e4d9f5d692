"""How probable each token of a text is after those before it, and how probable endings are after
one beginning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

import torch
from torch import Tensor

from tercet.model import Layout, Network, batches, flatten
from tercet.text import Window

ROWS = 512  # of logits held at once: 512 x 50,257 float32 are 103 MB
LEAST_SHARED = 8  # tokens: less in common is not worth a pass of its own

Values = list[float | None]


@torch.inference_mode()
def score(
    network: Network, windows: Sequence[Window], owners: Sequence[int], lengths: Sequence[int]
) -> list[Values]:
    """Log-probabilities (natural), for each text a list of its ``lengths``; None where nothing
    stands before, or no window counts a token. owners: the text of each window."""
    device = network.tokens.weight.device
    values: list[Values] = [[None] * n for n in lengths]
    for rows in batches([len(window.ids) for window in windows]):
        tokens, layout = flatten([windows[i].ids for i in rows], device)
        states = network.states(tokens, layout)  # (N, D)
        found: list[float] = []
        for logs, following in _logs(network, states, tokens.roll(-1)):
            found += logs.gather(1, following[:, None])[:, 0].tolist()
        for i, start in zip(rows, layout.starts, strict=True):
            for place in windows[i].counts:
                if place:  # nothing stands before the first token
                    values[owners[i]][windows[i].positions[place]] = found[start + place - 1]
    return values


@dataclass(frozen=True)
class Ending:
    """T token ids, of which the last ``n_targets`` (fewer than T) are foretold from those before
    them."""

    ids: list[int]
    n_targets: int


@dataclass(frozen=True)
class Foretold:
    """log_probability: natural, of all targets together. greedy: each is the likeliest token at its
    place."""

    log_probability: float
    greedy: bool


@torch.inference_mode()
def foretold(
    network: Network, groups: Sequence[Sequence[Ending]]
) -> Iterator[tuple[int, list[Foretold]]]:
    """The number of each group and what is foretold of its endings, the largest groups first.

    What all endings of a group begin with is read once. ``n_read`` says how many tokens that costs.
    """
    shared = [n_shared(group) for group in groups]
    for numbers in (
        [i for i, n in enumerate(shared) if n],
        [i for i, n in enumerate(shared) if not n],
    ):
        for rows in batches([n_read(groups[i]) for i in numbers]):
            part = [numbers[row] for row in rows]
            found = _read(network, [groups[i] for i in part], [shared[i] for i in part])
            yield from zip(part, found, strict=True)


def n_shared(group: Sequence[Ending]) -> int:
    """How many tokens all endings begin with, so that a token is left to foretell the first target
    from; 0 where that is not worth a pass."""
    before = [ending.ids[: -ending.n_targets - 1] for ending in group]
    n = len(commonprefix(before)) if len(group) > 1 else 0
    return n if n >= LEAST_SHARED else 0


def n_read(group: Sequence[Ending]) -> int:
    """Tokens that ``foretold`` reads for a group."""
    shared = n_shared(group)
    return shared + sum(len(ending.ids) - 1 - shared for ending in group)


def _read(
    network: Network, groups: Sequence[Sequence[Ending]], shared: Sequence[int]
) -> list[list[Foretold]]:
    """One batch: all groups share a beginning (of ``shared`` tokens), or none does."""
    device = network.tokens.weight.device
    cache: Any = None  # of a Transformer, or of its recurrent twin
    past = None
    if shared[0]:
        cache = network.new_cache(len(groups))
        beginnings = [group[0].ids[:n] for group, n in zip(groups, shared, strict=True)]
        network.decode(*flatten(beginnings, device), cache=cache)
        owners = [i for i, group in enumerate(groups) for _ in group]
        cache.reorder(torch.tensor(owners, device=device))
        past = [shared[i] for i in owners]
    endings = [(ending, n) for group, n in zip(groups, shared) for ending in group]
    rests = [ending.ids[n:-1] for ending, n in endings]
    tokens, _ = flatten(rests, device)
    layout = Layout([len(rest) for rest in rests], past, device)
    states = network.decode(tokens, layout, cache=cache)  # (N, D)
    rows, targets = [], []
    for (ending, _), start, length in zip(endings, layout.starts, layout.lengths, strict=True):
        rows += range(start + length - ending.n_targets, start + length)
        targets += ending.ids[-ending.n_targets :]
    logs, greedy = [], []
    for part, wanted in _logs(
        network, states[torch.tensor(rows, device=device)], torch.tensor(targets, device=device)
    ):
        logs.append(part.gather(1, wanted[:, None])[:, 0].double())
        greedy.append(part.argmax(-1) == wanted)
    counts = [ending.n_targets for ending, _ in endings]
    found = [
        Foretold(float(own.sum()), bool(best.all()))
        for own, best in zip(torch.cat(logs).split(counts), torch.cat(greedy).split(counts))
    ]
    answers = iter(found)
    return [[next(answers) for _ in group] for group in groups]


def _logs(network: Network, states: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Log-probabilities (r, V), float32 (float64 of float64), a few of the states (N, D) at a time,
    and the targets (r,) of these."""
    kind = torch.promote_types(states.dtype, torch.float32)
    for part, wanted in zip(states.split(ROWS), targets.split(ROWS), strict=True):
        yield network.logits(part).log_softmax(-1, dtype=kind), wanted

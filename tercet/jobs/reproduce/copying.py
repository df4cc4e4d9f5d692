"""Copying: a mark, k different symbols, the mark again, and then the same symbols, which is what is
to be said. Each of them stands k tokens back, whatever the network has to get at it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from tercet.config import TransformerConfig
from tercet.data import Batch
from tercet.data.order import generator
from tercet.files import written
from tercet.model import Layout, Network, build
from tercet.train import Checkpoints, Optimizer, Recipe, fit
from tercet.train.objectives import accuracy, cross_entropy
from tercet.train.progress import Watch

ORDERS = ("in turn", "near first")
SAVE_EVERY = 50  # steps


@dataclass(frozen=True)
class Copies:
    """Sequences of one distance a step, as many as ``tokens`` hold; called with a step as a loop's
    data.

    The distances come in turn; or the nearer the oftener, "near first": of every two steps one has
    the first distance, of every four one the second, and so on.
    """

    symbols: int
    distances: Sequence[int]
    tokens: int
    order: str = ORDERS[0]
    seed: int = 0

    def __call__(self, step: int) -> list[Batch]:
        return [self.batch(self.distance(step), "train", step)]

    def distance(self, step: int) -> int:
        if self.order == ORDERS[0]:
            return self.distances[step % len(self.distances)]
        halvings = ((step + 1) & -(step + 1)).bit_length() - 1
        return self.distances[min(halvings, len(self.distances) - 1)]

    def batch(self, distance: int, *key: int | str) -> Batch:
        draw = generator("copies", self.seed, distance, *key)
        length, count = 2 * distance + 1, max(1, self.tokens // (2 * distance + 1))
        # symbols of a sequence differ: each occurs once before it is to be said again
        first = torch.rand(count, self.symbols, generator=draw).argsort(1)[:, :distance]  # (B, k)
        mark = torch.full((count, 1), self.symbols)
        read = torch.cat([mark, first, mark, first[:, :-1]], dim=1)  # (B, 2 k + 1)
        rows = torch.arange(count)[:, None] * length + torch.arange(distance + 1, length)
        return Batch(read.flatten(), Layout([length] * count), first.flatten(), rows.flatten())

    @cached_property
    def longest(self) -> int:
        return 2 * max(self.distances) + 1

    def exact(self, network: Network) -> dict[int, float]:
        """Distance -> the share of tokens that are copied exactly, in sequences never seen."""
        found = {}
        for distance in self.distances:
            batch = self.batch(distance, "test")
            found[distance] = accuracy(network, batch, top=1) / batch.n_targets
        return found


def learned(
    config: TransformerConfig,
    copies: Copies,
    folder: Path,
    *,
    rate: float,
    seconds: float,
    quiet: bool = True,
) -> dict[int, float]:
    """What a network that trained for so many seconds copies: distance -> share of exact tokens.

    Goes on where it was interrupted; what is found stands in the folder.
    """
    place = folder / "copied.json"
    if not place.exists():
        network = build(config, copies.seed)
        optimizer = Optimizer(network, kind="muon", weight_decay=0.0)
        checkpoints = Checkpoints(folder, network, optimizer)
        recipe = Recipe(rate, seconds=seconds, seed=copies.seed, spike=0.0, on_trouble="skip")
        with Watch(folder.name, quiet=quiet) as watch:
            state = fit(
                network,
                copies,
                cross_entropy,
                recipe,
                optimizer,
                state=checkpoints.load(),
                actions=[(1, watch), (SAVE_EVERY, checkpoints.save)],
                on_stop=checkpoints.save,
            )
        facts = {"shares": copies.exact(network), "steps": state.step, "seconds": state.seconds}
        with written(place) as draft:
            draft.write_text(json.dumps(facts), encoding="utf-8")
    kept = json.loads(place.read_text(encoding="utf-8"))["shares"]
    return {int(distance): share for distance, share in kept.items()}


def reach(shares: dict[int, float], *, least: float = 0.9) -> int:
    """The longest distance up to which this share of the tokens, or more, is exact; 0: none."""
    near = 0
    for distance, share in sorted(shares.items()):
        if math.isnan(share) or share < least:
            break
        near = distance
    return near

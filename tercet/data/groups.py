"""Texts that belong together: what a step draws of them, and how they become a batch.

A group is a few texts, given as ids, whose meaning their place in it says: a pair that should be
near and texts that should be far from its first, two texts and how alike they are, or a question
with each of several answers. Knows neither text nor loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tercet.data.draw import Draw, Sample
from tercet.data.order import CountOrder
from tercet.data.shape import Batch
from tercet.errors import InputError
from tercet.model.layout import Layout


@dataclass(frozen=True)
class Group:
    """texts: the ids of each. score: how alike they are, where somebody said so. types: of each
    token, which text of a pair it belongs to, where each of the texts is a pair by itself."""

    texts: tuple[Sequence[int], ...]
    score: float | None = None
    types: tuple[Sequence[int], ...] = ()


class Groups(Draw):
    """``rows`` groups a step, every group once an epoch."""

    def __init__(self, groups: Sequence[Group], *, rows: int, seed: int = 0) -> None:
        if rows < 1:
            raise InputError(f"rows {rows} must be 1 or more a step")
        if not groups:
            raise InputError("no rows to learn from; give some")
        for number, group in enumerate(groups, 1):
            if not all(len(ids) for ids in group.texts):
                raise InputError(f"a text of row {number:,} has no tokens; leave the row out")
            if group.score is not None and not math.isfinite(group.score):
                raise InputError(f"the score of row {number:,} is {group.score}; give a number")
        self.groups = groups
        mean = sum(len(ids) for group in groups for ids in group.texts) / len(groups)
        self.order = CountOrder(len(groups), rows, mean, seed)

    def sample(self, epoch: int, number: int) -> Sample:
        group = self.groups[number]
        sizes = tuple(len(ids) for ids in group.texts)
        types = [i for part in group.types for i in part]
        return Sample(
            (epoch, number),
            torch.tensor([i for ids in group.texts for i in ids]),
            label=group.score,
            document=number,
            sizes=sizes,
            types=torch.tensor(types) if types else None,
        )


@dataclass(frozen=True)
class Grouped:
    """Each text a sequence; the batch says which of them belong together."""

    @property
    def added(self) -> int:
        return 0

    def batch(self, samples: Sequence[Sample]) -> Batch:
        scores = [float(sample.label) for sample in samples if sample.label is not None]
        types = [sample.types for sample in samples if sample.types is not None]
        assert len(scores) in (0, len(samples)) and len(types) in (0, len(samples))
        return Batch(
            torch.cat([sample.ids for sample in samples]),
            Layout([size for sample in samples for size in sample.sizes]),
            torch.empty(0, dtype=torch.int64),
            types=torch.cat(types) if types else None,
            labels=torch.tensor(scores) if scores else None,
            groups=tuple(len(sample.sizes) for sample in samples),
            keys=tuple(sample.key for sample in samples),
        )

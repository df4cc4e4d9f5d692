"""Texts with a label each: what a step draws of them, and how they become a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tercet.data.draw import Draw, Sample
from tercet.data.order import CountOrder
from tercet.data.shape import Batch
from tercet.errors import InputError
from tercet.model.layout import Layout


class LabelledTexts(Draw):
    """``rows`` texts a step, given as ids with whatever special tokens the model expects.

    labels: 0, 1, 2 ..., one for each text.
    """

    def __init__(
        self,
        texts: Sequence[Sequence[int]],
        labels: Sequence[int],
        *,
        rows: int,
        seed: int = 0,
    ) -> None:
        if len(texts) != len(labels) or not len(texts):
            raise InputError(f"{len(texts):,} texts with {len(labels):,} labels; give one for each")
        if rows < 1:
            raise InputError(f"rows {rows} must be 1 or more texts a step")
        empty = next((i for i, ids in enumerate(texts) if not len(ids)), None)
        if empty is not None:
            raise InputError(f"text {empty + 1} of {len(texts):,} has no tokens; leave it out")
        self.texts, self.labels = texts, labels
        mean = sum(map(len, texts)) / len(texts)
        self.order = CountOrder(len(texts), rows, mean, seed)

    def sample(self, epoch: int, number: int) -> Sample:
        ids = torch.tensor(self.texts[number], dtype=torch.int64)
        return Sample((epoch, number), ids, label=int(self.labels[number]), document=number)


@dataclass(frozen=True)
class Labelled:
    """The label of each text is all that is to be learned."""

    @property
    def added(self) -> int:
        return 0

    def batch(self, samples: Sequence[Sample]) -> Batch:
        return Batch(
            torch.cat([sample.ids for sample in samples]),
            Layout([len(sample.ids) for sample in samples]),
            torch.empty(0, dtype=torch.int64),
            labels=torch.tensor([sample.label for sample in samples]),
            keys=tuple(sample.key for sample in samples),
        )

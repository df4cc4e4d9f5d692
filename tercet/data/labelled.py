"""Texts, or pairs of texts, with a label each: what a step draws of them, and how they become a
batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tercet.data.draw import Draw, Sample
from tercet.data.order import CountOrder
from tercet.data.shape import Batch
from tercet.errors import InputError
from tercet.model.layout import Layout


class LabelledTexts(Draw):
    """``rows`` texts a step, given as ids with whatever special tokens the model expects.

    labels: (B,) the number of each one's label, or its value; (B, labels) 1 for each that it has.
    types: which text of a pair each id belongs to.
    """

    def __init__(
        self,
        texts: Sequence[Sequence[int]],
        labels: Sequence[Any] | Tensor,
        *,
        rows: int,
        seed: int = 0,
        types: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if len(texts) != len(labels) or not len(texts):
            raise InputError(f"{len(texts):,} texts with {len(labels):,} labels; give one for each")
        if rows < 1:
            raise InputError(f"rows {rows} must be 1 or more texts a step")
        empty = next((i for i, ids in enumerate(texts) if not len(ids)), None)
        if empty is not None:
            raise InputError(f"text {empty + 1} of {len(texts):,} has no tokens; leave it out")
        self.texts = [torch.tensor(ids, dtype=torch.int64) for ids in texts]
        self.labels = torch.as_tensor(labels)
        self.types = None if types is None else [torch.tensor(one) for one in types]
        mean = sum(map(len, texts)) / len(texts)
        self.order = CountOrder(len(texts), rows, mean, seed)

    def sample(self, epoch: int, number: int) -> Sample:
        return Sample(
            (epoch, number),
            self.texts[number],
            label=self.labels[number],
            types=None if self.types is None else self.types[number],
            document=number,
        )


@dataclass(frozen=True)
class Labelled:
    """The label of each text is all that is to be learned.

    start_id: of an encoder-decoder, whose decoder reads the text too, behind this token and without
    its last one (Lewis et al. 2020, 3.1): its last state has seen all of it.
    """

    start_id: int | None = None

    @property
    def added(self) -> int:
        return 0

    def batch(self, samples: Sequence[Sample]) -> Batch:
        labels = [torch.as_tensor(sample.label) for sample in samples]
        types = [sample.types for sample in samples if sample.types is not None]
        layout, tokens = (
            Layout([len(sample.ids) for sample in samples]),
            torch.cat([sample.ids for sample in samples]),
        )
        shifted, source = tokens, None
        if self.start_id is not None:
            shifted, source = tokens.roll(1), tokens
            shifted[torch.tensor(layout.starts)] = self.start_id
        return Batch(
            shifted,
            layout,
            torch.empty(0, dtype=torch.int64),
            source=source,
            source_layout=None if source is None else layout,
            types=torch.cat(types) if types else None,
            labels=torch.stack(labels),
            keys=tuple(sample.key for sample in samples),
        )

"""Draws and the shape of conversations: the next token, of answers alone.

Conversations lie in the stream one behind the other and do not see each other; positions begin
anew in each. Knows no templates: which tokens are learned stands in the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tercet.data.draw import Draw, Sample
from tercet.data.order import TokenOrder
from tercet.data.shape import Batch
from tercet.data.shards import Tokens
from tercet.errors import InputError
from tercet.model.layout import Layout


class Talks(Draw):
    """Whole conversations, about ``step_tokens`` tokens of them a step."""

    def __init__(self, tokens: Tokens, step_tokens: float, seed: int = 0) -> None:
        self.tokens = tokens
        self.order = TokenOrder(tokens.lengths, step_tokens, seed)

    def sample(self, epoch: int, number: int) -> Sample:
        start = int(self.tokens.starts[number])
        numbers = self.tokens.take(start, start + int(self.tokens.lengths[number]))
        places = (numbers & 1).nonzero().flatten()
        return Sample((epoch, number), numbers >> 1, places=places, document=number, start=start)


class Choices(Draw):
    """Pairs of answers, the chosen one first. reference: (n, 2) what the model that the run began
    with says of both, natural logarithms; they become the sample's label."""

    def __init__(
        self, tokens: Tokens, step_tokens: float, seed: int = 0, reference: np.ndarray | None = None
    ) -> None:
        if len(tokens) % 2:
            raise InputError(f"{len(tokens)} answers are not pairs; prepare the data anew")
        self.tokens, self.reference = tokens, reference
        self.order = TokenOrder(tokens.lengths.reshape(-1, 2).sum(1), step_tokens, seed)

    def __len__(self) -> int:
        return len(self.tokens) // 2

    def sample(self, epoch: int, number: int) -> Sample:
        first, second = self.tokens.lengths[2 * number : 2 * number + 2].tolist()
        start = int(self.tokens.starts[2 * number])
        numbers = self.tokens.take(start, start + first + second)
        label = None if self.reference is None else torch.from_numpy(self.reference[number].copy())
        return Sample(
            (epoch, number),
            numbers >> 1,
            places=(numbers & 1).nonzero().flatten(),
            sizes=(first, second),
            label=label,
            document=2 * number,
            start=start,
        )


@dataclass(frozen=True)
class Answers:
    """The token behind each place, where that is learned. Of pairs the groups are of two sequences,
    and the labels (2 B,) their reference."""

    @property
    def added(self) -> int:
        return 0

    def batch(self, samples: Sequence[Sample]) -> Batch:
        sizes = [size for sample in samples for size in sample.sizes or (sample.ids.numel(),)]
        whole = torch.cat([sample.ids for sample in samples])
        starts = np.cumsum([0, *(sample.ids.numel() for sample in samples)]).tolist()
        places = [at + _places(sample) for at, sample in zip(starts, samples)]
        learned = torch.cat(places)
        kept = torch.ones(len(whole), dtype=torch.bool)
        kept[np.cumsum(sizes) - 1] = False  # nothing follows a last token
        rows = kept.cumsum(0) - 1  # of each token that is read
        pairs = [sample for sample in samples if sample.sizes]
        labels = [sample.label for sample in pairs if isinstance(sample.label, torch.Tensor)]
        return Batch(
            whole[kept],
            Layout([size - 1 for size in sizes]),
            whole[learned],
            rows[learned - 1],
            labels=torch.cat(labels) if labels else None,
            groups=(2,) * len(pairs),
            keys=tuple(sample.key for sample in samples),
        )


def _places(sample: Sample) -> torch.Tensor:
    assert sample.places is not None, "this draw has no answers"
    return sample.places

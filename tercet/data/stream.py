"""Stream: the loop's data. Cuts a step's samples into micro-batches, on every rank the same number.

The samples of a step do not depend on the cut: the union over the ranks is what one process sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tercet.data.draw import Draw, Sample
from tercet.data.shape import Batch, Shape
from tercet.errors import InputError


@dataclass(frozen=True)
class Stream:
    """Called with a step it gives this rank's micro-batches.

    ``micro_tokens``: about how many tokens a micro-batch holds, a quarter and a sample more at the
    most; None: a rank's whole part of the step. Samples stay in their order: rank 0 has the first.
    """

    draw: Draw
    shape: Shape
    micro_tokens: int | None = None
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        check_enough(self.draw, self.world)
        if self.micro_tokens is not None and self.micro_tokens < 1:
            raise InputError(f"micro_tokens {self.micro_tokens} must be at least 1")

    def __call__(self, step: int) -> list[Batch]:
        return self.cut(self.samples(step))

    def cut(self, samples: Sequence[Sample]) -> list[Batch]:
        """This rank's micro-batches of all that a step sees."""
        count = self.micro_batches
        if self.micro_tokens is not None:  # where a few texts are much longer, so are a few steps
            total = sum(sample.n_tokens for sample in samples)
            count = max(count, math.ceil(total / self.world / self.micro_tokens - 0.25))
        count = min(count, len(samples) // self.world)
        edges = near_equal([sample.n_tokens for sample in samples], self.world * count)
        mine = edges[self.rank * count : (self.rank + 1) * count + 1]
        return [self.shape.batch(samples[a:b]) for a, b in zip(mine[:-1], mine[1:])]

    def samples(self, step: int) -> list[Sample]:
        """All that the step sees, on all ranks."""
        return self.draw.samples(step)

    @property
    def micro_batches(self) -> int:
        """Of each rank in a step of the usual size, unless it has fewer samples."""
        if self.micro_tokens is None:
            return 1
        whole = self.draw.step_tokens / self.world / self.micro_tokens
        return math.ceil(whole - 1e-6)  # shares of a mixture do not add up to the last bit


def check_enough(draw: Draw, world: int) -> None:
    """Raises InputError where a step may have fewer samples than there are processes."""
    if draw.fewest < world:
        raise InputError(
            f"a step of {draw.step_tokens:,.0f} tokens may hold only {draw.fewest} whole samples, "
            f"too few for {world} {'process' if world == 1 else 'processes'}; make the step larger "
            "or the samples shorter"
        )


def near_equal(sizes: list[int], parts: int) -> list[int]:
    """The edges, 0 first and len(sizes) last, of contiguous parts with near-equal sums, none of
    them empty. Each edge is where the running sum is nearest to its share."""
    assert 1 <= parts <= len(sizes), (parts, len(sizes))
    sums = np.cumsum([0, *sizes])
    wanted = np.arange(parts + 1) * (sums[-1] / parts)
    edges = np.searchsorted((sums[:-1] + sums[1:]) / 2, wanted)
    edges[0], edges[-1] = 0, len(sizes)
    steps = np.arange(parts + 1)
    edges = np.maximum.accumulate(edges - steps) + steps  # each part has one at least
    return np.minimum(edges, len(sizes) - parts + steps).tolist()

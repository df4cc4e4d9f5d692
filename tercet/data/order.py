"""Which samples a step sees: a pure function of (seed, step), and nothing else.

It does not depend on micro-batches, processes or what ran before, so a resumed run needs no replay.
Orders know numbers and sizes of samples, not what they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

KEPT = 2  # epochs whose order is remembered: of 10 million samples 40 MB each
Drawn = list[tuple[int, int]]  # (epoch, number) of each sample


def keyed(*key: int | str) -> int:
    """A 63-bit seed from any key. Neighbouring keys give unrelated seeds (SHA-256)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A stream of random numbers that belongs to ``key`` alone."""
    return torch.Generator().manual_seed(keyed(*key))


def sample_order(seed: int, first: int, count: int, n_samples: int) -> Drawn:
    """(epoch, sample) of ``count`` draws from number ``first``; each epoch is permuted anew."""
    places = (divmod(place, n_samples) for place in range(first, first + count))
    return [(epoch, int(permutation(seed, epoch, n_samples)[place])) for epoch, place in places]


def permuted(seed: int, epoch: int, n_samples: int) -> np.ndarray:
    """(n_samples,) the order of one epoch."""
    draw = generator("order", seed, epoch)
    kind = torch.int32 if n_samples < 1 << 31 else torch.int64  # the numbers are the same
    return torch.randperm(n_samples, generator=draw, dtype=kind).numpy()


permutation = lru_cache(maxsize=8)(permuted)  # the epochs of a mixture's parts alternate


@dataclass(frozen=True)
class CountOrder:
    """So many samples a step, one epoch behind the other.

    ``count`` may have a fraction (a part of a mixture): any number of steps from the first on has
    within one sample of its share. ``size``: tokens of a sample, on average.
    """

    n_samples: int
    count: float
    size: float
    seed: int = 0

    @property
    def step_tokens(self) -> float:
        return self.count * self.size

    @property
    def fewest(self) -> int:
        """Samples that every step has at least."""
        return math.floor(self.count)

    @property
    def steps_per_epoch(self) -> float:
        return self.n_samples / self.count

    def share(self, weight: float) -> CountOrder:
        return dataclasses.replace(self, count=self.count * weight)

    def step(self, step: int) -> Drawn:
        first, stop = math.floor(step * self.count), math.floor((step + 1) * self.count)
        return sample_order(self.seed, first, stop - first, self.n_samples)

    def epoch(self, epoch: int) -> Iterator[Drawn]:
        """A whole epoch, about a step's samples at a time."""
        order, size = permutation(self.seed, epoch, self.n_samples).tolist(), math.ceil(self.count)
        for i in range(0, self.n_samples, size):
            yield [(epoch, number) for number in order[i : i + size]]


@dataclass(frozen=True, eq=False)
class TokenOrder:
    """Samples of unequal length, in steps of about ``step_tokens`` tokens.

    All epochs lie end to end on one line of tokens; each holds every sample once, so all are
    equally long, and where one begins needs no look at those before it. Step k takes the samples
    that begin in its stretch of the line, from k * step_tokens to (k + 1) * step_tokens: the
    tokens of a step, and of any number of steps from the first on, are within one sample of what
    was asked, and no step is left with the rest of an epoch.
    """

    sizes: np.ndarray  # (n,) tokens of each sample, at least 1
    step_tokens: float
    seed: int = 0

    @cached_property
    def epoch_tokens(self) -> int:
        return int(self.sizes.sum(dtype=np.int64))

    @cached_property
    def longest(self) -> int:
        return int(self.sizes.max())

    @property
    def fewest(self) -> int:
        """Samples that every step has at least."""
        return math.floor(self.step_tokens / self.longest)

    @property
    def steps_per_epoch(self) -> float:
        return self.epoch_tokens / self.step_tokens

    def share(self, weight: float) -> TokenOrder:
        return dataclasses.replace(self, step_tokens=self.step_tokens * weight)

    def step(self, step: int) -> Drawn:
        start, stop = (math.floor(k * self.step_tokens) for k in (step, step + 1))
        epochs = range(start // self.epoch_tokens, (stop - 1) // self.epoch_tokens + 1)
        return [drawn for epoch in epochs for drawn in self._part(epoch, start, stop)]

    def epoch(self, epoch: int) -> Iterator[Drawn]:
        """A whole epoch, about a step's samples at a time."""
        first = epoch * self.epoch_tokens
        for k in range(math.ceil(self.steps_per_epoch)):
            start, stop = (first + math.floor(i * self.step_tokens) for i in (k, k + 1))
            if part := self._part(epoch, start, stop):
                yield part

    def _part(self, epoch: int, start: int, stop: int) -> Drawn:
        """The samples of an epoch that begin between two places of the line."""
        line = np.array([start, stop]) - epoch * self.epoch_tokens
        order, begins = self._line(epoch)
        first, last = np.searchsorted(begins, line)
        return [(epoch, number) for number in order[first:last].tolist()]

    def _line(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of an epoch's samples (n,), and where each of them begins, in that order."""
        if epoch not in self._kept:
            order = permuted(self.seed, epoch, len(self.sizes))
            if len(self._kept) >= KEPT:
                self._kept.pop(next(iter(self._kept)))
            sizes = self.sizes[order]
            self._kept[epoch] = order, np.cumsum(sizes, dtype=np.int64) - sizes
        return self._kept[epoch]

    @cached_property
    def _kept(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {}

"""How sure a figure is, and whether one model is better than another by the same questions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS, CHUNK = 100_000, 1_000
LARGEST = 1 << 16  # values drawn at once


@dataclass(frozen=True)
class Figure:
    """A mean, or what is made of one, and its standard error; nan of a single value."""

    value: float
    error: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4f}" + ("" if math.isnan(self.error) else f" ± {self.error:.4f}")


def mean(values: Sequence[float]) -> Figure:
    """With the error of a mean: the deviation of the sample over sqrt(n)."""
    n, middle = len(values), math.fsum(values) / len(values)
    if n < 2:
        return Figure(middle, math.nan, n)
    squares = math.fsum((value - middle) ** 2 for value in values)
    return Figure(middle, math.sqrt(squares / (n - 1)) / math.sqrt(n), n)


def perplexity(log_probabilities: Sequence[float]) -> Figure:
    """exp of minus their mean. Its error is the deviation over samples drawn again (Efron 1979):
    with the draws that lm-evaluation-harness makes, so that both tell the same digits."""
    values, n = np.array(log_probabilities), len(log_probabilities)
    if n < 2:
        return Figure(_exp(-float(values.mean())), math.nan, n)
    drawn: list[np.ndarray] = []
    for seed in range(DRAWS // CHUNK):
        # Python's generator and numpy's are one, and random.choices takes floor(draw * n)
        *key, position = random.Random(seed).getstate()[1]
        generator = np.random.RandomState()
        generator.set_state(("MT19937", np.array(key, dtype=np.uint32), position, 0, 0.0))
        places = (generator.random_sample(CHUNK * n) * n).astype(np.int64)
        drawn.append(values[places].reshape(CHUNK, n).mean(axis=1))
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(np.exp(-np.concatenate(drawn)).std(ddof=1))
    return Figure(_exp(-float(values.mean())), error, n)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # beyond, a float is at its end


@dataclass(frozen=True)
class Difference:
    """Of a figure, from one to another, with its 95 % interval over the items."""

    mean: float
    low: float
    high: float


def paired(gains: Sequence[float] | np.ndarray, *, samples: int = 10_000) -> Difference:
    """What each item gained, with items drawn again: most of what a figure varies by is how hard
    its items are (the paired bootstrap of Sakai 2006). Seeded, so always the same."""
    gains = np.asarray(gains, dtype=np.float64)
    draw = np.random.default_rng(0)
    together = max(1, LARGEST // len(gains))
    means = [
        draw.choice(gains, (min(together, samples - done), len(gains))).mean(axis=1)
        for done in range(0, samples, together)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Difference(float(gains.mean()), float(low), float(high))


def sign_test(gains: Sequence[float]) -> float:
    """The probability, two-sided, of so uneven a split of the items that differ, were each as
    likely to gain as to lose. Of right and wrong answers it is McNemar's test, exact."""
    won = sum(gain > 0 for gain in gains)
    lost = sum(gain < 0 for gain in gains)
    tail = ways = 1  # of 0 wins; each further number of them follows from the one before
    for k in range(min(won, lost)):
        ways = ways * (won + lost - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2 ** (won + lost))

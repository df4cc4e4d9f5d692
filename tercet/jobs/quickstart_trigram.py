"""What the quickstart's networks have to beat: an interpolated trigram and the unigram.

The trigram is interpolated modified Kneser-Ney (Chen and Goodman 1999, section 3): the strongest of
the classical smoothings. Its discounts come from the training counts alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class Trigram:
    """Interpolated modified Kneser-Ney over token ids in ``range(vocab_size)``."""

    def __init__(self, tokens: Ids, vocab_size: int) -> None:
        tokens = tokens.astype(np.int64)
        v = vocab_size
        pairs = tokens[:-1] * v + tokens[1:]
        triples = pairs[:-1] * v + tokens[2:]
        keys3, counts3 = np.unique(triples, return_counts=True)
        # lower orders count the different words that come before, not how often
        keys2, counts2 = np.unique(keys3 % (v * v), return_counts=True)
        counts1 = np.bincount(np.unique(pairs) % v, minlength=v)
        self._vocab_size = v
        self._levels = (_Level(keys2, counts2, v), _Level(keys3, counts3, v))
        self._unigram = _unigram(counts1)

    def log_probabilities(self, tokens: Ids) -> NDArray[np.float64]:
        """Natural logarithms of P(token | two before), of all but the first two: (N - 2,)."""
        v, tokens = self._vocab_size, tokens.astype(np.int64)
        pairs = tokens[1:-1] * v + tokens[2:]
        triples = tokens[:-2] * v * v + pairs
        probability = self._unigram[tokens[2:]]
        for level, keys in zip(self._levels, (pairs, triples), strict=True):
            probability = level.interpolate(keys, probability)
        return np.log(probability)


class _Level:
    """Discounted counts of one order; contexts are keys without their last word."""

    def __init__(self, keys: Ids, counts: Ids, vocab_size: int) -> None:
        self._keys, self._counts, self._vocab_size = keys, counts, vocab_size
        self._discounts = _discounts(counts)  # (4,) of counts 0, 1, 2, 3 and more
        self._contexts, first = np.unique(keys // vocab_size, return_index=True)
        self._totals = np.add.reduceat(counts, first)
        self._reserved = np.add.reduceat(self._discounts[np.minimum(counts, 3)], first)

    def interpolate(self, keys: Ids, lower: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(word | context) from the lower order's; a context never seen leaves it as it is."""
        counts = _lookup(self._keys, self._counts, keys)
        contexts = keys // self._vocab_size
        totals = _lookup(self._contexts, self._totals, contexts)
        reserved = _lookup(self._contexts, self._reserved, contexts)
        kept = counts - self._discounts[np.minimum(counts.astype(np.int64), 3)]
        return np.where(totals > 0, (kept + reserved * lower) / np.maximum(totals, 1), lower)


def _unigram(counts: Ids) -> NDArray[np.float64]:
    """(V,) interpolated with the uniform distribution."""
    discounts = _discounts(counts[counts > 0])[np.minimum(counts, 3)]
    return (counts - discounts + discounts.sum() / len(counts)) / counts.sum()


def _discounts(counts: Ids) -> NDArray[np.float64]:
    """Modified Kneser-Ney's three discounts from the counts of counts."""
    n1, n2, n3, n4 = (max(1, int((counts == n).sum())) for n in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    each = (0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return np.clip(np.array(each), 0.0, (0.0, 0.95, 1.95, 2.95))


def _lookup(keys: Ids, values: np.ndarray, wanted: Ids) -> NDArray[np.float64]:
    """The value of each wanted key, 0 where there is none. ``keys`` are sorted."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0).astype(np.float64)


def unigram_top(tokens: Ids, targets: Ids, k: int = 5) -> float:
    """The share of ``targets`` that are among the ``k`` commonest of ``tokens``."""
    best = np.argsort(-np.bincount(tokens), kind="stable")[:k]
    return float(np.isin(targets, best).mean())

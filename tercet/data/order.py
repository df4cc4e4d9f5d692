"""Which samples a step sees: a pure function of (seed, step), and nothing else.

It does not depend on micro-batches, processes or what ran before, so a resumed run needs no replay.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch


def keyed(*key: int | str) -> int:
    """A 63-bit seed from any key. Neighbouring keys give unrelated seeds (SHA-256)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A stream of random numbers that belongs to ``key`` alone."""
    return torch.Generator().manual_seed(keyed(*key))


def sample_order(seed: int, first: int, count: int, n_samples: int) -> list[tuple[int, int]]:
    """(epoch, sample) of ``count`` draws from number ``first``; each epoch is permuted anew."""
    return [
        (place // n_samples, permutation(seed, place // n_samples, n_samples)[place % n_samples])
        for place in range(first, first + count)
    ]


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, n_samples: int) -> list[int]:
    """The order of one epoch."""
    draw = generator("order", seed, epoch)
    return torch.randperm(n_samples, generator=draw).tolist()

"""What this machine multiplies in a second: the yardstick beside every measured speed."""

from __future__ import annotations

import time

import torch

from tercet.model.linear import linear

SIDE = 1536  # of the square matrices: 7.2 GFLOP a product
TRIALS = 4


def peak(dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> float:
    """FLOP/s of a large matrix product as the networks here make it, the best of a few: about a
    quarter of a second of work."""
    a = torch.randn(SIDE, SIDE, device=device).to(dtype)
    best = float("inf")
    for _ in range(TRIALS):
        started = time.perf_counter()
        linear(a, a, None)
        if a.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * SIDE**3 / best

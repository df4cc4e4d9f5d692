"""Muon (Jordan et al. 2024): a matrix steps by the orthogonal matrix nearest to its momentum.

The same as torch.optim.Muon to the bit, which multiplies in bfloat16 wherever it runs, but in
float32 on a processor that is faster in it: on an AVX2 one, which only imitates bfloat16, a step of
the quickstart's decoder took 5.6 s, nearly all of it here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from tercet.kernels.processor import outrun

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd polynomial, the steepest at zero
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For matrices alone. Each update has the typical size of AdamW's, 0.2 a number (Liu et al.
    2025, section 2.2), so that learning rate and weight decay can be the same."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                momentum = state["momentum_buffer"]
                momentum.lerp_(matrix.grad, 1 - MOMENTUM)
                ahead = matrix.grad.lerp(momentum, MOMENTUM)  # as Nesterov looks
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                size = group["lr"] * 0.2 * math.sqrt(max(matrix.shape))
                matrix.add_(orthogonal(ahead), alpha=-size)


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly U V' of the matrix U S V', by five of Newton and Schulz's iterations: all but the
    smallest singular values (below a hundredth, say) become 0.7 to 1.2."""
    slow = matrix.device.type == "cpu" and outrun("bfloat16")
    x = matrix.to(torch.float32 if slow else torch.bfloat16)
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)  # no singular value above 1
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x

"""Rows of a stream, with a gradient that copies: advanced indexing would add it, atomically."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def pick(x: Tensor, rows: Tensor) -> Tensor:
    """x[rows] for rows that differ."""
    return _Pick.apply(x, rows)  # type: ignore[return-value]


class _Pick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.n = len(x)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient.new_zeros(ctx.n, *gradient.shape[1:]).index_copy(0, rows, gradient), None

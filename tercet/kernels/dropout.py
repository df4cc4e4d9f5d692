"""Dropout that is drawn where it is wanted, on all threads: dropout.c.

Its twin is ``F.dropout``, which draws others, one after the other on one thread, and keeps them for
the way back: 1 ms for 448 x 384 of them, as long as a product (docs/LOG.md).
"""

from __future__ import annotations

from ctypes import c_float, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tercet.kernels import library


def fits(x: Tensor, share: float) -> bool:
    """Whether the kernel computes this: on a CPU, in float32 or bfloat16, where it compiles."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and 0 < share < 1
        and not torch.compiler.is_compiling()
        and library("dropout") is not None
    )


def dropped(x: Tensor, share: float) -> Tensor:
    """x without a ``share`` of its numbers, drawn by torch's generator, the others / (1 - share)
    (Srivastava et al. 2014)."""
    return _Dropped.apply(x, share, int(torch.randint(1 << 62, (), device="cpu")))  # type: ignore[return-value]


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *how: Any) -> Tensor:
        ctx.how = how
        return _call(x, *how)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _call(gradients[0], *ctx.how), None, None


def _call(x: Tensor, share: float, seed: int) -> Tensor:
    kernels, x = library("dropout"), x.contiguous()
    assert kernels is not None
    y = torch.empty_like(x)
    kernels.dropout(
        *(c_void_p(x.data_ptr()), c_void_p(y.data_ptr()), c_int64(x.numel()), c_uint64(seed)),
        *(c_uint32(int(share * 2**32)), c_float(1 / (1 - share)), x.dtype == torch.bfloat16),
        torch.get_num_threads(),
    )
    return y

"""Cross-entropy of rows of logits in one pass over memory: what softmax.c computes.

Its twin is ``rows_by_torch``.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from tercet.kernels import library


def rows_by_torch(logits: Tensor, targets: Tensor, smoothing: float, *, gradient: bool) -> Tensor:
    """The summed loss of logits (n, V); with ``gradient`` the logits become their own gradient.

    Softmax in float32, or in float64 where the logits are. Holds one more (n, V).
    """
    logs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    picked = logs.gather(1, targets[:, None])
    loss = -(1 - smoothing) * picked.sum() - smoothing * logs.mean(-1).sum()
    if gradient:
        logs.exp_().sub_(smoothing / logits.shape[1])
        logs.scatter_add_(1, targets[:, None], picked.new_full(picked.shape, smoothing - 1))
        logits.copy_(logs)
    return loss


def rows(logits: Tensor, targets: Tensor, smoothing: float, *, gradient: bool) -> Tensor:
    """The same by the kernel, on a CPU in float32 and bfloat16 where it compiles."""
    kernels = library("softmax") if logits.dtype in (torch.float32, torch.bfloat16) else None
    if kernels is None or logits.device.type != "cpu" or logits.stride(1) != 1:
        return rows_by_torch(logits, targets, smoothing, gradient=gradient)
    losses = torch.empty(len(logits), dtype=torch.float64)
    kernels.cross_entropy(
        *(ctypes.c_void_p(x.data_ptr()) for x in (logits, targets.contiguous(), losses)),
        *(ctypes.c_int64(n) for n in (*logits.shape, logits.stride(0))),
        ctypes.c_float(smoothing),
        gradient,
        logits.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )
    return losses.sum()

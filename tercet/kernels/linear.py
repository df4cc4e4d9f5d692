"""Matrix products in float32 by oneDNN, which torch has beside the BLAS that it calls by itself.

The BLAS in torch's wheels runs AVX2 code on processors of other makers than its own: on an AMD
Zen 5 core 108 GFLOP/s where oneDNN's AVX-512 gives 250. Its twin is ``F.linear``.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 32  # rows below which the BLAS is as fast, and cheaper to call


def fits(x: Tensor) -> bool:
    """Whether oneDNN computes products with x: float32 on a CPU, with rows enough."""
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.dim() == 2
        and x.shape[0] >= FEW
        and ONEDNN
    )


def times(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N, D), weight (M, D) -> x weight' + bias (N, M). No gradients: see model/layers.py."""
    if fits(x) and weight.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def _found() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and os.environ.get("TERCET_KERNELS") != "0"
    )


ONEDNN = _found()

"""Matrix products in float32 by oneDNN, which torch has beside the BLAS that it calls by itself.

The BLAS in torch's wheels runs AVX2 code on processors of other makers than its own: on an AMD
Zen 5 core 108 GFLOP/s where oneDNN's AVX-512 gives 250. Its twin is ``F.linear``, which is taken
where there is AVX2 alone: on a Zen 3 core both give 60 forwards, and for the gradients of weights
the BLAS 77 where oneDNN gives 32 to 46.
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
        return _product(rounded_up(x), weight, bias)[: len(x)]
    if _ragged(x):
        return F.linear(rounded_up(x), weight, bias)[: len(x)]
    return F.linear(x, weight, bias)


def summed(g: Tensor, x: Tensor) -> Tensor:
    """g (N, M), x (N, D) -> g' x (M, D), what a weight's gradient is. No gradients of its own."""
    if fits(x) and g.dtype == torch.float32 and g.shape[1] >= FEW:
        return _product(rounded_up(g).t(), rounded_up(x).t(), None)
    if _ragged(x):
        return rounded_up(g).t() @ rounded_up(x)
    return g.t() @ x


def _ragged(x: Tensor) -> bool:
    """Whether torch hands x to oneDNN by itself: bfloat16 on a CPU."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and x.dim() == 2 and len(x) >= FEW


def rounded_up(x: Tensor) -> Tensor:
    """x (N, D) with rows of zeros behind it, at most a sixteenth more from 256 rows on.

    oneDNN makes code and buffers for every N that it meets, and keeps them: a thousand different
    ragged batches took a gigabyte, nine in bfloat16. Of rounded N there are sixteen in an octave.
    """
    more = _lacking(len(x))
    return F.pad(x, (0, 0, 0, more)) if more else x


def filler(n: int, weight: Tensor) -> int:
    """Rows that n rows lack to be of a round number, where products with weights like this want
    one: with so many more they need not copy them, each for itself."""
    kinds = (torch.float32, torch.bfloat16) if ONEDNN else (torch.bfloat16,)
    known = weight.device.type == "cpu" and weight.dtype in kinds and n >= FEW
    return _lacking(n) if known and not torch.compiler.is_compiling() else 0


def _lacking(n: int) -> int:
    return -n % max(16, 1 << max(0, n.bit_length() - 5))


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    try:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    except RuntimeError as error:
        # where it once had no memory for its code, it makes none any more in that thread
        if "could not create a primitive" not in str(error):
            raise
        return F.linear(x, weight, bias)


def _found() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() != "AVX2"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and os.environ.get("TERCET_KERNELS") != "0"
    )


ONEDNN = _found()

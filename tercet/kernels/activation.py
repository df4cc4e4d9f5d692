"""Activations with their gates, and the whole of their backward in one pass: activation.c.

Its twins are ``forward_by_torch`` and autograd.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from tercet.kernels import library

KINDS = ("relu", "gelu", "gelu_tanh", "silu", "tanh")


def fits(h: Tensor) -> bool:
    """Whether the kernel computes this: on a CPU, in float32 or bfloat16, where it compiles."""
    return (
        h.device.type == "cpu"
        and h.dtype in (torch.float32, torch.bfloat16)
        and library("activation") is not None
    )


def forward(kind: str, h: Tensor, gate: Tensor | None) -> Tensor:
    """act(h), times the gate if there is one; all of one shape and type, dense."""
    y = torch.empty_like(h)
    _call("activation_forward", kind, h, gate, y)
    return y


def backward(
    kind: str, h: Tensor, gate: Tensor | None, d_y: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """y again, and the gradients of h and gate."""
    y, d_h = torch.empty_like(h), torch.empty_like(h)
    d_gate = None if gate is None else torch.empty_like(gate)
    _call("activation_backward", kind, h, gate, d_y, y, d_h, d_gate)
    return y, d_h, d_gate


def _call(name: str, kind: str, *tensors: Tensor | None) -> None:
    kernels = library("activation")
    assert kernels is not None and tensors[0] is not None
    pointers = (ctypes.c_void_p(None if x is None else x.data_ptr()) for x in tensors)
    h = tensors[0]
    getattr(kernels, name)(
        KINDS.index(kind),
        *pointers,
        ctypes.c_int64(h.numel()),
        h.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )

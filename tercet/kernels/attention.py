"""Attention over ragged sequences on a CPU, forwards and backwards: what attention.c computes.

Its twin is the tiled call of torch's kernel in model/attention.py; with dropout it draws others.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tercet.kernels import library

POINTERS = ("q", "k", "v", "q_starts", "k_starts")
NUMBERS = ("q_step", "k_step", "v_step", "n_sequences", "heads", "key_heads", "width", "causal")


class Task(ctypes.Structure):
    """``struct task`` of attention.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, ctypes.c_int64) for name in (*NUMBERS, "window")),
        ("seed", ctypes.c_uint64),
        ("scale", ctypes.c_float),
        ("half", ctypes.c_int32),
        ("drop", ctypes.c_uint32),
        ("kept", ctypes.c_float),
    ]


def fits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the kernel computes this: on a CPU, in float32 or bfloat16, where it compiles."""
    return (
        q.device.type == "cpu"
        and q.dtype in (torch.float32, torch.bfloat16)
        and q.dtype == k.dtype == v.dtype
        and library("attention") is not None
    )


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_starts: Tensor,
    k_starts: Tensor,
    *,
    scale: float,
    causal: bool,
    window: int | None,
    dropout: float = 0.0,
) -> Tensor:
    """q (N, H, K), k and v (N_S, G, K), starts (B + 1,) int64: out (N, H, K). dropout: the share of
    the softmax that is dropped, drawn from torch's generator; below 1."""
    drawn = (dropout, int(torch.randint(1 << 62, (), device="cpu"))) if dropout else (0.0, 0)
    return Ragged.apply(q, k, v, q_starts, k_starts, scale, causal, window, *drawn)  # type: ignore


class Ragged(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, q_starts: Tensor, k_starts: Tensor, *how: Any
    ) -> Tensor:
        q, k, v = _dense(q), _dense(k), _dense(v)
        out = torch.empty(q.shape, dtype=q.dtype)  # (N, H, K)
        # (H, N), for the way back alone
        logs = torch.empty(q.shape[1], q.shape[0]) if any(ctx.needs_input_grad) else None
        _call("attention_forward", _task(q, k, v, q_starts, k_starts, *how), out, logs)
        ctx.save_for_backward(q, k, v, q_starts, k_starts, out, logs)
        ctx.how = how
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, q_starts, k_starts, out, logs = ctx.saved_tensors
        d_out = gradients[0].contiguous()
        d_q, d_k, d_v = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
        task = _task(q, k, v, q_starts, k_starts, *ctx.how)
        _call("attention_backward", task, out, logs, d_out, d_q, d_k, d_v)
        return d_q, d_k, d_v, *(None for _ in range(7))


def _dense(x: Tensor) -> Tensor:
    """Heads side by side; whole tokens may lie apart."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


def _task(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_starts: Tensor,
    k_starts: Tensor,
    scale: float,
    causal: bool,
    window: int | None,
    dropout: float,
    seed: int,
) -> Task:
    pointers = (x.data_ptr() for x in (q, k, v, q_starts, k_starts))
    steps = (x.stride(0) for x in (q, k, v))
    sizes = (len(q_starts) - 1, q.shape[1], k.shape[1], q.shape[2], causal, window or 0)
    drop = int(dropout * 2**32), 1 / (1 - dropout)
    return Task(*pointers, *steps, *sizes, seed, scale, q.dtype == torch.bfloat16, *drop)


def _call(name: str, task: Task, *tensors: Tensor | None) -> None:
    kernels = library("attention")
    assert kernels is not None
    pointers = (ctypes.c_void_p(None if x is None else x.data_ptr()) for x in tensors)
    if not getattr(kernels, name)(ctypes.byref(task), *pointers, torch.get_num_threads()):
        raise MemoryError("attention had no memory for its scratch")

"""The output layer and its cross-entropy in one: exact, and never N x V logits.

Objectives return sums, so the gradient of each row's logits is known as soon as they are. Rows go
through the output a chunk at a time, forwards and backwards at once: what stays are the gradients
of states and table, which backward only scales. (Wijmans et al. 2024 recompute the logits instead;
that is a third more products.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tercet.kernels.linear import rounded_up, times
from tercet.kernels.softmax import rows

CHUNK_BYTES = 64 << 20  # of logits
TABLE_ROWS = 8192  # of the table's gradient at a time: its bfloat16 product stays in the cache


def cross_entropy(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    chunk: int | None = None,
) -> Tensor:
    """The summed loss, in nats, of states (n, D) under a table (V, D) and bias (V,): a scalar.

    Targets (n,); ``chunk``: rows at a time. Under autocast the products are bfloat16; softmax and
    sums are float32, and so is the table's gradient. It can be gone back through once.
    """
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < len(weight):
        raise IndexError(f"a target is outside of the vocabulary of {len(weight)}")
    inputs = [x for x in (states, weight, bias) if x is not None]
    gradient = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    with_table = gradient and weight.requires_grad
    return _Chunked.apply(  # type: ignore[return-value]
        states, weight, bias, targets, smoothing, chunk, gradient, with_table
    )


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        chunk: int | None,
        gradient: bool,
        with_table: bool,
    ) -> Tensor:
        kind = states.dtype
        if torch.is_autocast_enabled(states.device.type):
            kind = torch.get_autocast_dtype(states.device.type)
        exact = torch.promote_types(kind, torch.float32)
        x, table = states.to(kind), weight.to(kind)
        offset = None if bias is None else bias.to(kind)
        d_states = torch.empty_like(states) if gradient else None
        d_table = torch.empty(weight.shape, dtype=exact, device=x.device) if with_table else None
        d_bias = torch.zeros_like(bias, dtype=exact) if gradient and bias is not None else None
        if d_table is not None and not len(x):
            d_table.zero_()
        loss = torch.zeros((), dtype=torch.float64, device=x.device)
        with torch.autocast(states.device.type, enabled=False):
            for i, part in enumerate(_parts(len(x), chunk or _rows(table))):
                n, read = len(x[part]), rounded_up(x[part])
                logits = times(read, table, offset)  # (n and a few, V)
                loss += rows(logits[:n], targets[part], smoothing, gradient=gradient)
                logits[n:] = 0
                if d_states is not None:
                    d_states[part] = times(logits, table.t())[:n]
                if d_table is not None:
                    _add_products(d_table, logits, read, first=i == 0)
                if d_bias is not None:
                    d_bias += logits.sum(0, dtype=exact)
                del logits
        ctx.made = d_states, d_table, d_bias
        # a tied table adds the rows that were read to our gradient (model/pick.py)
        ctx.waiting = getattr(weight, "waiting", None) if with_table else None
        return loss.to(exact)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        made, ctx.made = ctx.made, None
        assert made is not None, "the gradients of this loss were taken already"
        if ctx.waiting is not None:
            ctx.waiting.announce()
        scaled = (None if x is None else x.mul_(gradients[0]) for x in made)
        return *scaled, None, None, None, None, None


def _rows(table: Tensor) -> int:
    return max(64, CHUNK_BYTES // (len(table) * table.element_size()))


def _parts(n: int, most: int) -> list[slice]:
    """As few parts as ``most`` rows a part allow, of equal size."""
    count = -(-n // most)
    size = -(-n // count) if count else 1
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def _add_products(total: Tensor, logits: Tensor, x: Tensor, *, first: bool) -> None:
    """total (V, D) += logits' x, some rows of the table at a time, added up in ``total``'s type."""
    for part in _parts(len(total), TABLE_ROWS):
        product = times(logits[:, part].t(), x.t())
        if first:
            total[part].copy_(product)
        else:
            total[part].add_(product)

"""Rows of a stream and rows of a table, with gradients that touch no other row.

Advanced indexing's backward adds atomically, an embedding's fills a whole table with zeros.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient.new_zeros(ctx.n, *gradient.shape[1:]).index_copy(0, rows, gradient), None


class Table(nn.Embedding):
    """Vectors by number. ``shared``: an output layer uses the table too. When that layer's gradient
    of the whole table comes (it says so to ``table.waiting``), the gradients of the rows that were
    read are added to it in place, and no second table is filled."""

    shared = False

    def forward(self, rows: Tensor) -> Tensor:  # (N,) -> (N, D)
        learns = self.weight.requires_grad and torch.is_grad_enabled()
        if not self.shared or not learns or torch.compiler.is_compiling():
            return super().forward(rows)
        return _Lookup.apply(self.weight, rows, _waiting(self.weight))  # type: ignore


class Waiting:
    """Gradients of rows, until the whole table's gradient of the same backward comes."""

    def __init__(self) -> None:
        self.backward = -1  # the one in which a whole gradient is coming
        self.rows: list[tuple[Tensor, Tensor]] = []

    def announce(self) -> None:
        """Said in a backward that is about to return the gradient of all of the table's rows."""
        self.backward = _this_backward()

    def __call__(self, gradient: Tensor) -> None:
        rows, self.rows = self.rows, []
        if self.backward == _this_backward():
            for numbers, part in rows:
                gradient.index_add_(0, numbers, part.to(gradient.dtype))


def _waiting(table: Tensor) -> Waiting:
    """The table's own; a copied parameter has none yet."""
    if not hasattr(table, "waiting"):
        table.waiting = Waiting()  # type: ignore[attr-defined]
        table.register_hook(table.waiting)  # type: ignore[attr-defined]
    return table.waiting  # type: ignore[attr-defined]


def _this_backward() -> int:
    return torch._C._current_graph_task_id()


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, waiting: Waiting) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape, ctx.waiting = table.shape, waiting
        return table.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (rows,) = ctx.saved_tensors
        g = gradients[0]
        if ctx.waiting.backward == _this_backward():
            ctx.waiting.rows.append((rows, g))
            return None, None, None
        return g.new_zeros(ctx.shape).index_add_(0, rows, g), None, None

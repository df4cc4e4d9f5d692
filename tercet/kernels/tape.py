"""A few rows through a whole network in one call: what tape.c runs.

Between two products of one row, torch's dispatch takes longer than the products of a small network,
and leaves the memory idle in those of a large one. A `Tape` is a list of operations on named
buffers, built once and run for every token. Its twin is the network's own forward pass.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tercet.kernels import library

if TYPE_CHECKING:
    from tercet.kernels.packed import Packed

FEW = 64  # rows at most: every thread prepares all of them for itself
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu", "tanh")
KINDS = {torch.float32: 0, torch.bfloat16: 1}
WIDEST = 256  # numbers of a head


class Weights(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("data", "scales", "bias")),
        *((name, c_int64) for name in ("inputs", "outputs")),
        ("kind", c_int32),
    ]


class Part(ctypes.Structure):
    _fields_ = [("w", Weights), ("outputs", c_int64)]


class CNorm(ctypes.Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("eps", c_float), ("kind", c_int32)]


class Product(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("x", "residual", "y")),
        *((name, c_int64) for name in ("x_step", "y_step", "inputs")),
        ("parts", Part * 3),
        ("norm", CNorm),
        *((name, c_int32) for name in ("activation", "gated")),
    ]


class Attention(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("x", "y")),
        *((name, c_int64) for name in ("x_step", "y_step", "heads", "key_heads", "width")),
        *((name, c_void_p) for name in ("k", "v")),
        ("page", c_int64),
        *((name, c_void_p) for name in ("pages", "turn", "bias", "text", "first", "last")),
        *((name, CNorm) for name in ("q_norm", "k_norm")),
        ("span", c_int64),
        ("scale", c_float),
        *((name, c_int32) for name in ("append", "half")),
    ]


class CTable(ctypes.Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("data", "index")),
        ("count", c_int64),
        ("half", c_int64),
    ]


class Lookup(ctypes.Structure):
    _fields_ = [
        ("y", c_void_p),
        *((name, c_int64) for name in ("y_step", "width")),
        ("tables", CTable * 3),
        ("scale", c_float),
    ]


class Op(ctypes.Structure):
    _fields_ = [
        ("what", c_int64),
        *(("product", Product), ("attention", Attention), ("lookup", Lookup)),
    ]


class Whole(ctypes.Structure):
    _fields_ = [
        ("ops", c_void_p),
        *((name, c_int64) for name in ("n_ops", "rows")),
        ("position", c_void_p),
    ]


@dataclass(frozen=True)
class Norm:
    """``kind``: layer or rms."""

    kind: str
    weight: Tensor | None
    bias: Tensor | None
    eps: float


@dataclass(frozen=True)
class Heads:
    """How an attention looks: ``keys`` and ``scope`` name what each run is told about it."""

    heads: int
    key_heads: int
    width: int
    scale: float
    keys: int
    scope: str
    append: bool = True
    q_norm: Norm | None = None
    k_norm: Norm | None = None


@dataclass(frozen=True)
class Scope:
    """What rows see: of the text whose pages stand from place ``text`` of ``pages`` on, the keys
    from ``first`` to before ``last``. (rows,) int64 each; ``pages`` (n,) int64.

    turn (positions, K): cosines, then sines. bias (H, 2 span - 1): of key - query + span - 1.
    """

    pages: Tensor
    text: Tensor
    first: Tensor
    last: Tensor
    turn: Tensor | None = None
    bias: Tensor | None = None

    @cached_property
    def places(self) -> tuple[int | None, ...]:
        """Where they lie in memory, all but the bias."""
        found = (self.pages, self.text, self.first, self.last, self.turn)
        return tuple(None if x is None else x.data_ptr() for x in found)


@dataclass(frozen=True)
class Rows:
    """What a run is told of its rows: the position of each, what it sees and looks up.

    scopes: by the names that attention layers have given. keys: number -> keys and values, (pages,
    G, page, K); a rectangle (B, G, capacity, K) is a page for each text. index: by the names that
    tables have, (rows,) int64; a table that is not told gives its first row.
    """

    position: Tensor  # (rows,) int64
    scopes: dict[str, Scope]
    keys: dict[int, tuple[Tensor, Tensor]]
    index: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Tape:
    """Operations on buffers of so many numbers a row (``widths``)."""

    widths: dict[str, int]
    _ops: list[tuple[Op, str, str, str | None]] = field(default_factory=list)
    _looks: list[tuple[int, Heads]] = field(default_factory=list)  # attention among them
    _tables: list[tuple[int, int, str]] = field(default_factory=list)  # and those of a lookup
    _kept: list[Tensor] = field(default_factory=list)
    _made: tuple[Any, dict[str, Tensor]] | None = None
    _held: int = 0  # rows

    # to be built ------------------------------------------------------------------------------

    def product(
        self,
        x: str,
        y: str,
        *layers: tuple[Tensor | Packed, Tensor | None],
        norm: Norm | None = None,
        activation: str | None = None,
        gated: bool = False,
        add: str | None = None,
    ) -> None:
        """y = act(norm(x) W' + b) [+ add], of up to three (W, b) side by side; gated: of two,
        act(first) second."""
        op = Op(what=0)
        made = op.product
        made.inputs, made.gated = self.widths[x], gated
        made.activation = number(activation)
        made.norm = self._norm(norm)
        for part, (weight, bias) in zip(made.parts, layers):
            where = self._floats(bias)
            if isinstance(weight, Tensor):
                weight = weight.detach()
                kept = [weight]
                part.outputs, inputs = weight.shape
                sizes = (inputs, part.outputs, KINDS[weight.dtype])
                part.w = Weights(weight.data_ptr(), None, where, *sizes)
            else:
                kept = [weight.data, weight.scales]
                part.w, part.outputs = weight.weights(where), weight.outputs
            self._kept += kept
        self._ops.append((op, x, y, add))

    def lookup(self, y: str, tables: Sequence[tuple[Tensor, str]], *, scale: float = 1.0) -> None:
        """y = scale first[index] + second[index] + ..., of up to three tables (count, width), each
        with the name that a run tells its index by."""
        op = Op(what=3)
        op.lookup.width, op.lookup.scale = self.widths[y], scale
        for i, (table, name) in enumerate(tables):
            table = table.detach()
            assert table.is_contiguous()
            self._kept.append(table)
            op.lookup.tables[i] = CTable(table.data_ptr(), None, len(table), KINDS[table.dtype])
            self._tables.append((len(self._ops), i, name))
        self._ops.append((op, y, y, None))

    def attend(self, x: str, y: str, heads: Heads) -> None:
        """y = attention of the queries (and of keys and values, to be appended) in x."""
        op = Op(what=1)
        made = op.attention
        made.heads, made.key_heads, made.width = heads.heads, heads.key_heads, heads.width
        made.scale, made.append = heads.scale, heads.append
        made.q_norm, made.k_norm = self._norm(heads.q_norm), self._norm(heads.k_norm)
        self._looks.append((len(self._ops), heads))
        self._ops.append((op, x, y, None))

    def norm(self, x: str, y: str, norm: Norm) -> None:
        op = Op(what=2)
        op.product.inputs, op.product.norm = self.widths[x], self._norm(norm)
        self._ops.append((op, x, y, None))

    def _norm(self, norm: Norm | None) -> CNorm:
        if norm is None:
            return CNorm()
        kind = 1 if norm.kind == "layer" else 2
        return CNorm(self._floats(norm.weight), self._floats(norm.bias), norm.eps, kind)

    def _floats(self, x: Tensor | None) -> int | None:
        if x is None:
            return None
        x = x.detach().float().contiguous()
        self._kept.append(x)
        return x.data_ptr()

    # to be run --------------------------------------------------------------------------------

    def buffer(self, name: str, rows: int) -> Tensor:
        """The (rows, width) float32 that a run of so many rows reads or writes."""
        return self._bound(rows)[1][name][:rows]

    def run(self, rows: int, told: Rows | None = None, *, n_ops: int | None = None) -> None:
        """All operations on the buffers, or the first so many; attention must be told where the
        rows stand."""
        ops, _ = self._bound(rows)
        for i, j, name in self._tables:
            index = told.index.get(name) if told else None
            ops[i].lookup.tables[j].index = None if index is None else index.data_ptr()
        for i, heads in self._looks:
            assert told is not None
            k, v = told.keys[heads.keys]
            scope, made = told.scopes[heads.scope], ops[i].attention
            made.k, made.v, made.page = k.data_ptr(), v.data_ptr(), k.shape[2]
            made.pages, made.text, made.first, made.last, made.turn = scope.places
            if scope.bias is not None:
                made.bias, made.span = scope.bias.data_ptr(), (scope.bias.shape[1] + 1) // 2
            assert k.is_contiguous() and v.is_contiguous()
            made.half = k.dtype == torch.bfloat16
        position = told.position.data_ptr() if told else None
        _run(ops, len(ops) if n_ops is None else n_ops, rows, position)

    @property
    def current(self) -> bool:
        """Whether what was packed is still what the matrices hold, as far as a glance tells."""
        kernels = library("tape")
        assert kernels is not None
        if self._made is None:
            return True
        return bool(kernels.tape_current(ctypes.byref(self._made[0]), c_int64(self.n_ops)))

    @property
    def n_ops(self) -> int:
        return len(self._ops)

    def _bound(self, rows: int) -> tuple[Any, dict[str, Tensor]]:
        """The operations on their buffers, which hold at least so many rows."""
        if self._made is None or rows > self._held:
            self._held = max(rows, 2 * self._held)
            with torch.inference_mode(False):  # they are kept, and written to in any mode later
                buffers = {
                    name: torch.empty(self._held, width, dtype=torch.float32, device="cpu")
                    for name, width in self.widths.items()
                }
            ops = (Op * len(self._ops))()
            for i, (op, x, y, add) in enumerate(self._ops):
                ctypes.memmove(ctypes.byref(ops[i]), ctypes.byref(op), ctypes.sizeof(Op))
                made = (ops[i].product, ops[i].attention, ops[i].product, ops[i].lookup)[op.what]
                made.y, made.y_step = buffers[y].data_ptr(), self.widths[y]
                if op.what != 3:
                    made.x, made.x_step = buffers[x].data_ptr(), self.widths[x]
                if add is not None:
                    made.residual = buffers[add].data_ptr()
            self._made = ops, buffers
        return self._made


def attend(q: Tensor, keys: Tensor, values: Tensor, scope: Scope, scale: float) -> Tensor:
    """Attention of any number of rows q (N, H, K) float32 over keys and values (pages, G, page, K),
    of which each sees those that ``scope`` says: (N, H, K)."""
    q, out = q.contiguous(), torch.empty(q.shape, dtype=torch.float32)
    op = Op(what=1)
    made, step = op.attention, q.shape[1] * q.shape[2]
    made.x, made.y, made.x_step, made.y_step = q.data_ptr(), out.data_ptr(), step, step
    made.heads, made.key_heads, made.width = q.shape[1], keys.shape[1], q.shape[2]
    made.scale, made.k, made.v, made.page = scale, keys.data_ptr(), values.data_ptr(), keys.shape[2]
    made.pages, made.text = scope.pages.data_ptr(), scope.text.data_ptr()
    made.first, made.last = scope.first.data_ptr(), scope.last.data_ptr()
    made.half = keys.dtype == torch.bfloat16
    assert keys.is_contiguous() and values.is_contiguous()
    _run(op, 1, len(q), scope.last.data_ptr())
    return out


def attends(like: Tensor, width: int) -> bool:
    """Whether ``attend`` reads keys and values of the type and device of ``like``."""
    known = like.device.type == "cpu" and like.dtype in KINDS and width <= WIDEST
    return known and library("tape") is not None


def _run(ops: Any, n_ops: int, rows: int, position: int | None) -> None:
    kernels = library("tape")
    assert kernels is not None
    whole = Whole(ctypes.addressof(ops), n_ops, rows, position)
    done = kernels.tape_run(ctypes.byref(whole), torch.get_num_threads())
    if done < 0:
        raise IndexError("a token, position or type is outside its table")
    if not done:
        raise MemoryError("a few rows had no memory for their scratch")


def number(activation: str | None) -> int:
    """An activation, or none, as C has it."""
    return -1 if activation is None else ACTIVATIONS.index(activation)


def fits(weights: Sequence[Tensor], width: int) -> bool:
    """Whether a tape runs these: on a CPU, float32 or bfloat16, heads not too wide, compiled."""
    return (
        all(w.device.type == "cpu" and w.dtype in KINDS and w.is_contiguous() for w in weights)
        and width <= WIDEST
        and library("tape") is not None
    )

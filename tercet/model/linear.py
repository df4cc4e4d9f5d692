"""Linear layers with products, casts and saved tensors chosen by hand.

On a CPU: float32 by oneDNN (see kernels/linear.py); under autocast one cast of an input that
several layers share, and gradients of one input added in float32. A feed-forward keeps what goes
into its activation and makes what comes out again. Elsewhere all of this is ``F.linear``.

Layers of 8 and 4 bits share the bytes of one input too, and are activated as they are multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tercet.kernels import activation
from tercet.kernels.linear import fits, summed, times
from tercet.kernels.packed import Packed, product

Gradients = tuple[Tensor | None, ...]


class Linear(nn.Linear):
    """x W' + b."""

    def forward(self, x: Tensor) -> Tensor:  # (N, D) -> (N, M)
        return linear(x, self.weight, self.bias)


class PackedLinear(nn.Module):
    """x W' + b with W in 8 or 4 bits, which does not learn; the bias stays float32."""

    def __init__(self, packed: Packed, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = packed
        self.bias = None if bias is None else nn.Parameter(bias.detach().float().contiguous())

    def forward(self, x: Tensor) -> Tensor:  # (N, D) -> (N, M)
        return _Frozen.apply(x, self) if _goes_back(x) else product(x, self.parts)  # type: ignore

    @property
    def parts(self) -> tuple[Packed, Tensor | None]:
        return self.packed, self.bias

    def extra_repr(self) -> str:
        return f"{self.packed.inputs}, {self.packed.outputs}, bits={self.packed.bits}"


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, D), weight (M, D), bias (M,) -> (N, M)."""
    if _by_hand(x, weight):
        return _Products.apply(_kind(x), x, weight, bias)  # type: ignore[return-value]
    return F.linear(x, weight, bias)


def together(x: Tensor, *layers: nn.Module) -> list[Tensor]:
    """What each layer makes of the same x (N, D)."""
    if not _goes_back(x) and (few := _packed(layers)) is not None:
        return list(product(x, *few).split([packed.outputs for packed, _ in few], 1))
    plain = [layer for layer in layers if _plain(layer)]
    if len(plain) < len(layers) or not all(_by_hand(x, layer.weight) for layer in plain):
        return [layer(x) for layer in layers]
    parameters = [p for layer in plain for p in (layer.weight, layer.bias)]
    out = _Products.apply(_kind(x), x, *parameters)
    return list(out) if isinstance(out, tuple) else [out]  # type: ignore[list-item]


def inner(x: Tensor, kind: str, *layers: nn.Module) -> Tensor | None:
    """act(up(x)), or of two layers act(gate(x)) up(x), (N, D) -> (N, F); None where the activation
    must be computed by itself."""
    few = None if _goes_back(x) else _packed(layers)
    return None if few is None else product(x, *few, activation=kind, gated=len(few) == 2)


def activated(h: Tensor, gate: Tensor | None, kind: str, down: nn.Module) -> Tensor | None:
    """down(act(h) gate), of h and gate (N, F); None where no kernel computes it."""
    if not _plain(down) or not _by_hand(h, down.weight) or not activation.fits(h):
        return None
    if not h.is_contiguous() or (gate is not None and not gate.is_contiguous()):
        return None
    return _Down.apply(kind, h, gate, down.weight, down.bias)  # type: ignore[return-value]


def _packed(layers: Sequence[nn.Module]) -> list[tuple[Packed, Tensor | None]] | None:
    few = [layer.parts for layer in layers if type(layer) is PackedLinear and not heard(layer)]
    return few if len(few) == len(layers) else None


def _goes_back(x: Tensor) -> bool:
    """Whether what learns lies below."""
    return torch.is_grad_enabled() and x.requires_grad


def heard(module: nn.Module) -> bool:
    """Whether somebody listens to a module, or changes it as it runs."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _plain(layer: nn.Module) -> TypeGuard[Linear]:
    """Nothing but x W' + b: no adapter, and nobody listens to it."""
    return type(layer) is Linear and not heard(layer)


def _by_hand(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or x.dim() != 2 or torch.compiler.is_compiling():
        return False
    if torch.is_autocast_enabled("cpu"):
        kinds = (torch.float32, torch.bfloat16)
        return _kind(x) == torch.bfloat16 and x.dtype in kinds and weight.dtype in kinds
    return fits(x) and weight.dtype == x.dtype


def _kind(x: Tensor) -> torch.dtype:
    """The type of products."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _bias_gradient(g: Tensor, bias: bool) -> Tensor | None:
    return g.sum(0, dtype=torch.promote_types(g.dtype, torch.float32)) if bias else None


class _Frozen(torch.autograd.Function):
    """A product with weights of a few bits, and the gradient of x under what the bits stand for:
    straight through the rounding of x (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.packed = layer.packed
        return product(x, layer.parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        g = gradients[0]
        return (g.float() @ ctx.packed.unpacked()).to(g.dtype), None


class _Products(torch.autograd.Function):
    """x W' + b for some (W, b); b may be None."""

    @staticmethod
    def forward(ctx: Any, kind: torch.dtype, x: Tensor, *parameters: Tensor | None) -> Any:
        weights = [w.to(kind) for w in parameters[::2] if w is not None]
        biases = [None if b is None else b.to(kind) for b in parameters[1::2]]
        given, x = x.dtype, x.to(kind)
        learned = any(ctx.needs_input_grad[2::2])  # of frozen weights no gradient wants x
        # not the weights in ``kind``: a second cast costs less than keeping them all till then
        ctx.save_for_backward(
            x if learned else None, *(w for w in parameters[::2] if w is not None)
        )
        ctx.kind, ctx.given = kind, given
        out = tuple(times(x, w, b) for w, b in zip(weights, biases))
        return out if len(parameters) > 2 else out[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        x, *weights = ctx.saved_tensors
        need_x, *needed = ctx.needs_input_grad[1:]
        d_x: Tensor | None = None
        found: list[Tensor | None] = []
        for g, weight, need, bias in zip(gradients, weights, needed[::2], needed[1::2]):
            if need_x:
                part = times(g, weight.to(ctx.kind).t())
                d_x = part.to(ctx.given) if d_x is None else d_x.add_(part)
            found += [summed(g, x) if need else None, _bias_gradient(g, bias)]
        return None, d_x, *found


class _Down(torch.autograd.Function):
    """(act(h) gate) W' + b. Keeps h and gate, not their product."""

    @staticmethod
    def forward(
        ctx: Any, kind: str, h: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        w = weight.to(h.dtype)
        ctx.save_for_backward(h, gate, weight)
        ctx.kind = kind
        y = activation.forward(kind, h, gate)
        return times(y, w, None if bias is None else bias.to(h.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        h, gate, weight = ctx.saved_tensors
        g = gradients[0]
        y, d_h, d_gate = activation.backward(ctx.kind, h, gate, times(g, weight.to(h.dtype).t()))
        need, bias = ctx.needs_input_grad[3:]
        d_weight = summed(g, y) if need else None
        return None, d_h, d_gate, d_weight, _bias_gradient(g, bias)

"""The parts that work token by token: norms and feed-forwards. They never see a sequence."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.config import TransformerConfig
from tercet.kernels.dropout import dropped, fits
from tercet.model.linear import Linear, activated, inner, together


class Dropout(nn.Dropout):
    """Of numbers one by one (Srivastava et al. 2014), while training."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and fits(input, self.p):
            return dropped(input, self.p)
        return super().forward(input)


class Scale(nn.Module):
    """x times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor:.4g}"


class Activation(nn.Module):
    """relu, gelu (exact), gelu_tanh (Hendrycks & Gimpel 2016, the approximation), silu, tanh."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.function = {
            "relu": F.relu,
            "gelu": F.gelu,
            "gelu_tanh": partial(F.gelu, approximate="tanh"),
            "silu": F.silu,
            "tanh": torch.tanh,
        }[name]

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


class RMSNorm(nn.RMSNorm):
    """Zhang & Sennrich 2019. The gain takes the type of x: a mixed pass leaves the fused kernel."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def norm(config: TransformerConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm over the last dimension."""
    if config.norm == "rms":
        return RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.norm_bias)


class FeedForward(nn.Module):
    """down(act(up(x))) (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up = Linear(config.d_model, config.d_ff, bias=config.ff_bias)
        self.activation = Activation(config.activation)
        self.dropout = Dropout(config.activation_dropout)
        self.down = Linear(config.d_ff, config.d_model, bias=config.ff_bias)

    def forward(self, x: Tensor) -> Tensor:  # (N, D)
        h = inner(x, self.activation.name, self.up)  # (N, F)
        return _down(self, self.up(x), None) if h is None else self.down(h)


class GatedFeedForward(nn.Module):
    """down(act(gate(x)) * up(x)) (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.d_ff, bias=config.ff_bias)
        self.up = Linear(config.d_model, config.d_ff, bias=config.ff_bias)
        self.activation = Activation(config.activation)
        self.dropout = Dropout(config.activation_dropout)
        self.down = Linear(config.d_ff, config.d_model, bias=config.ff_bias)

    def forward(self, x: Tensor) -> Tensor:  # (N, D)
        h = inner(x, self.activation.name, self.gate, self.up)  # (N, F)
        return _down(self, *together(x, self.gate, self.up)) if h is None else self.down(h)


def _down(layer: FeedForward | GatedFeedForward, h: Tensor, gate: Tensor | None) -> Tensor:
    """down(dropout(act(h) * gate)), in one where nothing is dropped and a kernel does it."""
    if not (layer.training and layer.dropout.p):
        y = activated(h, gate, layer.activation.name, layer.down)
        if y is not None:
            return y
    y = layer.activation(h)
    return layer.down(layer.dropout(y if gate is None else y * gate))

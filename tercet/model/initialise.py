"""Every starting distribution in one table. A network is built empty and filled here, from one
seed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tercet.config import TransformerConfig

# The last matrix of a residual branch is drawn smaller, by (2 layers) ** -0.5, so that the sum of
# all branches has the same size whatever the depth (Radford et al. 2019, section 2.3).
RESIDUAL = (".o.weight", ".down.weight")


class Undrawn(TorchFunctionMode):
    """Leaves out the starting values of torch's own layers. We draw ours, and on the meta device
    theirs draw nothing but make torch import its symbolic algebra: seconds at the first network."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", args[0] if args else None)
        return func(*args, **(kwargs or {}))


def initialise(network: nn.Module, config: TransformerConfig, seed: int) -> None:
    """Fill every parameter in place; the same seed gives the same network on every machine."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            low, high = distribution(name, parameter, config)
            drawn = torch.empty(parameter.shape)
            if low == "constant":
                drawn.fill_(high)
            elif low == "uniform":
                drawn.uniform_(-high, high, generator=generator)
            else:
                drawn.normal_(0, high, generator=generator)
            parameter.copy_(drawn)


def distribution(name: str, parameter: Tensor, config: TransformerConfig) -> tuple[str, float]:
    """The kind (constant, uniform, normal) and its value, bound or standard deviation."""
    if ".lstm." in name:
        return "uniform", config.d_model**-0.5  # torch's own, Jozefowicz et al. 2015
    if name.endswith("bias"):
        return "constant", 0.0
    if parameter.ndim == 1:
        return "constant", 1.0  # gains of norms
    if config.init_std is None:
        return "normal", _fan_in(name, parameter, config)
    if name.endswith(RESIDUAL):
        return "normal", config.init_std / math.sqrt(2 * config.n_layers)
    return "normal", config.init_std


def _fan_in(name: str, parameter: Tensor, config: TransformerConfig) -> float:
    """Raffel et al. 2020's code: unit embeddings, fan-in matrices, queries smaller where scores
    are not scaled.
    """
    if name == "tokens.weight":
        return 1.0
    if name.endswith("buckets.weight"):
        return config.d_model**-0.5
    if name.endswith(".q.weight") and config.attention_scale == 1:
        return (config.d_model * config.head_width) ** -0.5
    return parameter.shape[1] ** -0.5

"""AdamW for tables and vectors, Muon for the matrices inside the network; state by parameter name.
Muon's updates are scaled to AdamW's, so that both share one learning rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tercet.errors import InputError
from tercet.train.muon import Muon

Parameters = list[tuple[str, nn.Parameter]]


class Optimizer:
    """One or two optimizers behind one learning rate.

    ``kind``: "adamw" or "muon" (matrices inside blocks by Muon, all else by AdamW). Weight decay
    acts on matrices only. ``betas`` are AdamW's. ``share``: of the learning rate, that a parameter
    gets, by its name.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        kind: str = "adamw",
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        share: Callable[[str], float] = lambda name: 1.0,
    ) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        inner = [(name, p) for name, p in named if kind == "muon" and _inside(name, p)]
        outer = [pair for pair in named if pair not in inner]
        if kind not in ("adamw", "muon"):
            raise InputError(f"optimizer {kind!r} is unknown; use adamw or muon")
        if not named:
            raise InputError("every parameter is frozen, so nothing can learn; freeze fewer layers")
        self._parts: list[tuple[torch.optim.Optimizer, Parameters]] = []
        if outer:
            groups = _groups(outer, weight_decay, share)
            self._parts.append((torch.optim.AdamW(groups, betas=betas, fused=True), outer))
        if inner:
            groups = _groups(inner, weight_decay, share)
            self._parts.append((Muon(groups), inner))

    def step(self, learning_rate: float) -> None:
        """One update of every parameter, and no gradient left."""
        for part, _ in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate * group["share"]
            part.step()
        self.skip()

    def skip(self) -> None:
        """No update, and no gradient left."""
        for part, _ in self._parts:
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, as ``<parameter>/<quantity>``."""
        return {
            f"{name}/{quantity}": value
            for part, named in self._parts
            for name, parameter in named
            for quantity, value in part.state.get(parameter, {}).items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""
        for part, named in self._parts:
            for name, parameter in named:
                own = {
                    key: value for key, value in tensors.items() if key.rpartition("/")[0] == name
                }
                part.state[parameter] = {
                    key.rpartition("/")[2]: value.to(parameter.device, copy=True)
                    for key, value in own.items()
                }


def _groups(
    named: Parameters, weight_decay: float, share: Callable[[str], float]
) -> list[dict[str, Any]]:
    """Parameters that are treated alike, together."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        kind = share(name), weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault(kind, []).append(parameter)
    return [
        {"params": params, "weight_decay": decay, "share": part}
        for (part, decay), params in groups.items()
    ]


def _inside(name: str, parameter: nn.Parameter) -> bool:
    """A matrix of a block: not a table of tokens or positions, and not the output layer."""
    return parameter.ndim == 2 and ".blocks." in name

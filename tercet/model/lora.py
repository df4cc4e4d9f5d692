"""Low-rank adapters (Hu et al. 2021): beside a frozen matrix W a trained B A of small rank.

Knows networks and their linear layers. What adapters are called in files is for ``hf/adapters.py``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tercet.errors import InputError
from tercet.model.layers import Dropout
from tercet.model.linear import Linear, PackedLinear, linear
from tercet.model.transformer import Transformer

ALL = "all"
# The heads of a task, which are trained beside an adapter. The head over the vocabulary stays as it
# is: it is as large as the token table, and often is that table.
TASK_HEADS = ("classifier", "tagger", "span")


@dataclass(frozen=True)
class LoRA:
    """How to adapt: W x + alpha / rank B A x.

    targets: names of linear layers inside the blocks, or endings of them: ``q``, ``k``, ``v``,
    ``o`` of attention, ``gate``, ``up``, ``down`` of the feed-forward, ``cross.layer.q`` for one
    kind of attention alone; ``all``: every one of them. All of them at a small rank come closer to
    full fine-tuning than q and v at a larger one (Dettmers et al. 2023, section 4; Biderman et al.
    2024, section 4.4), so that is what stands here; Hu et al. took q and v. dropout: of what A
    reads, in training.
    rank_stabilised: alpha / sqrt(rank) instead (Kalajdzievski 2023).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL,)
    rank_stabilised: bool = False

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise InputError(f"lora: rank {self.rank!r} must be a whole number of 1 or more")
        if not self.alpha > 0:
            raise InputError(f"lora: alpha {self.alpha!r} must be above 0, such as {2 * self.rank}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora: dropout {self.dropout!r} must be from 0 to below 1")
        if isinstance(self.targets, str) or not self.targets:
            raise InputError(f"lora: targets {self.targets!r} must be a list, such as [q, v]")

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class Adapted(nn.Module):
    """W x + b + scale B A x, of a linear layer that may lie in 8 or 4 bits.

    It is no ``Linear``, so whoever reads W by himself (several layers in one product, a tape) lets
    it compute.
    """

    def __init__(
        self, base: nn.Module, rank: int, scale: float, dropout: float, dtype: torch.dtype
    ) -> None:
        super().__init__()
        outputs, inputs = sizes(base)
        self.base, self.scale = base, scale
        self.dropout = Dropout(dropout) if dropout else nn.Identity()
        device = next((p.device for p in base.parameters()), None)
        self.a = nn.Parameter(torch.empty(rank, inputs, dtype=dtype, device=device))
        self.b = nn.Parameter(torch.zeros(outputs, rank, dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:  # (N, D) -> (N, M)
        small = linear(self.dropout(x), self.a, None)  # (N, rank)
        return torch.add(self.base(x), linear(small, self.b, None), alpha=self.scale)

    def change(self) -> Tensor:
        """(M, D) float32: what is added to W."""
        return self.scale * (self.b.detach().float() @ self.a.detach().float())

    def extra_repr(self) -> str:
        return f"rank={len(self.a)}, scale={self.scale:.4g}"


def sizes(layer: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer."""
    if isinstance(layer, PackedLinear):
        return layer.packed.outputs, layer.packed.inputs
    assert isinstance(layer, Linear)
    return layer.out_features, layer.in_features


def linears(network: nn.Module) -> dict[str, nn.Module]:
    """The linear layers inside the blocks, by name. Raises InputError for a recurrent network."""
    if not isinstance(network, Transformer):
        raise InputError("adapters are for Transformers; train a recurrent network as a whole")
    return {
        name: layer
        for name, layer in network.named_modules()
        if ".blocks." in name
        and isinstance(layer, Linear | PackedLinear | Adapted)
        and not name.endswith(".base")
    }


def chosen(names: Iterable[str], targets: Iterable[str]) -> list[str]:
    """The names that are targets or end in one. Raises InputError for a target that none is."""
    names = list(names)
    found: set[str] = set()
    for target in targets:
        fit = [n for n in names if target == ALL or n == target or n.endswith(f".{target}")]
        if not fit:
            short = sorted({name.rpartition(".")[2] for name in names})
            near = difflib.get_close_matches(target, [*short, ALL, *names], n=1, cutoff=0.3)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(
                f"lora: no linear layer is called {target!r}; {hint}"
                f"the model has {', '.join(short)}, and {ALL!r} is all of them"
            )
        found.update(fit)
    return [name for name in names if name in found]


def adapt(network: nn.Module, lora: LoRA, seed: int = 0) -> None:
    """Puts an adapter on the layers that ``lora`` names and freezes all else but a task's heads.

    A is drawn as Hu et al.'s code does (uniform, bound 1 / sqrt(inputs)) from ``seed``, B is zero:
    nothing changes before training. Raises InputError for a network that is adapted already, an
    unknown target, a rank above a matrix' size.
    """
    layers = linears(network)
    if adapters(network):
        raise InputError("this model has an adapter already; merge it first, or train it on")
    generator = torch.Generator().manual_seed(seed)
    names = chosen(layers, lora.targets)
    for name in names:
        _check_rank(name, layers[name], lora.rank)
    for name in names:
        layer = attach(network, name, lora.rank, lora.scale, lora.dropout)
        if not layer.a.is_meta:
            drawn = torch.empty(layer.a.shape).uniform_(-1, 1, generator=generator)
            layer.a.data.copy_(drawn / layer.a.shape[1] ** 0.5)
    freeze(network)


def attach(network: nn.Module, name: str, rank: int, scale: float, dropout: float) -> Adapted:
    """An adapter on the layer of this name: B is zero, A is still empty."""
    base = network.get_submodule(name)
    _check_rank(name, base, rank)
    kind = torch.float32 if isinstance(base, PackedLinear) else base.weight.dtype
    assert isinstance(kind, torch.dtype)
    layer = Adapted(base, rank, scale, dropout, kind).train(base.training)
    _put(network, name, layer)
    return layer


def freeze(network: nn.Module) -> None:
    """Only adapters, and the heads of a task with the pooler below a classifier, are trained."""
    heads = [*TASK_HEADS]
    if getattr(getattr(network, "heads", None), "classifier", None) is not None:
        heads.append("pooler")
    own = {id(p) for layer in adapters(network).values() for p in (layer.a, layer.b)}
    for name, parameter in network.named_parameters():
        head = any(name.startswith(f"heads.{head}.") for head in heads)
        parameter.requires_grad_(head or id(parameter) in own)


def adapters(network: nn.Module) -> dict[str, Adapted]:
    """The adapted layers, by name."""
    return {name: m for name, m in network.named_modules() if isinstance(m, Adapted)}


@torch.no_grad()
def merge(network: nn.Module) -> None:
    """W + scale B A in the place of each adapter; the sum is float32 before it takes W's type.
    Everything is trained again. Raises InputError for weights of a few bits."""
    found = adapters(network)
    for name, layer in found.items():
        if isinstance(layer.base, PackedLinear):
            raise InputError(
                f"{name} lies in {layer.base.packed.bits} bits, which cannot take an adapter in; "
                "load the model in float32, merge, and save that"
            )
    for name, layer in found.items():
        assert isinstance(layer.base, Linear)
        weight = layer.base.weight  # a new tensor: the old one may be mapped to a file
        layer.base.weight = nn.Parameter((weight.float() + layer.change()).to(weight.dtype))
        _put(network, name, layer.base)
    if found:
        network.requires_grad_(True)


def _put(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)


def _check_rank(name: str, layer: nn.Module, rank: int) -> None:
    outputs, inputs = sizes(layer)
    if rank > min(outputs, inputs):
        raise InputError(
            f"lora: rank {rank} is above the size of {name}, {outputs} × {inputs}; "
            f"take {min(outputs, inputs)} or less (such as 8)"
        )

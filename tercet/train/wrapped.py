"""What may be done to the blocks of a network before it trains: computed again, or compiled.

Names of parameters stay as they are, since a block's call is replaced and not the block.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(network: nn.Module) -> None:
    """Each block keeps its input alone and is computed again on the way back (Chen et al. 2016):
    the gradient is the same, the memory of one block at a time, a third more time."""
    for block in _blocks(network):
        block.forward = partial(_again, block.forward)  # type: ignore[method-assign]


def _again(forward: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)


def compile_blocks(network: nn.Module) -> str | None:
    """Each block by torch.compile, with attention left as it is and the number of tokens free, so
    that ragged batches compile once. What stands in the way, if anything: then nothing is done.

    On a CPU the kernels of this package are left for torch's own code then: for GPUs.
    """
    if network_device(network).type == "cpu" and not any(map(shutil.which, ("c++", "g++"))):
        return "no C++ compiler was found, so nothing is compiled"
    for block in _blocks(network):
        for part in block.modules():
            if hasattr(part, "project"):
                part.forward = torch.compiler.disable(part.forward)  # type: ignore[method-assign]
        block.compile(dynamic=True)
    return None


def network_device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    for stack in (getattr(network, "encoder", None), getattr(network, "decoder", None)):
        yield from getattr(stack, "blocks", ())

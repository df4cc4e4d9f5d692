"""What may be done to the blocks of a network before it trains: computed again, or compiled.

Names of parameters stay as they are, since a block's call is replaced and not the block.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(network: nn.Module) -> None:
    """Each block keeps its input alone and is computed again on the way back (Chen et al. 2016):
    the gradient is the same, the memory of one block at a time, a third more time.

    With relative positions the first block stays as it is: it makes the learned bias of them all,
    whose graph must not lie inside a block that is computed twice.
    """
    for stack in _stacks(network):
        for block in list(stack.blocks)[_shares_a_bias(stack) :]:
            block.forward = partial(_again, block.forward)


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
    for block in (block for stack in _stacks(network) for block in stack.blocks):
        for part in block.modules():
            if hasattr(part, "project"):
                part.forward = torch.compiler.disable(part.forward)  # type: ignore[method-assign]
        block.compile(dynamic=True)
    return None


def network_device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _stacks(network: Any) -> list[Any]:
    found = (getattr(network, side, None) for side in ("encoder", "decoder"))
    return [stack for stack in found if hasattr(stack, "blocks")]


def _shares_a_bias(stack: Any) -> bool:
    return any(getattr(pattern, "buckets", None) is not None for pattern in stack.patterns)

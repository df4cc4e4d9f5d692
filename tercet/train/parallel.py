"""One process or many. The loop speaks to a World and never asks how large it is.

Many: started by ``torchrun``, gradients averaged by torch's DistributedDataParallel (gloo on a
CPU), behind the last micro-batch of a step only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Call = Callable[[Any], Tensor]


class World:
    """A world of one: sums are what they were, and there is nobody to wait for."""

    rank: int = 0
    size: int = 1
    grad_scale: float = 1.0  # what undoes the averaging of gradients over processes

    def sum(self, values: Tensor) -> Tensor:
        """Over all processes."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag stands in any process: a Ctrl-C may reach one before the others."""
        return bool(self.sum(torch.tensor(int(flag))))

    def first(self, value: float) -> float:
        """The first process's value, for what clocks decide."""
        return value

    def call(self, objective: Callable[[nn.Module, Any], Tensor], model: nn.Module) -> Call:
        """The objective of a batch, with the gradients of all processes behind it."""
        return lambda batch: objective(model, batch)

    def sync_gradients(self, call: Call, *, on: bool) -> AbstractContextManager[Any]:
        """Around a micro-batch: ``on`` at the last, behind which gradients are averaged."""
        return nullcontext()


class Processes(World):
    """As many as ``torchrun`` has started."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.grad_scale = float(self.size)

    def sum(self, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    def first(self, value: float) -> float:
        told = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(told, 0)
        return float(told)

    def call(self, objective: Callable[[nn.Module, Any], Tensor], model: nn.Module) -> Call:
        # a step may leave parameters out (a pooler that no objective reads)
        return DistributedDataParallel(_Call(objective, model), find_unused_parameters=True)

    def sync_gradients(self, call: Call, *, on: bool) -> AbstractContextManager[Any]:
        assert isinstance(call, DistributedDataParallel)
        return nullcontext() if on else call.no_sync()


class _Call(nn.Module):
    """An objective and its model as one module, since DDP listens to a module's own call."""

    def __init__(self, objective: Callable[[nn.Module, Any], Tensor], model: nn.Module) -> None:
        super().__init__()
        self.objective, self.model = objective, model

    def forward(self, batch: Any) -> Tensor:
        return self.objective(self.model, batch)


@contextmanager
def world() -> Iterator[World]:
    """The world that this process was started in; ``torchrun`` says so in the environment."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    dist.init_process_group("gloo")
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()

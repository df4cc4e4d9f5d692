"""One process or many. The loop speaks to a World and never asks how large it is.

Many: started by ``torchrun``; every process has the whole model and reads its part of each step,
and gradients are summed (gloo on a CPU) once a step, behind the last micro-batch. Sums, since the
loop has divided by the targets of all processes already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET = 1 << 23  # numbers that are summed at once: 32 MiB in float32


class World:
    """A world of one: sums are what they were, and there is nobody to wait for."""

    rank: int = 0
    size: int = 1

    def sum(self, values: Tensor) -> Tensor:
        """Over all processes."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag stands in any process: a Ctrl-C may reach one before the others."""
        return bool(self.sum(torch.tensor(int(flag))))

    def first(self, value: float) -> float:
        """The first process's value, for what clocks decide."""
        return value

    def sum_gradients(self, model: nn.Module) -> None:
        """Every process has the gradient of the whole step behind this."""


class Processes(World):
    """As many as ``torchrun`` has started."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def sum(self, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    def first(self, value: float) -> float:
        told = torch.tensor(value, dtype=torch.float64)
        dist.broadcast(told, 0)
        return float(told)

    def sum_gradients(self, model: nn.Module) -> None:
        for bucket in _buckets([p.grad for p in model.parameters() if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts):
                gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """In their order, a few large sums instead of many small ones."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


@contextmanager
def world() -> Iterator[World]:
    """The world that this process was started in; ``torchrun`` says so in the environment."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()
        return
    dist.init_process_group("gloo", timeout=timedelta(days=1))  # one prepares, others wait
    try:
        yield Processes()
    finally:
        dist.destroy_process_group()

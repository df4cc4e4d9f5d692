"""Muon beside torch's, and in float32 where a processor has no bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tercet.train import Optimizer
from tercet.train.muon import orthogonal

SHAPES = [(24, 24), (40, 16), (16, 40)]


def blocks(seed: int = 0) -> nn.Module:
    """Matrices that an optimizer takes for those of a block."""
    torch.manual_seed(seed)
    network = nn.Module()
    network.blocks = nn.ModuleList(nn.Linear(n, m, bias=False) for m, n in SHAPES)
    return nn.ModuleDict({"decoder": network})


def stepped(network: nn.Module, optimizer: object, steps: int = 3) -> list[torch.Tensor]:
    torch.manual_seed(1)
    for _ in range(steps):
        for parameter in network.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step(*((1e-2,) if isinstance(optimizer, Optimizer) else ()))
    return [parameter.detach().clone() for parameter in network.parameters()]


@pytest.mark.parametrize("slow", [False, True])
def test_it_steps_as_torchs_does(slow: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tercet.train.muon.outrun", lambda precision: slow)
    one, two = blocks(), blocks()
    ours = stepped(one, Optimizer(one, kind="muon", weight_decay=0.1))
    theirs = stepped(
        two, torch.optim.Muon(two.parameters(), 1e-2, 0.1, adjust_lr_fn="match_rms_adamw")
    )
    for a, b, before in zip(ours, theirs, blocks().parameters(), strict=True):
        off = ((a - b).norm() / (b - before).norm()).item()
        assert (0 < off < 0.03) if slow else off == 0  # bfloat16 has eight bits


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_become_alike(shape: tuple[int, int]):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spread = u @ torch.linspace(0.05, 1.0, min(shape)).diag() @ v
    found = torch.linalg.svdvals(orthogonal(spread).float())
    assert 0.6 < found.min() and found.max() < 1.3
    assert torch.isfinite(orthogonal(torch.zeros(shape))).all()

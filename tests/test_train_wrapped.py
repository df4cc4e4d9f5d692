"""Blocks that are computed again, or compiled: the same losses and gradients."""

from __future__ import annotations

import copy

import pytest
import torch

from tercet.config import TransformerConfig
from tercet.data import Batch
from tercet.model import Layout, build
from tercet.train import CrossEntropy
from tercet.train.wrapped import compile_blocks, recompute

CONFIG = TransformerConfig(
    vocab_size=50,
    context_length=32,
    d_model=32,
    d_ff=48,
    n_heads=2,
    encoder_layers=2,
    decoder_layers=2,
    start_id=0,
    dropout=0.2,
)


def gradient(network, lengths=(5, 9, 14)) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    layout = Layout(lengths)
    ids, targets, source = (torch.randint(50, (sum(lengths),), generator=draw) for _ in range(3))
    batch = Batch(ids, layout, targets, source=source, source_layout=layout)
    network.train()
    torch.manual_seed(3)  # dropout
    CrossEntropy()(network, batch).sum().backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


@pytest.mark.parametrize("positions", ["learned", "relative", "rotary"])
def test_a_block_that_is_computed_again_has_the_same_gradient(positions: str):
    plain = build(CONFIG.replace(positions=positions))
    again = copy.deepcopy(plain)
    recompute(again)
    assert [n for n, _ in plain.named_parameters()] == [n for n, _ in again.named_parameters()]
    assert torch.equal(gradient(plain), gradient(again))


def test_a_block_that_is_computed_again_keeps_less():
    kept = []
    for wrap in (lambda network: None, recompute):
        network = build(CONFIG.replace(encoder_layers=0, decoder_layers=6, dropout=0.0))
        wrap(network)
        sizes: list[int] = []

        def note(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        layout = Layout([32] * 4)
        ids = torch.zeros(128, dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network.train().states(ids, layout)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 4


@pytest.mark.slow
def test_compiled_blocks_have_the_same_gradient_and_compile_once_for_all_lengths():
    plain = build(CONFIG.replace(dropout=0.0))
    compiled = copy.deepcopy(plain)
    if (why := compile_blocks(compiled)) is not None:
        pytest.skip(why)
    for lengths in ((5, 9, 14), (3, 3), (20, 31, 2, 7)):
        plain.zero_grad()
        compiled.zero_grad()
        torch.testing.assert_close(
            gradient(compiled, lengths), gradient(plain, lengths), rtol=1e-4, atol=1e-5
        )
    counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert counted <= 16  # not one more for each batch

"""The Transformer of 2017 against `torch.nn.Transformer`; banded GPT-3 against GPT-2 with masks.

Neither has a row among the architectures of `transformers`.
"""

from __future__ import annotations

import math
from typing import Any

import oracles
import pytest
import torch
from oracles import ORACLES, close
from torch import Tensor, nn

from tercet.model import build
from tercet.model.attention import attention_weights
from tercet.model.layout import flatten
from tercet.presets import preset

pytestmark = pytest.mark.usefixtures("one_thread")


# the Transformer of 2017 -------------------------------------------------------------------------


def _of_2017() -> tuple[Any, nn.Transformer]:
    config = preset("transformer-base").replace(
        vocab_size=61, d_model=20, d_ff=43, n_heads=4, encoder_layers=2, decoder_layers=3
    )
    ours = build(config).eval()
    oracles.randomise(ours, seed=9)
    theirs = nn.Transformer(20, 4, 2, 3, 43, dropout=0.0, batch_first=True).eval()
    theirs.encoder.norm = theirs.decoder.norm = None  # torch adds two norms that the paper has not
    with torch.no_grad():
        for side in ("encoder", "decoder"):
            for block, layer in zip(
                getattr(ours, side).blocks, getattr(theirs, side).layers, strict=True
            ):
                _copy_2017(block, layer, across=side == "decoder")
    return ours.double(), theirs.double()


def _copy_2017(block: Any, layer: Any, *, across: bool) -> None:
    pairs = [(layer.linear1, block.feed_forward.layer.up)]
    pairs += [(layer.linear2, block.feed_forward.layer.down)]
    sublayers = [block.attention, *([block.cross] if across else []), block.feed_forward]
    for i, sublayer in enumerate(sublayers, start=1):
        pairs.append((getattr(layer, f"norm{i}"), sublayer.after))
    attentions = [(layer.self_attn, block.attention.layer)]
    if across:
        attentions.append((layer.multihead_attn, block.cross.layer))
    for to, of in attentions:
        to.in_proj_weight.copy_(torch.cat([of.q.weight, of.k.weight, of.v.weight]))
        to.in_proj_bias.copy_(torch.cat([of.q.bias, of.k.bias, of.v.bias]))
        pairs.append((to.out_proj, of.o))
    for to, of in pairs:
        to.weight.copy_(of.weight)
        to.bias.copy_(of.bias)


def _embedded_2017(table: Tensor, ids: list[int]) -> Tensor:
    """Section 3.4 and 3.5 of the paper, spelled out: (1, T, D)."""
    width = table.shape[1]
    x = table[torch.tensor(ids)] * math.sqrt(width)
    for position in range(len(ids)):
        for pair in range(width // 2):
            angle = position / 10_000 ** (2 * pair / width)
            x[position, 2 * pair] += math.sin(angle)
            x[position, 2 * pair + 1] += math.cos(angle)
    return x[None]


@torch.no_grad()
def test_transformer_of_2017_equals_torch() -> None:
    ours, theirs = _of_2017()
    generator = torch.Generator().manual_seed(1)
    lengths, source_lengths = [7, 1, 12], [9, 4, 5]
    draw = [torch.randint(61, (n,), generator=generator).tolist() for n in lengths + source_lengths]
    targets, sources = draw[:3], draw[3:]
    tokens, layout = flatten(targets)
    source, source_layout = flatten(sources)
    states = ours.states(tokens, layout, source=source, source_layout=source_layout)
    logits = ours(tokens, layout, source=source, source_layout=source_layout)
    table = ours.tokens.weight
    for i, (target, its_source) in enumerate(zip(targets, sources, strict=True)):
        mask = nn.Transformer.generate_square_subsequent_mask(len(target), dtype=torch.float64)
        expected = theirs(
            _embedded_2017(table, its_source), _embedded_2017(table, target), tgt_mask=mask
        )[0]
        close(layout.split(states)[i], expected, 1e-9)
        close(layout.split(logits)[i], expected @ table.T, 1e-9)


# banded attention: GPT-3 -------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_banded_decoder_equals_gpt2_with_a_mask_for_each_layer(dtype: torch.dtype) -> None:
    theirs, plain = oracles.pair("gpt2", dtype)
    local, window, length = (1,), 4, 29
    plain_config = plain.config.to_dict()
    shape = ("vocab_size", "context_length", "d_model", "d_ff", "n_heads", "decoder_layers")
    sizes = {name: plain_config[name] for name in shape}
    config = preset("gpt3-small").replace(**sizes, d_head=None, local_layers=local, window=window)
    net: Any = build(config).to(dtype).eval()
    net.load_state_dict(plain.state_dict())
    distance = torch.arange(length)[:, None] - torch.arange(length)
    for i, block in enumerate(theirs.transformer.h):
        seen = (distance >= 0) & (distance < window) if i in local else distance >= 0
        mask = torch.zeros(1, 1, length, length, dtype=dtype).masked_fill(~seen, float("-inf"))

        def hook(module: nn.Module, args: Any, kwargs: Any, mask: Tensor = mask) -> Any:
            return args, kwargs | {"attention_mask": mask}

        block.attn.register_forward_pre_hook(hook, with_kwargs=True)
    inputs = oracles.batch(ORACLES["gpt2"], [length])
    expected = oracles.ask_theirs(theirs, inputs)
    tokens, layout, _ = oracles.flat(inputs)
    allowed = 1e-5 if dtype is torch.float32 else 1e-9
    close(net(tokens, layout), expected.logits[0], allowed)
    assert (plain(tokens, layout) - expected.logits[0]).abs().max() > 1e-2
    weights = attention_weights(net, lambda: net.states(tokens, layout))
    for i, layer in enumerate(expected.attentions):
        close(weights[f"decoder.blocks.{i}.attention.layer"][0], layer[0], allowed)

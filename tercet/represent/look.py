"""The exact attention weights over a text, layer by layer and head by head."""

from __future__ import annotations

from typing import Any

import torch

from tercet.answers import Attention
from tercet.model import Network, flatten
from tercet.model.attention import attention_weights
from tercet.text import Tokenizer


@torch.inference_mode()
def look(
    network: Network, tokenizer: Tokenizer, ids: list[int], written: list[int] | None = None
) -> dict[str, Attention]:
    """ "encoder", "decoder", "cross", as the family has. written: what an encoder–decoder's decoder
    reads, its start token first."""
    device = network.tokens.weight.device
    tokens, layout = flatten([ids], device)
    inputs: dict[str, Any] = {}
    if written is not None:
        inputs = {"source": tokens, "source_layout": layout}
        tokens, layout = flatten([written], device)
    maps = attention_weights(network, lambda: network.states(tokens, layout, **inputs))
    read, wrote = tokenizer.pieces(ids), tokenizer.target.pieces(written or ids)
    found: dict[str, Attention] = {}
    for kind, (queries, keys) in {
        "encoder": (read, read),
        "decoder": (wrote, wrote),
        "cross": (wrote, read),
    }.items():
        side = "encoder." if kind == "encoder" else "decoder."
        part = ".cross." if kind == "cross" else ".attention."
        layers = [w[0] for name, w in maps.items() if name.startswith(side) and part in name]
        if layers:
            found[kind] = Attention(queries, keys, torch.stack(layers).float().cpu().numpy())
    return found

"""Folders of small models of every type, written, altered and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tercet import hf
from tercet.config import TransformerConfig
from tercet.hf.configs import ROWS
from tercet.hf.names import TABLES
from tercet.hf.spelling import read_config
from tercet.model import Network, build

SMALL = dict(
    vocab_size=29,
    context_length=16,
    d_model=12,
    d_ff=20,
    n_heads=3,
    d_head=4,
    n_kv_heads=3,
    encoder_layers=2,
    decoder_layers=2,
)
BESIDE: dict[str, dict[str, Any]] = {  # keys of the rows that are not one to one with ours
    "roberta": {"max_position_embeddings": 18},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 6},
    "mistral": {"sliding_window": 3},
    "eurobert": {"classifier_pooling": "mean"},
    "bart": {"decoder_attention_heads": 3, "decoder_ffn_dim": 20},
    "marian": {"decoder_attention_heads": 3, "decoder_ffn_dim": 20},
}


def small(model_type: str, **changes: Any) -> dict[str, Any]:
    """A config.json of a small model of this type."""
    keys = ROWS[model_type].keys.items()
    values = {theirs: SMALL[key.ours] for theirs, key in keys if key.ours in SMALL}
    return {"model_type": model_type, **values, **BESIDE.get(model_type, {}), **changes}


def network_of(config: TransformerConfig) -> Network:
    """Every parameter different, so that no two can be confused."""
    network = build(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=generator)
    return network.eval()


def write(folder: Path, values: Any, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    if tensors is not None:
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    return folder


def saved(folder: Path, model_type: str = "gpt2", **changes: Any) -> Network:
    form = TABLES[model_type].forms[0]
    network = network_of(read_config(small(model_type, **changes), form.heads))
    hf.save(network, folder)
    return network


def edit(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))


def same(a: Network, b: Network) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(t, theirs[k]) for k, t in ours.items())

"""Tiny models with a tokenizer of their own, and tables that they can learn, for the tests of
fine-tuning."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tercet.jobs import recipe as recipes
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.language_model import LanguageModel
from tercet.model import build
from tercet.presets import preset
from tercet.text import train_tokenizer

WORDS = "the a one two red blue old new house tree river road sees finds keeps takes".split()
TEXTS = [" ".join(random.Random(i).choices(WORDS, k=12)) for i in range(60)]
SIZES: dict[str, Any] = {"d_model": 32, "d_ff": 48, "n_heads": 2, "context_length": 40}
FAST = ("train.learning_rate=1e-2", "train.epochs=3", "train.rows=16", "train.dropout=0.0")
LAYERS = {
    "encoder": {"encoder_layers": 2},
    "decoder": {"decoder_layers": 2},
    "encoder-decoder": {"encoder_layers": 1, "decoder_layers": 1},
}


def model_folder(folder: Path, name: str = "bert-tiny", **changes: Any) -> Path:
    """A model of a preset at the smallest size, with random weights that are large enough to learn
    from in a hundred steps."""
    base = preset(name)
    kind = "wordpiece" if base.family == "encoder" else "bpe"
    tokenizer = train_tokenizer(TEXTS, kind=kind, vocab_size=340, special=base.family)
    told: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "pad_id": tokenizer.pad_id,
        "eos_ids": () if tokenizer.eos_id is None else (tokenizer.eos_id,),
    }
    if base.family == "encoder-decoder":
        told["start_id"] = tokenizer.pad_id
    if base.n_kv_heads != base.n_heads:
        told["n_kv_heads"] = 1
    layers = len(base.local_layers) == base.n_layers  # all of them, or some
    local = ((0, 1) if layers else (0,)) if base.local_layers else ()
    sizes = {**SIZES, **LAYERS[base.family], "local_layers": local}
    if base.position_offset and base.family == "encoder":
        told["position_offset"] = (tokenizer.pad_id or 0) + 1
    if base.norm_order == "post" and base.family == "decoder":
        told["d_ff"] = 4 * sizes["d_model"]  # the only width that its spelling can say
    config = base.replace(**{**sizes, "d_head": 16, "init_std": 0.15, **told, **changes})
    LanguageModel(build(config, seed=4), tokenizer).save(folder)
    return folder


def sentences(n: int, seed: int) -> list[str]:
    """Distinct for any seed; the word red stands in every second one."""
    draw = random.Random(seed)
    rest = [word for word in WORDS if word != "red"]
    found = []
    for i in range(n):
        words = draw.choices(rest, k=draw.randint(4, 9))
        if i % 2:
            words[draw.randrange(len(words))] = "red"
        found.append(" ".join(words))
    return found


def label_of(text: str) -> str:
    return "yes" if "red" in text.split() else "no"


def table(
    path: Path, n: int, seed: int, label: Callable[[str], Any] = label_of, name: str = "label"
) -> Path:
    """A .jsonl of texts and their labels."""
    rows = [{"text": text, name: label(text)} for text in sentences(n, seed)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(place: Path, *changes: str, **keys: Any) -> FinetuneRecipe:
    """Of a classifier that learns from a folder's model and tables in seconds."""
    data = {"train": [str(place / "train.jsonl")], "test": [str(place / "test.jsonl")]}
    tree: dict[str, Any] = {"model": str(place / "model"), "task": "classify", "data": data, **keys}
    for change in (*FAST, *changes):
        recipes.change_key(tree, change)
    return recipes.built(FinetuneRecipe, tree, "test")

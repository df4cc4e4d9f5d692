"""A random decoder that `transformers` opens too, with a tokenizer of its own, and rows to ask."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tercet
from tercet.model import build
from tercet.presets import preset
from tercet.text import train_tokenizer

TEXTS = [
    "Question: What keeps the cat warm in the cold winter? Answer: its fur.",
    "The dog slept while the cat sat on the mat and looked at the water.",
    "therefore because yes no always never Who should have been here before the rain came?",
]


def save_decoder(folder: Path, *, context: int = 48, seed: int = 0, texts: Any = TEXTS) -> str:
    """The preset's own row, so that the folder is native to `transformers`."""
    tokenizer = train_tokenizer(texts, vocab_size=512)
    config = replace(
        preset("tercet-tiny-decoder"),
        vocab_size=tokenizer.vocab_size,
        context_length=context,
        d_model=32,
        d_ff=48,
        n_heads=4,
        n_kv_heads=4,
        decoder_layers=2,
        init_std=0.3,  # so that no two choices are equally likely
    )
    network = build(config, seed=seed)
    tercet.LanguageModel(network, tokenizer).save(folder)
    return str(folder)


def save_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)

"""One Transformer for the three families: encoder, decoder, encoder–decoder.

Names only: each is imported when it is first asked for, so that `import tercet` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tercet.answers import (
        Answer,
        Attention,
        ChatWarning,
        CutWarning,
        Fill,
        Generation,
        Label,
        Labels,
        Score,
        Tag,
        Value,
    )
    from tercet.config import TransformerConfig
    from tercet.errors import InputError
    from tercet.generate import Grammar, Sampling
    from tercet.language_model import LanguageModel, Reply, convert, load
    from tercet.model.lora import LoRA
    from tercet.presets import PRESETS, preset
    from tercet.represent.collection import Collection, Hit
    from tercet.represent.topics import Growth, Topic, Topics, TopicSettings, cluster
    from tercet.text import Passages, Tokenizer, train_tokenizer
    from tercet.text.chat import ChatTemplate

__all__ = [
    "PRESETS",
    "Answer",
    "Attention",
    "ChatTemplate",
    "ChatWarning",
    "Collection",
    "CutWarning",
    "Fill",
    "Generation",
    "Grammar",
    "Growth",
    "Hit",
    "InputError",
    "Label",
    "Labels",
    "LanguageModel",
    "LoRA",
    "Passages",
    "Reply",
    "Sampling",
    "Score",
    "Tag",
    "Tokenizer",
    "Topic",
    "TopicSettings",
    "Topics",
    "TransformerConfig",
    "Value",
    "cluster",
    "convert",
    "load",
    "preset",
    "train_tokenizer",
]

_HOMES = {
    "answers": (
        *("Answer", "Attention", "ChatWarning", "CutWarning", "Fill", "Generation", "Label"),
        *("Labels", "Score", "Tag", "Value"),
    ),
    "config": ("TransformerConfig",),
    "errors": ("InputError",),
    "generate": ("Grammar", "Sampling"),
    "language_model": ("LanguageModel", "Reply", "convert", "load"),
    "model.lora": ("LoRA",),
    "presets": ("PRESETS", "preset"),
    "represent.collection": ("Collection", "Hit"),
    "represent.topics": ("Growth", "Topic", "TopicSettings", "Topics", "cluster"),
    "text": ("Passages", "Tokenizer", "train_tokenizer"),
    "text.chat": ("ChatTemplate",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"tercet.{home}"), name)
    raise AttributeError(f"module 'tercet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

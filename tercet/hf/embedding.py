"""Folders of sentence-embedding models: how token vectors become one vector, and what is said
before a text. Reads and writes the files of sentence-transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet.errors import InputError, undamaged
from tercet.text.special import read_json

MODULES, SETTINGS, PROMPTS = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
POOLING = {"cls": "first", "mean": "mean", "lasttoken": "last"}
OLD_POOLING = {  # one key a way, true or false
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


FILES = (MODULES, SETTINGS, PROMPTS, "1_Pooling/config.json", "2_Normalize/config.json")


@dataclass(frozen=True)
class EmbeddingSettings:
    """pool: first, mean, last, or None where the folder does not say. normalise: to length 1.
    prompts: by name, put before a text. max_length: of a text, in tokens."""

    pool: str | None = None
    normalise: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_length: int | None = None
    lower_case: bool = False

    def prompt(self, name: str | None = None) -> str:
        """The prompt of this name; None: the default one, or nothing."""
        name = name or self.default_prompt
        if name is None:
            return ""
        if name not in self.prompts:
            known = ", ".join(sorted(self.prompts)) or "none"
            raise InputError(f"the model has no prompt {name!r}; its prompts: {known}")
        return self.prompts[name]

    def dressed(self, before: str, text: str) -> str:
        """A text behind a prompt, as the tokenizer is to get it."""
        return (before + text).lower() if self.lower_case else before + text


def read_embedding(folder: Path) -> EmbeddingSettings:
    """What the folder says about embedding; the defaults where it is no embedding model's."""
    if not (folder / MODULES).is_file():
        return EmbeddingSettings()
    pool, normalise = None, False
    with undamaged(folder / MODULES):
        modules = [(module["type"], module["path"]) for module in read_json(folder / MODULES)]
    for name, place in modules:
        kind = str(name).rpartition(".")[2]
        if kind == "Pooling":
            pool = _pool(folder / str(place) / "config.json")
        elif kind == "Normalize":
            normalise = True
        elif kind != "Transformer":
            raise InputError(
                f"{folder / MODULES}: a module {kind!r} comes after the network, which is not "
                "supported; supported are Transformer, Pooling and Normalize"
            )
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    with undamaged(folder / SETTINGS):
        max_length = settings.get("max_seq_length")
        max_length = None if max_length is None else int(max_length)
        lower_case = bool(settings.get("do_lower_case"))
    prompts = read_json(folder / PROMPTS) if (folder / PROMPTS).is_file() else {}
    with undamaged(folder / PROMPTS):
        texts = {name: "" + text for name, text in (prompts.get("prompts") or {}).items()}
        default = prompts.get("default_prompt_name")
    return EmbeddingSettings(pool, normalise, texts, default, max_length, lower_case)


def _pool(path: Path) -> str:
    values = read_json(path)
    with undamaged(path):
        modes = values.get("pooling_mode")
        if modes is None:
            modes = [mode for key, mode in OLD_POOLING.items() if values.get(key)] or ["mean"]
        modes = [modes] if isinstance(modes, str) else list(modes)
        include_prompt = values.get("include_prompt")
    if len(modes) != 1 or str(modes[0]) not in POOLING:
        raise InputError(
            f"{path}: pooling {' + '.join(map(str, modes))} is not supported; "
            f"supported are {', '.join(POOLING)}, one at a time"
        )
    if include_prompt is False:
        raise InputError(f"{path}: include_prompt=false is not supported; prompts are pooled too")
    return POOLING[modes[0]]


def write_embedding(settings: EmbeddingSettings, folder: Path, d_model: int) -> None:
    """The same files, in the spelling that every version reads; none where nothing is said."""
    if settings.pool is None:
        return
    kinds = ["Transformer", "Pooling", *(["Normalize"] if settings.normalise else [])]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    mode = next(theirs for theirs, ours in POOLING.items() if ours == settings.pool)
    pooling: dict[str, Any] = {"word_embedding_dimension": d_model}
    pooling |= {key: old == mode for key, old in OLD_POOLING.items()}
    write_json(folder / MODULES, modules)
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(
        folder / SETTINGS,
        {"max_seq_length": settings.max_length, "do_lower_case": settings.lower_case},
    )
    write_json(
        folder / PROMPTS,
        {"prompts": settings.prompts, "default_prompt_name": settings.default_prompt},
    )


def write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")

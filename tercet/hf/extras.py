"""What a folder says beside the network: how to embed, how to generate, what labels are called."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet.config import TransformerConfig
from tercet.hf.configs import GENERATION
from tercet.hf.embedding import EmbeddingSettings, read_embedding, read_json, write_json

GENERATION_FILE = "generation_config.json"
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


@dataclass(frozen=True)
class Extras:
    """embedding: of a sentence-embedding folder. generation: the settings of generation_config.json
    as they stand there. labels: the names of the classes. model_type: whose spelling the folder
    had, kept when it is saved again."""

    embedding: EmbeddingSettings = EmbeddingSettings()
    generation: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    model_type: str | None = None

    @property
    def never(self) -> tuple[int, ...]:
        """Tokens that must not be generated."""
        words = self.generation.get("bad_words_ids") or []
        alone = [word[0] for word in words if len(word) == 1]
        return tuple(dict.fromkeys(alone + (self.generation.get("suppress_tokens") or [])))

    @property
    def first(self) -> int | None:
        """The token that every generated text begins with."""
        return self.generation.get("forced_bos_token_id")

    @property
    def last(self) -> int | None:
        """The token that ends a text that fills all the tokens allowed."""
        last = self.generation.get("forced_eos_token_id")
        return last[0] if isinstance(last, list) else last


def read_extras(folder: Path, values: dict[str, Any]) -> Extras:
    """`values` is the folder's config.json, where old checkpoints say how to generate."""
    generation = {key: values[key] for key in GENERATION if values.get(key) is not None}
    if (folder / GENERATION_FILE).is_file():
        generation |= read_json(folder / GENERATION_FILE)
    names = values.get("id2label") or {}
    labels = tuple(names[key] for key in sorted(names, key=int))
    return Extras(read_embedding(folder), generation, labels, values.get("model_type"))


def special_ids(values: dict[str, Any], extras: Extras) -> dict[str, Any]:
    """config.json with the special tokens of generation_config.json, which is the newer word on
    where a text ends and begins."""
    newer = {key: extras.generation.get(key) for key in SPECIAL_IDS}
    own = {
        k: v for k, v in newer.items() if v is not None and k in ("eos_token_id", SPECIAL_IDS[3])
    }
    missing = {k: v for k, v in newer.items() if v is not None and values.get(k) is None}
    return values | missing | own


def write_generation(config: TransformerConfig, extras: Extras, folder: Path) -> None:
    if "language" not in config.heads:
        return
    eos = config.eos_ids
    ids = (config.bos_id, eos[0] if len(eos) == 1 else list(eos) or None, config.pad_id)
    values = dict(zip(SPECIAL_IDS, (*ids, config.start_id), strict=True))
    if config.family != "encoder-decoder":
        del values["decoder_start_token_id"]
    kept = {key: value for key, value in extras.generation.items() if key not in SPECIAL_IDS}
    write_json(folder / GENERATION_FILE, {k: v for k, v in values.items() if v is not None} | kept)

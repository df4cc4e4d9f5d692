"""What a folder says beside the network: how to embed, how to generate, what labels are called."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet.config import TransformerConfig
from tercet.errors import InputError, undamaged
from tercet.hf.configs import GENERATION, OURS
from tercet.hf.embedding import EmbeddingSettings, read_embedding, write_json
from tercet.text.special import read_json

# of a classifier, beside what matters while training
TEMPERATURE, OVERFLOW = "temperature", "overflow"
GENERATION_FILE = "generation_config.json"
# What changes which tokens are written, cannot be asked for and is not followed; where it is
# neutral. (How many beams, which temperature and the like are for the caller to say.)
UNUSED: dict[str, tuple[Any, ...]] = {
    "begin_suppress_tokens": ([],),
    "diversity_penalty": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "forced_decoder_ids": ([],),
    "guidance_scale": (1,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "repetition_penalty": (1,),
    "sequence_bias": ({}, []),
    "typical_p": (1,),
}
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


@dataclass(frozen=True)
class Extras:
    """embedding: of a sentence-embedding folder. generation: the settings of generation_config.json
    as they stand there. labels: the names of the classes. problem: what they are to a text (Hugging
    Face's problem_type). temperature: what a classifier's logits are divided by to be calibrated.
    overflow: what it has learned to keep of a text beyond the context, where not the start.
    model_type: whose spelling the folder had, kept when it is saved again."""

    embedding: EmbeddingSettings = EmbeddingSettings()
    generation: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    problem: str | None = None
    temperature: float = 1.0
    overflow: str | None = None
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
        with undamaged(folder / GENERATION_FILE):
            generation |= read_json(folder / GENERATION_FILE).items()
    names = values.get("id2label") or {}
    labels = tuple(names[key] for key in sorted(names, key=int))
    own = values.get(OURS) or {}
    return Extras(
        read_embedding(folder),
        generation,
        labels,
        values.get("problem_type"),
        float(own.get(TEMPERATURE, 1.0)),
        own.get(OVERFLOW),
        values.get("model_type"),
    )


def check_generation(folder: Path, config: TransformerConfig, extras: Extras) -> None:
    """Raises InputError for tokens that the vocabulary lacks; warns of settings not followed."""
    place = folder / GENERATION_FILE
    place = place if place.is_file() else folder / "config.json"
    with undamaged(place):
        for token in (*extras.never, extras.first, extras.last):
            if token is not None and token not in range(config.vocab_size):
                raise InputError(
                    f"{place}: forbids or forces the token {token!r}, which is not in the "
                    f"vocabulary of {config.vocab_size:,}; correct the settings of generation"
                )
        settings = extras.generation
        unused = [
            key
            for key, neutral in UNUSED.items()
            if settings.get(key) is not None and settings[key] not in neutral
        ]
        if any(len(word) > 1 for word in settings.get("bad_words_ids") or []):
            unused.append("bad_words_ids of several tokens")
    if unused and "language" in config.heads:
        said = ", ".join(f"{key}={settings[key]!r}" if key in settings else key for key in unused)
        warnings.warn(
            f"{place}: these settings of generation are not used: {said}; texts may differ "
            "from those of other programs",
            stacklevel=4,
        )


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

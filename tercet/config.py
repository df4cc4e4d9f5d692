"""TransformerConfig: everything that decides the shape of a network, frozen and validated once.

Standard library only; knows no file format but its own json, no checkpoint and no tensor.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tercet.errors import InputError

CHOICES = {
    "mixer": ("attention", "lstm"),
    "positions": ("none", "learned", "sinusoidal", "rotary", "relative"),
    "norm": ("layer", "rms"),
    "norm_order": ("pre", "post"),
    "activation": ("relu", "gelu", "gelu_tanh", "silu", "tanh"),
    "transform": (None, "relu", "gelu", "gelu_tanh", "silu", "tanh"),
    "pooler_activation": ("relu", "gelu", "gelu_tanh", "silu", "tanh"),
    "pool": ("first", "mean", "last"),
}
HEADS = ("language", "masked", "pooler", "next_sentence", "classifier", "tagger", "span")


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Stretches rotary frequencies beyond the trained context. ``kind``: linear, yarn or llama3.

    linear: Chen et al. 2023 (positions divided by ``factor``). yarn: Peng et al. 2023. llama3: the
    smooth cut of Llama 3.1. ``attention_factor`` multiplies cosine and sine (YaRN's temperature).
    """

    kind: str
    factor: float
    original_context: int | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        _check_kinds(self)
        if self.kind == "dynamic":
            raise InputError(
                "rope scaling 'dynamic' is refused: its frequencies depend on the length seen "
                "so far, so cached keys would differ from fresh ones; use 'yarn' or 'linear'"
            )
        if self.kind not in ("linear", "yarn", "llama3"):
            raise InputError(f"rope scaling {self.kind!r} is unknown; use linear, yarn or llama3")
        if not self.factor >= 1:
            raise InputError(f"rope scaling factor {self.factor} must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """One architecture, in the papers' names. ``None``: derived, unless its line says more."""

    # sizes
    vocab_size: int  # rows of the token table
    context_length: int  # longest sequence that the model states it can read
    d_model: int
    d_ff: int
    n_heads: int
    n_kv_heads: int | None = None  # grouped-query attention; None: n_heads
    d_head: int | None = None  # None: d_model / n_heads
    encoder_layers: int = 0
    decoder_layers: int = 0
    mixer: str = "attention"  # "lstm": the recurrent networks of model/recurrent.py

    # special tokens
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    pad_id: int | None = None
    start_id: int | None = None  # what an encoder-decoder's decoder reads first

    # positions
    positions: str = "learned"
    position_offset: int = 0  # rows of the learned table that stand before position 0 (BART: 2)
    sinusoid_halves: bool = False  # sines, then cosines (Marian) instead of interleaved (2017)
    rope_theta: float = 10_000.0
    rope_theta_local: float | None = None  # for local layers; None: rope_theta
    rope_scaling: RopeScaling | None = None
    relative_buckets: int = 32
    relative_max_distance: int = 128

    # norms
    norm: str = "layer"
    norm_order: str = "pre"
    norm_eps: float = 1e-5
    norm_bias: bool = True
    embedding_norm: bool = False
    first_norm: bool = True  # False: layer 0 attends to the raw embedding (ModernBERT)
    final_norm: bool = True
    qk_norm: bool = False

    # embedding
    token_types: int = 0
    embedding_scale: bool = False  # times sqrt(d_model)

    # attention
    qkv_bias: bool = True
    attention_bias: bool = True  # of the output projection
    attention_scale: float | None = None  # None: d_head ** -0.5
    window: int | None = None  # local layers see keys with |query - key| < window
    local_layers: tuple[int, ...] = ()  # which layers use the window (and rope_theta_local)

    # feed-forward
    activation: str = "gelu"
    gated: bool = False
    ff_bias: bool = True

    # output
    heads: tuple[str, ...] = ("language",)
    tie_embeddings: bool = True
    output_bias: bool = False
    output_scale: bool = False  # states times d_model ** -0.5 before a tied output (T5 v1.0)
    transform: str | None = None  # activation of the masked head's dense layer; None: no such layer
    transform_bias: bool = True
    n_labels: int = 2  # classifier and tagger
    pool: str = "first"  # what the classifier reads, through the pooler where there is one
    pooler_activation: str = "tanh"
    pooler_bias: bool = True
    pooler_norm: bool = False

    # dropout and initialisation
    dropout: float = 0.0  # residual branches and embedding
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0  # inside the feed-forward
    head_dropout: float = 0.0
    init_std: float | None = 0.02  # None: fan-in ** -0.5 (T5's table)

    def __post_init__(self) -> None:
        for name in ("eos_ids", "local_layers", "heads"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise InputError(f"{name} {value!r} must be a list")
            object.__setattr__(self, name, tuple(value))
        if isinstance(self.rope_scaling, dict):
            try:
                object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
            except TypeError as error:
                raise InputError(f"rope_scaling {self.rope_scaling!r}: {error}") from error
        _check_kinds(self)
        self._check_sizes()
        if self.n_kv_heads is None:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        if self.d_head is None:
            if self.d_model % self.n_heads:
                raise InputError(
                    f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}; "
                    "state d_head"
                )
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        self._check()

    def _check_sizes(self) -> None:
        for name in (
            *("vocab_size", "context_length", "d_model", "d_ff"),
            *("n_heads", "n_kv_heads", "d_head"),
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} {value} must be a positive whole number")

    def _check(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} {getattr(self, name)!r} is unknown; "
                    f"use one of {', '.join(map(str, allowed))}"
                )
        if self.encoder_layers < 0 or self.decoder_layers < 0 or not self.n_layers:
            raise InputError(
                f"encoder_layers {self.encoder_layers} and decoder_layers {self.decoder_layers}: "
                "neither may be negative, and one must be positive"
            )
        if self.n_heads % self.kv_heads:
            raise InputError(
                f"n_heads {self.n_heads} is not a multiple of n_kv_heads {self.n_kv_heads}"
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise InputError(f"rotary positions need an even d_head, not {self.d_head}")
        if self.local_layers and not self.window:
            raise InputError(
                f"local_layers {self.local_layers} need a window; set window to a length in tokens"
            )
        if self.window is not None and self.window < 1:
            raise InputError(f"window {self.window} must be 1 or more")
        for name in ("dropout", "attention_dropout", "activation_dropout", "head_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} must be at least 0 and below 1")
        for name in ("bos_id", "eos_ids", "pad_id", "start_id"):
            value = getattr(self, name)
            for token in value if isinstance(value, tuple) else (value,):
                if token is not None and not 0 <= token < self.vocab_size:
                    raise InputError(
                        f"{name}: token {token} is not in the vocabulary of {self.vocab_size:,}; "
                        f"set {name} to tokens below that, or to none"
                    )
        unknown = [head for head in self.heads if head not in HEADS]
        if unknown:
            raise InputError(f"head {unknown[0]!r} is unknown; use some of {', '.join(HEADS)}")

    # derived -----------------------------------------------------------------------------------

    @property
    def family(self) -> str:
        """``encoder``, ``decoder`` or ``encoder-decoder``."""
        if not self.decoder_layers:
            return "encoder"
        return "encoder-decoder" if self.encoder_layers else "decoder"

    @property
    def n_layers(self) -> int:
        return self.encoder_layers + self.decoder_layers

    @property
    def kv_heads(self) -> int:
        assert self.n_kv_heads is not None
        return self.n_kv_heads

    @property
    def head_width(self) -> int:
        assert self.d_head is not None
        return self.d_head

    # overlays and json ---------------------------------------------------------------------------

    def replace(self, **changes: Any) -> TransformerConfig:
        """A copy with some fields changed; an unknown name raises with the nearest known one.

        A smaller vocabulary drops the special tokens that it does not hold, unless they are given.
        """
        _known(changes)
        size = changes.get("vocab_size")
        if isinstance(size, int) and size < self.vocab_size:
            for name in ("bos_id", "pad_id", "start_id"):
                if (getattr(self, name) or 0) >= size:
                    changes.setdefault(name, None)
            changes.setdefault("eos_ids", tuple(token for token in self.eos_ids if token < size))
        sizes = {"d_model", "n_heads"} & changes.keys()
        if sizes and "d_head" not in changes and self.d_head == self.d_model // self.n_heads:
            changes["d_head"] = None
        if "n_heads" in changes and "n_kv_heads" not in changes and self.n_kv_heads == self.n_heads:
            changes["n_kv_heads"] = None
        return dataclasses.replace(self, **changes)

    def extended(self, context: int) -> TransformerConfig:
        """The same network for texts of ``context`` tokens: its rotary positions stretched by YaRN
        (Peng et al. 2023), by context / the length that it was trained on.

        A model that YaRN stretches already is stretched further, from that same length. Raises
        InputError for less than the own context, and for positions that cannot be stretched so.
        """
        if type(context) is not int or context < 1:
            raise InputError(f"context {context!r} must be a positive whole number of tokens")
        own = self.context_length
        if context == own:
            return self
        if context < own:
            raise InputError(
                f"context {context:,} is shorter than the model's own {own:,}, which reads short "
                "texts as they are; leave the context out, or give a longer one"
            )
        if self.positions != "rotary":
            raise InputError(
                f"context {context:,}: only rotary positions can be extended, and this model's are "
                f"{self.positions!r}; keep to its own {own:,} tokens"
            )
        if self.local_layers:
            raise InputError(  # nothing is far away in them: they would be stretched for no gain
                f"context {context:,}: the model has layers that see a window of {self.window:,} "
                f"tokens, which must not be stretched; keep to its own {own:,} tokens"
            )
        scaling = self.rope_scaling or RopeScaling(kind="yarn", factor=1.0)
        if scaling.kind != "yarn" or scaling.attention_factor is not None:
            raise InputError(
                f"context {context:,}: the model's positions are stretched already "
                f"({scaling.kind}, by {scaling.factor:g}) in a way that does not go on; "
                f"keep to its own {own:,} tokens"
            )
        trained = scaling.original_context or own
        factor = max(scaling.factor, context / trained)  # a folder may state one and no context
        stretched = dataclasses.replace(scaling, factor=factor, original_context=trained)
        return self.replace(context_length=context, rope_scaling=stretched)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; fields at their default are left out."""
        full = dataclasses.asdict(self)
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        return {k: v for k, v in full.items() if v != defaults[k]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TransformerConfig:
        _known(values)
        return cls(**values)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TransformerConfig:
        return cls.from_dict(json.loads(text))


KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (int, "whole number"),
    "float": ((int, float), "finite number"),
    "bool": (bool, "truth value"),
    "str": (str, "string"),
    "RopeScaling": (RopeScaling, "RopeScaling"),
}


def _check_kinds(settings: Any) -> None:
    """Each field holds what its annotation says; a truth value is no number."""
    for field in dataclasses.fields(settings):
        value: Any = getattr(settings, field.name)
        kind, *none = str(field.type).split(" | ")
        if value is None and none:
            continue
        one = kind.removeprefix("tuple[").removesuffix(", ...]")
        types, said = KINDS[one]
        for item in (value,) if one == kind else tuple(value or ()):
            odd = isinstance(item, bool) and one != "bool"
            if odd or not isinstance(item, types) or item in (math.inf, -math.inf) or item != item:
                raise InputError(f"{field.name} {item!r} must be a {said}")


def _known(values: dict[str, Any]) -> None:
    names = [f.name for f in dataclasses.fields(TransformerConfig)]
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = (
                f"; did you mean {near[0]!r}?" if near else f"; the fields are {', '.join(names)}"
            )
            raise InputError(f"configuration field {name!r} is unknown{hint}")

"""Families and sizes: each preset is its family's row of settings with a few numbers laid over it.

Data, and one function that makes a configuration of it. Rows follow ARCHITECTURE §3; sizes follow
the papers and the published checkpoints. Special tokens are stated where a published vocabulary
fixes them; a network for a tokenizer of one's own is ``preset(name).replace(vocab_size=..., ...)``.
"""

from __future__ import annotations

import difflib
from typing import Any

from tercet.config import TransformerConfig
from tercet.errors import InputError

Settings = dict[str, Any]

NO_BIAS: Settings = dict(qkv_bias=False, attention_bias=False, ff_bias=False)
DROPOUT: Settings = dict(dropout=0.1, attention_dropout=0.1)
NO_DROPOUT: Settings = dict(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)


def _decoder(layers: int, width: int, heads: int, d_ff: int = 0, **more: Any) -> Settings:
    """A decoder's sizes; its feed-forward is four times as wide as the model where not stated."""
    sizes = dict(decoder_layers=layers, d_model=width, n_heads=heads, d_ff=d_ff or 4 * width)
    return sizes | more


def _encoder(layers: int, width: int, heads: int, d_ff: int = 0, **more: Any) -> Settings:
    return _both(layers, width, heads, d_ff, decoder_layers=0, **more)


def _both(layers: int, width: int, heads: int, d_ff: int = 0, **more: Any) -> Settings:
    return _decoder(layers, width, heads, d_ff, encoder_layers=layers) | more


def _special(
    bos: int | None = None, eos: int | None = None, pad: int | None = None, start: int | None = None
) -> Settings:
    return dict(bos_id=bos, eos_ids=() if eos is None else (eos,), pad_id=pad, start_id=start)


# encoder–decoders --------------------------------------------------------------------------------

# Vaswani et al. 2017, table 3.
TRANSFORMER: Settings = dict(
    vocab_size=37_000,
    context_length=512,
    positions="sinusoidal",
    norm_order="post",
    final_norm=False,
    embedding_scale=True,
    activation="relu",
    dropout=0.1,
)
# Junczys-Dowmunt et al. 2018, as the published translation models use it.
MARIAN: Settings = TRANSFORMER | dict(
    vocab_size=58_101,
    sinusoid_halves=True,
    activation="silu",
    output_bias=True,
    **_special(eos=0, pad=58_100, start=58_100),
)
# Raffel et al. 2020; v1.1 is Shazeer 2020's gated feed-forward and an output table of its own.
T5: Settings = NO_BIAS | dict(
    vocab_size=32_128,
    context_length=512,
    positions="relative",
    norm="rms",
    norm_eps=1e-6,
    attention_scale=1.0,
    activation="relu",
    output_scale=True,
    **DROPOUT,
    activation_dropout=0.1,
    init_std=None,
    **_special(eos=1, pad=0, start=0),
)
T5_V1_1: Settings = T5 | dict(
    activation="gelu_tanh", gated=True, tie_embeddings=False, output_scale=False
)
# Lewis et al. 2020.
BART: Settings = dict(
    vocab_size=50_265,
    context_length=1024,
    position_offset=2,
    norm_order="post",
    final_norm=False,
    embedding_norm=True,
    output_bias=True,
    **DROPOUT,
    activation_dropout=0.1,
    **_special(bos=0, eos=2, pad=1, start=2),
)

# encoders ----------------------------------------------------------------------------------------

# Devlin et al. 2019, uncased, with the pooler. The heads that it was pretrained with are
# .replace(heads=("masked", "pooler", "next_sentence")); their settings are here.
BERT: Settings = dict(
    vocab_size=30_522,
    context_length=512,
    token_types=2,
    norm_order="post",
    norm_eps=1e-12,
    final_norm=False,
    embedding_norm=True,
    heads=("pooler",),
    transform="gelu",
    output_bias=True,
    **DROPOUT,
    head_dropout=0.1,
    pad_id=0,
)
# Liu et al. 2019: positions start behind the padding's row; no pooler, one token type.
ROBERTA: Settings = BERT | dict(
    vocab_size=50_265,
    token_types=1,
    position_offset=2,
    norm_eps=1e-5,
    heads=("masked",),
    **_special(bos=0, eos=2, pad=1),
)
# Sanh et al. 2019.
DISTILBERT: Settings = BERT | dict(
    token_types=0, heads=("masked",), head_dropout=0.2, pooler_activation="relu"
)
# Warner et al. 2024: every third layer sees everything, the others 64 tokens to each side.
MODERNBERT: Settings = NO_BIAS | dict(
    vocab_size=50_368,
    context_length=8192,
    positions="rotary",
    rope_theta=160_000.0,
    rope_theta_local=10_000.0,
    norm_bias=False,
    embedding_norm=True,
    first_norm=False,
    window=65,
    gated=True,
    heads=("masked",),
    transform="gelu",
    transform_bias=False,
    output_bias=True,
    pooler_activation="gelu",
    pooler_bias=False,
    pooler_norm=True,
    **_special(bos=50_281, eos=50_282, pad=50_283),
)
# Boizard et al. 2025.
EUROBERT: Settings = NO_BIAS | dict(
    vocab_size=128_256,
    context_length=8192,
    positions="rotary",
    rope_theta=250_000.0,
    norm="rms",
    activation="silu",
    gated=True,
    heads=("masked",),
    tie_embeddings=False,
    pooler_activation="gelu",
    **_special(bos=128_000, eos=128_001, pad=128_001),
)

# decoders ----------------------------------------------------------------------------------------

# Radford et al. 2018.
GPT1: Settings = dict(
    vocab_size=40_478,
    context_length=512,
    norm_order="post",
    final_norm=False,
    activation="gelu_tanh",
    **DROPOUT,
)
# Radford et al. 2019.
GPT2: Settings = dict(
    vocab_size=50_257,
    context_length=1024,
    activation="gelu_tanh",
    **DROPOUT,
    **_special(bos=50_256, eos=50_256),
)
# Brown et al. 2020: "alternating dense and locally banded sparse attention". The paper does not say
# how wide the band is; 256 tokens is a choice (GPT-Neo's), and changes no parameter.
GPT3: Settings = GPT2 | dict(context_length=2048, window=256, dropout=0.0, attention_dropout=0.0)
# Touvron et al. 2023 and its successors.
LLAMA: Settings = NO_BIAS | dict(
    vocab_size=32_000,
    context_length=2048,
    positions="rotary",
    norm="rms",
    norm_eps=1e-6,
    activation="silu",
    gated=True,
    tie_embeddings=False,
    **_special(bos=1, eos=2),
)
LLAMA2: Settings = LLAMA | dict(context_length=4096, norm_eps=1e-5)
LLAMA3: Settings = LLAMA2 | dict(
    vocab_size=128_256,
    context_length=8192,
    rope_theta=500_000.0,
    **_special(bos=128_000, eos=128_001),
)
LLAMA3_LONG: Settings = dict(kind="llama3", original_context=8192, high_freq_factor=4.0)
LLAMA3_1: Settings = LLAMA3 | dict(
    context_length=131_072, rope_scaling=LLAMA3_LONG | dict(factor=8.0)
)
LLAMA3_2: Settings = LLAMA3_1 | dict(
    rope_scaling=LLAMA3_LONG | dict(factor=32.0), tie_embeddings=True
)
# Jiang et al. 2023: each layer sees 4,096 tokens back.
MISTRAL: Settings = LLAMA | dict(context_length=32_768, norm_eps=1e-5, window=4096)
# Yang et al. 2025.
GROUPED: Settings = dict(n_kv_heads=8, d_head=128)
QWEN3: Settings = LLAMA | dict(
    vocab_size=151_936,
    context_length=40_960,
    rope_theta=1_000_000.0,
    qk_norm=True,
    **_special(eos=151_645, pad=151_643),
)

# our own: rows of the table above, so that what is trained opens elsewhere ------------------------

OURS = {
    "encoder": (_encoder, EUROBERT | dict(rope_theta=10_000.0, pool="mean", **_special())),
    "decoder": (_decoder, QWEN3 | dict(rope_theta=10_000.0, tie_embeddings=True, **_special())),
    "encoder-decoder": (_both, T5_V1_1 | NO_DROPOUT | _special()),
}
# About 7, 35 and 110 million parameters as decoders; feed-forwards of 8/3 the width, rounded to 64.
OURS_SIZES = {
    "tiny": (6, 256, 4, 704, dict(vocab_size=8_192, context_length=512)),
    "small": (8, 512, 8, 1408, dict(vocab_size=16_384, context_length=1024)),
    "base": (12, 768, 12, 2048, dict(vocab_size=32_768, context_length=2048)),
}


def _banded(layers: int, d_model: int, n_heads: int, d_head: int) -> Settings:
    """Every second layer is banded, from the second on."""
    local = tuple(range(1, layers, 2))
    return GPT3 | _decoder(layers, d_model, n_heads, d_head=d_head, local_layers=local)


def _thirds(layers: int, d_model: int, n_heads: int, d_ff: int) -> Settings:
    """Every third layer is global, from the first on."""
    local = tuple(i for i in range(layers) if i % 3)
    return MODERNBERT | _encoder(layers, d_model, n_heads, d_ff, local_layers=local)


# name -> everything that TransformerConfig needs -------------------------------------------------

PRESETS: dict[str, Settings] = {
    "transformer-base": TRANSFORMER | _both(6, 512, 8, init_std=512**-0.5),
    "transformer-big": TRANSFORMER | _both(6, 1024, 16, init_std=1024**-0.5, dropout=0.3),
    "marian-base": MARIAN | _both(6, 512, 8),
    "t5-small": T5 | _both(6, 512, 8, d_head=64),
    "t5-base": T5 | _both(12, 768, 12, d_head=64),
    "t5-large": T5 | _both(24, 1024, 16, d_head=64),
    "t5-3b": T5 | _both(24, 1024, 32, 16_384, d_head=128),
    "t5-11b": T5 | _both(24, 1024, 128, 65_536, d_head=128),
    "t5-v1.1-small": T5_V1_1 | _both(8, 512, 6, 1024, d_head=64),
    "t5-v1.1-base": T5_V1_1 | _both(12, 768, 12, 2048, d_head=64),
    "t5-v1.1-large": T5_V1_1 | _both(24, 1024, 16, 2816, d_head=64),
    "t5-v1.1-xl": T5_V1_1 | _both(24, 2048, 32, 5120, d_head=64),
    "t5-v1.1-xxl": T5_V1_1 | _both(24, 4096, 64, 10_240, d_head=64),
    "bart-base": BART | _both(6, 768, 12),
    "bart-large": BART | _both(12, 1024, 16),
    "bert-tiny": BERT | _encoder(2, 128, 2),
    "bert-mini": BERT | _encoder(4, 256, 4),
    "bert-small": BERT | _encoder(4, 512, 8),
    "bert-medium": BERT | _encoder(8, 512, 8),
    "bert-base": BERT | _encoder(12, 768, 12),
    "bert-large": BERT | _encoder(24, 1024, 16),
    "minilm-l6": BERT | _encoder(6, 384, 12, pool="mean"),
    "minilm-l12": BERT | _encoder(12, 384, 12, pool="mean"),
    "roberta-base": ROBERTA | _encoder(12, 768, 12),
    "roberta-large": ROBERTA | _encoder(24, 1024, 16),
    "distilbert-base": DISTILBERT | _encoder(6, 768, 12),
    "modernbert-base": _thirds(22, 768, 12, 1152),
    "modernbert-large": _thirds(28, 1024, 16, 2624),
    "eurobert-210m": EUROBERT | _encoder(12, 768, 12),
    "gpt1": GPT1 | _decoder(12, 768, 12),
    "gpt2": GPT2 | _decoder(12, 768, 12),
    "gpt2-medium": GPT2 | _decoder(24, 1024, 16),
    "gpt2-large": GPT2 | _decoder(36, 1280, 20),
    "gpt2-xl": GPT2 | _decoder(48, 1600, 25),
    # Brown et al. 2020, table 2.1, as printed but for XL: its 24 heads of 128 would be 1.5e9
    # parameters, where the same row says 1.3e9, which is 16 heads of 128 (= d_model). 13B's odd
    # width of 5140 with 40 heads of 128 is the table's.
    "gpt3-small": _banded(12, 768, 12, 64),
    "gpt3-medium": _banded(24, 1024, 16, 64),
    "gpt3-large": _banded(24, 1536, 16, 96),
    "gpt3-xl": _banded(24, 2048, 16, 128),
    "gpt3-2.7b": _banded(32, 2560, 32, 80),
    "gpt3-6.7b": _banded(32, 4096, 32, 128),
    "gpt3-13b": _banded(40, 5140, 40, 128),
    "gpt3-175b": _banded(96, 12_288, 96, 128),
    "llama2-7b": LLAMA2 | _decoder(32, 4096, 32, 11_008),
    "llama2-13b": LLAMA2 | _decoder(40, 5120, 40, 13_824),
    "llama2-70b": LLAMA2 | _decoder(80, 8192, 64, 28_672, n_kv_heads=8),
    "llama3-8b": LLAMA3 | _decoder(32, 4096, 32, 14_336, n_kv_heads=8),
    "llama3-70b": LLAMA3 | _decoder(80, 8192, 64, 28_672, n_kv_heads=8),
    "llama3.1-8b": LLAMA3_1 | _decoder(32, 4096, 32, 14_336, n_kv_heads=8),
    "llama3.1-70b": LLAMA3_1 | _decoder(80, 8192, 64, 28_672, n_kv_heads=8),
    "llama3.1-405b": LLAMA3_1 | _decoder(126, 16_384, 128, 53_248, n_kv_heads=8),
    "llama3.2-1b": LLAMA3_2 | _decoder(16, 2048, 32, 8192, n_kv_heads=8),
    "llama3.2-3b": LLAMA3_2 | _decoder(28, 3072, 24, 8192, n_kv_heads=8),
    "mistral-7b": MISTRAL
    | _decoder(32, 4096, 32, 14_336, n_kv_heads=8, local_layers=tuple(range(32))),
    "qwen3-0.6b": QWEN3 | _decoder(28, 1024, 16, 3072, **GROUPED, tie_embeddings=True),
    "qwen3-1.7b": QWEN3 | _decoder(28, 2048, 16, 6144, **GROUPED, tie_embeddings=True),
    "qwen3-4b": QWEN3 | _decoder(36, 2560, 32, 9728, **GROUPED, tie_embeddings=True),
    "qwen3-8b": QWEN3 | _decoder(36, 4096, 32, 12_288, **GROUPED),
    "qwen3-14b": QWEN3 | _decoder(40, 5120, 40, 17_408, **GROUPED),
    "qwen3-32b": QWEN3 | _decoder(64, 5120, 64, 25_600, **GROUPED),
    **{
        f"tercet-{size}-{family}": row | stack(layers, width, heads, d_ff, **more)
        for size, (layers, width, heads, d_ff, more) in OURS_SIZES.items()
        for family, (stack, row) in OURS.items()
    },
}


def preset(name: str) -> TransformerConfig:
    """The configuration of a named size, ``PRESETS``; an unknown name raises InputError with the
    nearest.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name.lower(), PRESETS, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(map(repr, near))}?"
            if near
            else "there are: " + ", ".join(PRESETS)
        )
        raise InputError(f"there is no preset {name!r}; {hint}")
    return TransformerConfig(**PRESETS[name])

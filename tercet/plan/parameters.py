"""Which tensors a configuration asks for: the shapes of each component, without building one.

It mirrors the constructors of ``tercet/model``; a test holds it to the parameters of real networks,
component by component.
"""

from __future__ import annotations

from math import prod

from tercet.config import TransformerConfig

Shape = tuple[int, ...]


def shapes(config: TransformerConfig) -> dict[str, list[Shape]]:
    """Component -> the shape of every parameter in it. A shared table stands once, in embedding."""
    found: dict[str, list[Shape]] = {"embedding": [(config.vocab_size, config.d_model)]}
    sides = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    for side, layers in sides.items():
        if layers and config.mixer == "lstm":
            found[f"{side} recurrence"] = recurrence(config, layers, both_ways=side == "encoder")
        elif layers:
            found["embedding"] += _placed(config)
            found |= _stack(config, side, layers)
    if config.mixer == "lstm" and config.encoder_layers:
        d = config.d_model
        found["decoder cross-attention"] = [(d, d), (d, d), (1, d), (d, 2 * d), (d,)]
    return found | {name: part for name, part in _heads(config).items() if part}


def count(tensors: list[Shape]) -> int:
    """Numbers in all of them."""
    return sum(map(prod, tensors))


def _stack(config: TransformerConfig, side: str, layers: int) -> dict[str, list[Shape]]:
    first = [] if config.norm_order == "pre" and not config.first_norm else norm(config)
    attention = (norm(config) + self_attention(config)) * (layers - 1)
    attention += first + self_attention(config)
    if config.positions == "relative":
        kinds = {layer in config.local_layers for layer in range(layers)}
        attention += [(config.relative_buckets, config.n_heads)] * len(kinds)
    found = {f"{side} attention": attention}
    if side == "decoder" and config.encoder_layers:
        found["decoder cross-attention"] = (norm(config) + self_attention(config)) * layers
    found[f"{side} feed-forward"] = (norm(config) + feed_forward(config)) * layers
    if config.final_norm:
        found[f"{side} norm"] = norm(config)
    return found


def norm(config: TransformerConfig, width: int | None = None) -> list[Shape]:
    biased = config.norm == "layer" and config.norm_bias
    return [(width or config.d_model,)] * (2 if biased else 1)


def linear(rows: int, columns: int, bias: bool) -> list[Shape]:
    return [(rows, columns)] + ([(rows,)] if bias else [])


def self_attention(config: TransformerConfig) -> list[Shape]:
    inner = config.n_heads * config.head_width
    grouped = config.kv_heads * config.head_width
    found = linear(inner, config.d_model, config.qkv_bias)
    found += linear(grouped, config.d_model, config.qkv_bias) * 2
    found += linear(config.d_model, inner, config.attention_bias)
    return found + [(config.head_width,)] * (2 if config.qk_norm else 0)


def feed_forward(config: TransformerConfig) -> list[Shape]:
    into = linear(config.d_ff, config.d_model, config.ff_bias)
    return into * (2 if config.gated else 1) + linear(config.d_model, config.d_ff, config.ff_bias)


def recurrence(config: TransformerConfig, layers: int, *, both_ways: bool) -> list[Shape]:
    """Of each layer and direction: input and hidden matrices of four gates, and two biases."""
    width = config.d_model // 2 if both_ways else config.d_model
    one = [(4 * width, config.d_model), (4 * width, width), (4 * width,), (4 * width,)]
    return one * layers * (2 if both_ways else 1)


def _placed(config: TransformerConfig) -> list[Shape]:
    """What a stack adds to the token's vector before its first block."""
    found: list[Shape] = []
    if config.positions == "learned":
        found.append((config.context_length + config.position_offset, config.d_model))
    if config.token_types:
        found.append((config.token_types, config.d_model))
    return found + (norm(config) if config.embedding_norm else [])


def _heads(config: TransformerConfig) -> dict[str, list[Shape]]:
    output: list[Shape] = []
    if {"language", "masked"} & set(config.heads):
        if config.transform:
            output += linear(config.d_model, config.d_model, config.transform_bias) + norm(config)
        if not config.tie_embeddings:
            output.append((config.vocab_size, config.d_model))
        if config.output_bias:
            output.append((config.vocab_size,))
    unbiased = {"classifier": config.family == "decoder", "pooler": not config.pooler_bias}
    heads: list[Shape] = []
    for name, width in head_widths(config).items():
        heads += linear(width, config.d_model, not unbiased.get(name, False))
    if "pooler" in config.heads and config.pooler_norm:
        heads += norm(config)
    return {"output": output, "heads": heads}


def head_widths(config: TransformerConfig) -> dict[str, int]:
    """The small heads that the configuration names, and how many numbers each gives."""
    widths = {
        "pooler": config.d_model,
        "next_sentence": 2,
        "classifier": config.n_labels,
        "tagger": config.n_labels,
        "span": 2,
    }
    return {name: width for name, width in widths.items() if name in config.heads}

"""Keys of config.json that are translated together, because one of ours is several of theirs.

Each Special names its keys, reads them into our fields, and writes them again. A row of configs.py
says which of these it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tercet.config import RopeScaling, TransformerConfig
from tercet.hf.configs import ACTIVATIONS

Values = dict[str, Any]  # a config.json


class Refused(Exception):
    """A value that the network cannot honour; says which."""


@dataclass(frozen=True)
class Special:
    keys: tuple[str, ...]
    read: Callable[[Values, dict[str, Any]], None]
    write: Callable[[TransformerConfig, Values], None]


SCALING_KEYS = {  # ours by theirs, for each kind
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_max_position_embeddings": "original_context",
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
    },
    "yarn": {
        "factor": "factor",
        "original_max_position_embeddings": "original_context",
        "attention_factor": "attention_factor",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "mscale": "mscale",
        "mscale_all_dim": "mscale_all_dim",
        "truncate": "truncate",
    },
}


def _scaling(rope: Values) -> RopeScaling | None:
    """From the 4th (``type``) or 5th (``rope_type``) spelling."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    given = {
        key: value
        for key, value in rope.items()
        if key not in ("rope_type", "type", "rope_theta") and value is not None
    }
    if given.pop("partial_rotary_factor", 1.0) != 1.0:
        raise Refused(f"partial_rotary_factor={rope['partial_rotary_factor']} (must be 1)")
    if kind == "default":
        return None
    if kind not in SCALING_KEYS:
        return RopeScaling(kind=kind, factor=given.get("factor", 1.0))  # raises, with the reason
    unknown = given.keys() - SCALING_KEYS[kind].keys()
    if unknown:
        raise Refused(f"rope {kind}: {', '.join(sorted(unknown))} (unknown)")
    fields = {SCALING_KEYS[kind][key]: value for key, value in given.items()}
    return RopeScaling(kind=kind, **fields)


def _read_rope(values: Values, fields: dict[str, Any]) -> None:
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    theta = rope.get("rope_theta", values.get("rope_theta"))
    fields["rope_theta"] = 10_000.0 if theta is None else theta
    fields["rope_scaling"] = _scaling(rope)


def _write_rope(config: TransformerConfig, values: Values) -> None:
    """The 4th spelling, which the 5th version reads too."""
    values["rope_theta"] = config.rope_theta
    if scaling := config.rope_scaling:
        keys = SCALING_KEYS[scaling.kind].items()
        rope = {theirs: getattr(scaling, ours) for theirs, ours in keys}
        rope = {key: value for key, value in rope.items() if value is not None}
        values["rope_scaling"] = {"rope_type": scaling.kind, **rope}


def _layers(fields: dict[str, Any]) -> int:
    return fields.get("decoder_layers", 0) or fields.get("encoder_layers", 0)


def _sliding(types: list[str], n: int) -> tuple[int, ...]:
    """Which layers of a ``layer_types`` look no further than the window."""
    strange = set(types) - {"full_attention", "sliding_attention"}
    if strange or len(types) != n:
        raise Refused(f"layer_types={types!r} (must name full or sliding attention for {n} layers)")
    return tuple(i for i, kind in enumerate(types) if kind == "sliding_attention")


def _spelt(config: TransformerConfig) -> list[str]:
    return [
        "sliding_attention" if i in config.local_layers else "full_attention"
        for i in range(config.n_layers)
    ]


def _read_window_everywhere(values: Values, fields: dict[str, Any]) -> None:
    fields["window"] = values.get("sliding_window", 4096)
    fields["local_layers"] = range(_layers(fields) if fields["window"] else 0)


def _write_window_everywhere(config: TransformerConfig, values: Values) -> None:
    values["sliding_window"] = config.window if config.local_layers else None


def _read_window_by_layer(values: Values, fields: dict[str, Any]) -> None:
    n, window = _layers(fields), values.get("sliding_window", 4096)
    if not values.get("use_sliding_window") or window is None:
        return
    first = values.get("max_window_layers", 28)
    types = values.get("layer_types")
    local = tuple(range(first, n)) if types is None else _sliding(types, n)
    fields["local_layers"], fields["window"] = local, window if local else None


def _write_window_by_layer(config: TransformerConfig, values: Values) -> None:
    values["use_sliding_window"] = bool(config.local_layers)
    values["sliding_window"] = config.window if config.local_layers else None
    values["max_window_layers"] = min(config.local_layers, default=config.n_layers)
    values["layer_types"] = _spelt(config)


def _read_global_and_local(values: Values, fields: dict[str, Any]) -> None:
    n, types = _layers(fields), values.get("layer_types")
    every = values.get("global_attn_every_n_layers", 3)
    local = tuple(i for i in range(n) if i % every) if types is None else _sliding(types, n)
    ropes = values.get("rope_parameters") or {}
    far, near = (ropes.get(f"{kind}_attention") or {} for kind in ("full", "sliding"))
    scaling = values.get("rope_scaling") or {}
    if _scaling(far | scaling) != _scaling(near | scaling):
        raise Refused("rope_parameters (global and local layers must be scaled alike)")
    fields["rope_scaling"] = _scaling(far | scaling)
    fields["rope_theta"] = far.get("rope_theta", values.get("global_rope_theta", 160_000.0))
    theta = near.get("rope_theta", values.get("local_rope_theta", 10_000.0))
    # their window counts the tokens on both sides of a query; ours is one side and the query
    fields["window"] = values.get("local_attention", 128) // 2 + 1
    fields["local_layers"], fields["rope_theta_local"] = local, theta


def _write_global_and_local(config: TransformerConfig, values: Values) -> None:
    values["layer_types"] = _spelt(config)
    for every in range(1, config.n_layers + 1):
        if config.local_layers == tuple(i for i in range(config.n_layers) if i % every):
            values["global_attn_every_n_layers"] = every
    values["local_attention"] = 2 * ((config.window or 65) - 1)
    values["global_rope_theta"] = config.rope_theta
    values["local_rope_theta"] = config.rope_theta_local or config.rope_theta
    if config.rope_scaling:
        rope: Values = {}
        _write_rope(config, rope)
        values["rope_scaling"] = rope["rope_scaling"]


def _read_attention_bias(values: Values, fields: dict[str, Any]) -> None:
    fields["qkv_bias"] = fields["attention_bias"] = values.get("attention_bias", False)


def _write_attention_bias(config: TransformerConfig, values: Values) -> None:
    values["attention_bias"] = config.attention_bias


def _read_one_bias(values: Values, fields: dict[str, Any]) -> None:
    fields["ff_bias"] = fields["output_bias"] = values.get("mlp_bias", False)


def _write_one_bias(config: TransformerConfig, values: Values) -> None:
    values["mlp_bias"] = config.ff_bias


def _read_token_types(values: Values, fields: dict[str, Any]) -> None:
    fields["token_types"] = values.get("type_vocab_size", 2)
    if not fields["token_types"]:
        raise Refused("type_vocab_size=0 (must be 1 or more)")


def _write_token_types(config: TransformerConfig, values: Values) -> None:
    values["type_vocab_size"] = config.token_types


def _read_pooling(values: Values, fields: dict[str, Any]) -> None:
    how = values.get("classifier_pooling", "cls")
    fields["pool"] = "mean" if how == "mean" else "first"


def _write_pooling(config: TransformerConfig, values: Values) -> None:
    first = "bos" if values["model_type"] == "eurobert" else "cls"
    values["classifier_pooling"] = "mean" if config.pool == "mean" else first


def _read_prediction_head(values: Values, fields: dict[str, Any]) -> None:
    """One head stands before the masked tokens' output, or before the labels'."""
    fields["pooler_activation"] = fields.get("transform")
    fields["pooler_bias"], fields["pooler_norm"] = fields.get("transform_bias"), True


def _read_transform(values: Values, fields: dict[str, Any]) -> None:
    fields["transform"] = fields.get("activation")


def _read_classifier_dropout(values: Values, fields: dict[str, Any]) -> None:
    own = values.get("classifier_dropout")
    fields["head_dropout"] = fields["dropout"] if own is None else own


def _write_classifier_dropout(config: TransformerConfig, values: Values) -> None:
    values["classifier_dropout"] = config.head_dropout


def _read_padded_positions(values: Values, fields: dict[str, Any]) -> None:
    if fields["pad_id"] is None:
        raise Refused("pad_token_id=None (positions start behind it)")
    fields["position_offset"] = fields["pad_id"] + 1
    positions = values.get("max_position_embeddings", 512)
    fields["context_length"] = positions - fields["position_offset"]


def _write_padded_positions(config: TransformerConfig, values: Values) -> None:
    values["max_position_embeddings"] = config.context_length + config.position_offset


def _read_four_times(values: Values, fields: dict[str, Any]) -> None:
    fields["d_ff"] = 4 * fields["d_model"]


def _read_inner_width(values: Values, fields: dict[str, Any]) -> None:
    fields["d_ff"] = values.get("n_inner") or 4 * fields["d_model"]


def _write_inner_width(config: TransformerConfig, values: Values) -> None:
    values["n_inner"] = None if config.d_ff == 4 * config.d_model else config.d_ff


def _read_scale_attention(values: Values, fields: dict[str, Any]) -> None:
    fields["attention_scale"] = None if values.get("scale_attn_weights", True) else 1.0


def _write_scale_attention(config: TransformerConfig, values: Values) -> None:
    values["scale_attn_weights"] = config.attention_scale != 1.0


def _read_gated_projection(values: Values, fields: dict[str, Any]) -> None:
    proj = values.get("feed_forward_proj", "relu")
    name = "gelu_new" if proj == "gated-gelu" else proj.removeprefix("gated-")
    name = values.get("dense_act_fn", name)
    if name not in ACTIVATIONS:
        raise Refused(f"feed_forward_proj={proj!r} (unknown activation {name!r})")
    fields["gated"], fields["activation"] = proj.startswith("gated-"), ACTIVATIONS[name]


def _write_gated_projection(config: TransformerConfig, values: Values) -> None:
    spelt = {"gelu_tanh": "gelu_new", "gelu": "gelu_python"}
    name = spelt.get(config.activation, config.activation)
    values["feed_forward_proj"] = f"gated-{name}" if config.gated else name
    if values["feed_forward_proj"] == "gated-gelu_new":
        values["feed_forward_proj"] = "gated-gelu"


def _read_one_dropout(values: Values, fields: dict[str, Any]) -> None:
    rate = values.get("dropout_rate", 0.1)
    fields |= dict(dropout=rate, attention_dropout=rate, activation_dropout=rate)


def _write_one_dropout(config: TransformerConfig, values: Values) -> None:
    values["dropout_rate"] = config.dropout


def _read_decoder_depth(values: Values, fields: dict[str, Any]) -> None:
    depth = values.get("num_decoder_layers")
    fields["decoder_layers"] = fields["encoder_layers"] if depth is None else depth


def _write_decoder_depth(config: TransformerConfig, values: Values) -> None:
    values["num_decoder_layers"] = config.decoder_layers


def _read_output_scale(values: Values, fields: dict[str, Any]) -> None:
    tied = values.get("tie_word_embeddings") is not False
    fields["output_scale"] = values.get("scale_decoder_outputs", tied)


def _write_output_scale(config: TransformerConfig, values: Values) -> None:
    values["scale_decoder_outputs"] = config.output_scale


def _read_start_at_pad(values: Values, fields: dict[str, Any]) -> None:
    start = values.get("decoder_start_token_id")
    fields["start_id"] = fields["pad_id"] if start is None else start


def _write_start(config: TransformerConfig, values: Values) -> None:
    values["decoder_start_token_id"] = config.start_id


def _read_same_sides(values: Values, fields: dict[str, Any]) -> None:
    for key, ours, default in (
        ("decoder_attention_heads", "n_heads", 16),
        ("decoder_ffn_dim", "d_ff", 4096),
    ):
        if values.get(key, default) != fields[ours]:
            raise Refused(
                f"{key}={values.get(key, default)} (must be the encoder's {fields[ours]})"
            )


def _write_same_sides(config: TransformerConfig, values: Values) -> None:
    values |= dict(decoder_attention_heads=config.n_heads, decoder_ffn_dim=config.d_ff)


def _read_same_vocabulary(values: Values, fields: dict[str, Any]) -> None:
    size = values.get("decoder_vocab_size")
    if size is not None and size != fields["vocab_size"]:
        raise Refused(f"decoder_vocab_size={size} (must be vocab_size {fields['vocab_size']})")


def _write_same_vocabulary(config: TransformerConfig, values: Values) -> None:
    values["decoder_vocab_size"] = config.vocab_size


def _write_nothing(config: TransformerConfig, values: Values) -> None:
    pass


SPECIAL = {
    "rope": Special(("rope_theta", "rope_scaling", "rope_parameters"), _read_rope, _write_rope),
    "window_everywhere": Special(
        ("sliding_window",), _read_window_everywhere, _write_window_everywhere
    ),
    "window_by_layer": Special(
        ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"),
        _read_window_by_layer,
        _write_window_by_layer,
    ),
    "global_and_local": Special(
        (
            *("layer_types", "global_attn_every_n_layers", "local_attention", "rope_parameters"),
            *("rope_scaling", "global_rope_theta", "local_rope_theta"),
        ),
        _read_global_and_local,
        _write_global_and_local,
    ),
    "attention_bias": Special(("attention_bias",), _read_attention_bias, _write_attention_bias),
    "classifier_pooling": Special(("classifier_pooling",), _read_pooling, _write_pooling),
    "one_bias": Special(("mlp_bias",), _read_one_bias, _write_one_bias),
    "token_types": Special(("type_vocab_size",), _read_token_types, _write_token_types),
    "prediction_head": Special((), _read_prediction_head, _write_nothing),
    "transform": Special((), _read_transform, _write_nothing),
    "classifier_dropout": Special(
        ("classifier_dropout",), _read_classifier_dropout, _write_classifier_dropout
    ),
    "padded_positions": Special(
        ("max_position_embeddings",), _read_padded_positions, _write_padded_positions
    ),
    "four_times": Special((), _read_four_times, _write_nothing),
    "inner_width": Special(("n_inner",), _read_inner_width, _write_inner_width),
    "scale_attention": Special(
        ("scale_attn_weights",), _read_scale_attention, _write_scale_attention
    ),
    "gated_projection": Special(
        ("feed_forward_proj", "dense_act_fn", "is_gated_act"),
        _read_gated_projection,
        _write_gated_projection,
    ),
    "one_dropout": Special(("dropout_rate",), _read_one_dropout, _write_one_dropout),
    "decoder_depth": Special(("num_decoder_layers",), _read_decoder_depth, _write_decoder_depth),
    "output_scale": Special(("scale_decoder_outputs",), _read_output_scale, _write_output_scale),
    "start_at_pad": Special(("decoder_start_token_id",), _read_start_at_pad, _write_start),
    "same_sides": Special(
        ("decoder_attention_heads", "decoder_ffn_dim"), _read_same_sides, _write_same_sides
    ),
    "same_vocabulary": Special(
        ("decoder_vocab_size",), _read_same_vocabulary, _write_same_vocabulary
    ),
}

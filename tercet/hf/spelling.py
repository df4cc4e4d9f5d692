"""Reads a row of configs.py forwards (config.json -> TransformerConfig) and backwards.

A key that a row does not know, or knows and cannot honour, is refused by name. Backwards a row fits
when reading what was written gives the configuration again.
"""

from __future__ import annotations

from typing import Any

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.hf.configs import ACTIVATIONS, IRRELEVANT, MUST, NARROW_GELU, OURS, ROWS, TRAINING, Row
from tercet.hf.special import SPECIAL, Refused, Values

POOLER = ("pooler_activation", "pooler_bias", "pooler_norm")  # kept for a head that is not there
IDS = ("bos_id", "eos_ids", "pad_id", "start_id")


def read_config(values: Values, heads: tuple[str, ...]) -> TransformerConfig:
    """The configuration that a config.json describes, with these heads. Raises InputError for an
    unknown model_type and for keys that are not honoured, all of them at once."""
    row = row_of(values)
    fields: dict[str, Any] = dict(row.fixed)
    refused = _refusals(row, values)
    for theirs, key in row.keys.items():
        value = values.get(theirs, key.default)
        if key.codec in ("activation", "narrow-gelu"):
            known = ACTIVATIONS if key.codec == "activation" else NARROW_GELU
            if value not in known:
                refused.append(f"{theirs}={value!r} (known: {', '.join(known)})")
                continue
            value = known[value]
        elif key.codec == "ids":
            value = () if value is None else tuple(value) if isinstance(value, list) else (value,)
        if value == -1 and key.ours in IDS:  # how old checkpoints say that there is none
            value = None
        fields[key.ours] = value
    _drop_defaults(row, values, fields)
    for name in row.special:
        try:
            SPECIAL[name].read(values, fields)
        except (Refused, InputError) as error:
            refused.append(str(error))
    late = "late" if values["model_type"] == "eurobert" else "cls"
    if "classifier" in heads and values.get("classifier_pooling", late) == "late":
        refused.append("classifier_pooling='late' (known: bos, cls, mean)")
    if refused:
        raise InputError(
            f"config.json, model_type {values['model_type']!r}: these settings are not honoured: "
            f"{'; '.join(refused)}; the network would differ from the one that was trained, so it "
            "is not loaded (delete a setting only if you know that it has no effect)"
        )
    if {"classifier", "tagger"} & set(heads):
        fields["n_labels"] = n_labels(values)
    if "classifier" in heads and fields.get("decoder_layers"):
        fields["pool"] = "last"  # in all of them
    kept = values.get(OURS, {})
    own = {name: kept[name] for name in (*TRAINING, "pool", *POOLER) if name in kept}
    try:
        return TransformerConfig(**fields | own, heads=heads)
    except InputError as error:
        raise InputError(f"config.json: {error}") from error


def _drop_defaults(row: Row, values: Values, fields: dict[str, Any]) -> None:
    """A special token at its default, which a smaller vocabulary does not hold, is none:
    `transformers` writes such defaults out."""
    for theirs, key in row.keys.items():
        value = fields.get(key.ours)
        if key.ours in IDS and value and values.get(theirs, key.default) == key.default:
            if max(value if isinstance(value, tuple) else (value,)) >= fields["vocab_size"]:
                fields[key.ours] = () if key.codec == "ids" else None


def n_labels(values: Values) -> int:
    """How many labels a classifier has: 2 where nothing is said, as in `transformers`."""
    return len(values.get("id2label") or ()) or values.get("num_labels") or 2


def row_of(values: Values) -> Row:
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in ROWS:
        known = ", ".join(sorted([*ROWS, OURS]))
        raise InputError(
            f"config.json: model_type {model_type!r} is unknown; the known ones are {known}"
        )
    return ROWS[model_type]


def write_config(config: TransformerConfig, model_type: str) -> Values | None:
    """The config.json of a network in a row's spelling; None when the row cannot say it."""
    row = ROWS[model_type]
    values: Values = {"model_type": model_type}
    for theirs, key in row.keys.items():
        value = getattr(config, key.ours)
        if key.codec in ("activation", "narrow-gelu"):
            known = ACTIVATIONS if key.codec == "activation" else NARROW_GELU
            spelt = [name for name, ours in known.items() if ours == (value or "gelu")]
            if not spelt:
                return None
            value = spelt[0]
        elif key.codec == "ids":
            value = value[0] if len(value) == 1 else list(value) or None
        values[theirs] = value
    if config.family == "encoder-decoder":
        values["is_encoder_decoder"] = True
    if {"classifier", "tagger"} & set(config.heads):
        values["id2label"] = {str(i): f"LABEL_{i}" for i in range(config.n_labels)}
        values["label2id"] = {f"LABEL_{i}": i for i in range(config.n_labels)}
    for name in row.special:
        SPECIAL[name].write(config, values)
    try:
        again = read_config(values, config.heads)
    except (InputError, TypeError):
        return None
    ours = [*TRAINING, *(["pool"] if pools_freely(config) else [])]
    ours += [] if "pooler" in config.heads else POOLER
    kept = {n: getattr(config, n) for n in ours if getattr(config, n) != getattr(again, n)}
    if kept:
        values[OURS] = kept
        again = read_config(values, config.heads)
    return values if essential(again) == essential(config) else None


def pools_freely(config: TransformerConfig) -> bool:
    """No classifier reads the pooled vector, so that `transformers` need not know of it."""
    return "classifier" not in config.heads


def essential(config: TransformerConfig) -> TransformerConfig:
    """The configuration with every field at its default that no part of the network reads."""
    unread: dict[str, Any] = {}
    if not {"language", "masked"} & set(config.heads):
        unread |= dict(output_bias=False, output_scale=False, tie_embeddings=True, transform=None)
    if config.transform is None or "transform" in unread:
        unread["transform_bias"] = True
    if not {"classifier", "tagger"} & set(config.heads):
        unread["n_labels"] = 2
    if "pooler" not in config.heads:
        unread |= dict(pooler_activation="tanh", pooler_bias=True, pooler_norm=False)
    if not config.local_layers or config.rope_theta_local == config.rope_theta:
        unread["rope_theta_local"] = None
    if not config.local_layers:
        unread["window"] = None
    if config.positions != "rotary":
        unread |= dict(rope_theta=10_000.0, rope_theta_local=None, rope_scaling=None)
    if config.positions != "relative":
        unread |= dict(relative_buckets=32, relative_max_distance=128)
    if config.positions != "sinusoidal":
        unread["sinusoid_halves"] = False
    if config.positions != "learned":
        unread["position_offset"] = 0
    if config.norm == "rms":
        unread["norm_bias"] = True
    if config.norm_order == "post":
        unread["first_norm"] = True
    if config.attention_scale == config.head_width**-0.5:
        unread["attention_scale"] = None
    if config.family != "encoder-decoder":
        unread["start_id"] = None
    return config.replace(**unread)


def _refusals(row: Row, values: Values) -> list[str]:
    """Keys that are unknown and not empty, or whose only known value is another one. `false` is not
    empty: of a key that nobody knows (parallel_residual) it may be the value that matters."""
    special = {key for name in row.special for key in SPECIAL[name].keys}
    refused = []
    for key, value in values.items():
        if key in row.keys or key in special or key in row.irrelevant:
            continue
        must = MUST | row.must
        if key in must:
            if value is not None and value != must[key]:
                refused.append(f"{key}={value!r} (must be {must[key]!r})")
        elif key not in IRRELEVANT and value is not None and value not in ({}, []):
            refused.append(f"{key}={value!r} (unknown)")
    return refused

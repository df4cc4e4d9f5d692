"""Hugging Face folders as networks: the engine that reads the tables of names.py (tensors) and the
rows of configs.py (settings), and knows no architecture itself. What no row can say stands in our
own spelling, ``"model_type": "tercet"``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tercet.config import TransformerConfig
from tercet.errors import InputError, undamaged
from tercet.hf.adapters import AdapterFolder, apply_adapter, is_adapter, laid_over, read_adapter
from tercet.hf.configs import OURS
from tercet.hf.extras import Extras, check_generation, read_extras, special_ids
from tercet.hf.matching import Link, absorbed, canonical, choose_form, links_of, links_of_tensor
from tercet.hf.names import OUTPUT, TABLES, Form, Table
from tercet.hf.spelling import n_labels, read_config, row_of
from tercet.hf.weights import Shapes, Weights
from tercet.model import Network, build
from tercet.text.special import read_json

CONFIG = "config.json"
# keys of our own config.json that are no fields of the configuration
NOT_FIELDS = ("model_type", "architectures", "dtype", "id2label", "label2id", "problem_type", OURS)


def load(
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    allow_pickle: bool = False,
    context: int | None = None,
    adapter: Path | None = None,
) -> tuple[Network, Extras]:
    """The network of a Hugging Face folder, in eval mode, and what the folder says beside it.

    dtype: of the parameters; None: float32, whatever the files hold. Parameters that are stored as
    they are wanted stay mapped to the file until they are written to. allow_pickle: read ``*.bin``
    with ``torch.load(weights_only=True)`` where there are no safetensors. context: extend rotary
    positions to so many tokens (``TransformerConfig.extended``). Raises InputError for a folder,
    settings or tensors that are not what they must be, with all offending names.
    """
    found = None if adapter is None else read_adapter(adapter)
    opened = _extended(_opened(Path(folder), allow_pickle, adapter=found), context)
    network = _filled(opened, dtype, device)
    if found is not None:
        apply_adapter(network, found, opened.links, opened.table.prefix if opened.table else "")
    return network, opened.extras


def config_of(
    folder: str | Path,
    *,
    allow_pickle: bool = False,
    shapes: Shapes | None = None,
    context: int | None = None,
) -> tuple[TransformerConfig, Extras]:
    """What `load` would find, from the settings and the tensors' names and shapes alone: no weight
    is read. shapes: of tensors that the folder lacks. Raises as `load` does."""
    opened = _extended(_opened(Path(folder), allow_pickle, shapes), context)
    _empty(opened)
    return opened.config, opened.extras


def check_settings(folder: Path) -> None:
    """Raises as `load` does, for what can be known before there are any weights."""
    values = _values(folder)
    with undamaged(folder / CONFIG):
        extras = read_extras(folder, values)
    if values.get("model_type") == OURS:
        config = _own_config(folder, values)
    else:
        with undamaged(folder / CONFIG):
            config = read_config(special_ids(values, extras), ())
    check_generation(folder, config, extras)


def library_of(folder: Path) -> str:
    """Which Python library opens a folder that we wrote: transformers, peft, or tercet alone."""
    if is_adapter(folder):
        return "peft"
    return OURS if read_json(folder / CONFIG).get("model_type") == OURS else "transformers"


class _Opened(NamedTuple):
    """A folder that is understood and whose tensors are not yet read."""

    config: TransformerConfig
    extras: Extras
    weights: Weights
    links: list[Link]
    names: dict[str, str]  # a tensor's canonical name -> its name in the file
    prefix: str  # of the body's tensors in the file
    table: Table | None = None  # None: our own spelling


def _opened(
    folder: Path,
    allow_pickle: bool,
    shapes: Shapes | None = None,
    adapter: AdapterFolder | None = None,
) -> _Opened:
    # what an adapter was trained as, where its folder says so: it may have a head of its own
    said = adapter.folder if adapter and (adapter.folder / CONFIG).is_file() else folder
    values = _values(said)
    with undamaged(said / CONFIG):
        extras = read_extras(said, values)
    if values.get("model_type") == OURS:
        config = _own_config(folder, values)
        check_generation(folder, config, extras)
        weights = Weights(folder, shapes=shapes)
        links = [Link(name, (name,)) for name in own_names(config)]
        names = {name: name for name in weights}
        if adapter is not None:
            weights.lay_over(adapter.whole)
            wanted = {link.theirs for link in links}
            names = {name: name for name in weights if name in wanted or name in adapter.whole}
        return _Opened(config, extras, weights, links, names, "")
    row = row_of(values)
    table = TABLES[values["model_type"]]
    weights = Weights(folder, allow_pickle=allow_pickle, shapes=shapes)
    names = canonical(table, weights)
    if adapter is not None:
        table, names = laid_over(adapter, table, names, weights)
        values = _with_labels(values, adapter, table)
    tied = values.get("tie_word_embeddings", row.keys["tie_word_embeddings"].default)
    with undamaged(folder / CONFIG):
        form = choose_form(table, names, values.get("architectures") or [], tied=tied)
        config = read_config(special_ids(values, extras), form.heads)
    check_generation(folder, config, extras)
    config = _settle_output(table, form, config, names, weights)
    links = links_of(table, form, own_names(config), gated=config.gated)
    prefix = table.prefix if any(name.startswith(table.prefix) for name in weights) else ""
    return _Opened(config, extras, weights, links, names, prefix, table)


def _with_labels(values: dict[str, Any], adapter: AdapterFolder, table: Table) -> dict[str, Any]:
    """As many labels as the head of an adapter has, of which the base's settings know nothing."""
    for name, tensor in adapter.whole.items():
        links = links_of_tensor(name.removeprefix(table.prefix), table)
        if {"heads.classifier.weight", "heads.tagger.weight"} & links:
            if len(tensor) != n_labels(values):
                return values | {"id2label": {str(i): f"LABEL_{i}" for i in range(len(tensor))}}
    return values


def _extended(opened: _Opened, context: int | None) -> _Opened:
    """For texts of ``context`` tokens, which then is what the folder states in every place."""
    if context is None:
        return opened
    embedding = replace(opened.extras.embedding, max_length=context)
    extras = replace(opened.extras, embedding=embedding)
    return opened._replace(config=opened.config.extended(context), extras=extras)


def _values(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; check the path")
    if not (folder / CONFIG).is_file():
        if (run := folder / "model" / CONFIG).is_file():
            raise InputError(f"{folder}: holds a run; its model is {run.parent}")
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise InputError(
            f"{folder}: has no {CONFIG} (it holds {found}); name the folder that the model was "
            "saved in"
        )
    values = read_json(folder / CONFIG)
    if not isinstance(values, dict):
        raise InputError(f"{folder / CONFIG}: must hold an object, not {type(values).__name__}")
    return values


def _own_config(folder: Path, values: dict[str, Any]) -> TransformerConfig:
    fields = {key: value for key, value in values.items() if key not in NOT_FIELDS}
    try:
        return TransformerConfig.from_dict(fields)
    except (TypeError, InputError) as error:
        raise InputError(f"{folder / CONFIG}: {error}") from error


def _settle_output(
    table: Table, form: Form, config: TransformerConfig, names: dict[str, str], weights: Weights
) -> TransformerConfig:
    """An output table that is stored although config.json calls it tied: a copy, or one of its
    own when it differs (as `transformers` has it)."""
    output = next((rule.theirs for rule in form.rules if rule.ours == OUTPUT), None)
    tokens = next(rule.theirs for rule in table.body if rule.ours == "tokens.weight")
    if not config.tie_embeddings or output is None or output not in names:
        return config
    if absorbed(output, tokens, names, weights):
        return config
    return config.replace(tie_embeddings=False)


def _empty(opened: _Opened) -> tuple[Network, dict[str, tuple[int, ...]]]:
    """The network on the meta device, and the tensors' shapes, which the files are held to."""
    network = build(opened.config, seed=None)
    empty = network.state_dict()
    _check_names(opened)
    shapes = {
        link.theirs: tuple(link.op.write([empty[name] for name in link.ours]).shape)
        for link in opened.links
    }
    _check_shapes(opened.weights, shapes, opened.names, opened.config)
    return network, shapes


def _filled(
    opened: _Opened, dtype: torch.dtype | None, device: str | torch.device | None
) -> Network:
    network, shapes = _empty(opened)
    weights, links, names = opened.weights, opened.links, opened.names
    filled: dict[str, Tensor] = {}
    for link in links:
        if link.theirs in names:
            tensor = weights.get(names[link.theirs])
            if not tensor.is_floating_point():
                raise InputError(
                    f"{weights.folder}: {names[link.theirs]} holds {tensor.dtype}; quantised "
                    "weights cannot be read, take the model's unquantised folder"
                )
        else:
            tensor = torch.zeros(shapes[link.theirs])
        tensor = tensor.to(device=device, dtype=dtype or torch.float32)
        filled |= zip(link.ours, link.op.read(tensor, len(link.ours)), strict=True)
    network.load_state_dict(filled, strict=False, assign=True)
    network.tie()
    stranded = [name for name, p in network.named_parameters() if p.is_meta]
    assert not stranded, f"no rule fills {stranded}"
    return network.eval()


def _check_names(opened: _Opened) -> None:
    weights, links, names = opened.weights, opened.links, opened.names
    wanted = {link.theirs for link in links}
    unknown = sorted(file_name for name, file_name in names.items() if name not in wanted)
    missing = sorted(
        opened.prefix * link.body + link.theirs
        for link in links
        if not link.optional and link.theirs not in names
    )
    if unknown or missing:
        said = [f"unknown: {', '.join(unknown)}"] if unknown else []
        said += [f"missing: {', '.join(missing)}"] if missing else []
        raise InputError(
            f"{weights.folder}: the tensors are not those that {CONFIG} describes; "
            f"{'; '.join(said)}; check that both belong to one model and that no file is missing"
        )


def _check_shapes(
    weights: Weights,
    shapes: dict[str, tuple[int, ...]],
    names: dict[str, str],
    config: TransformerConfig,
) -> None:
    wrong = [
        f"{names[name]} has shape {weights.shapes[names[name]]}, {CONFIG} asks for {shape}"
        for name, shape in shapes.items()
        if name in names and weights.shapes[names[name]] != shape
    ]
    if wrong:
        raise InputError(
            f"{weights.folder}: {'; '.join(wrong)} (vocabulary {config.vocab_size:,}, context "
            f"{config.context_length:,}, width {config.d_model:,}); check that {CONFIG} belongs to "
            "these weights"
        )


def own_names(config: TransformerConfig) -> list[str]:
    """Our parameters, a tied output table left out."""
    names = build(config, seed=None).state_dict()
    return [name for name in names if not (name == OUTPUT and config.tie_embeddings)]

"""Networks as Hugging Face folders: tables of names and settings read backwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.files import written_folder
from tercet.hf.adapters import SETTINGS, TENSORS, write_adapter
from tercet.hf.configs import OURS, ROWS
from tercet.hf.embedding import FILES as EMBEDDING_FILES
from tercet.hf.embedding import write_embedding, write_json
from tercet.hf.extras import GENERATION_FILE, OVERFLOW, TEMPERATURE, Extras, write_generation
from tercet.hf.matching import OPS, Link, links_of
from tercet.hf.names import OUTPUT, TABLES, Form, Table
from tercet.hf.reading import CONFIG, own_names
from tercet.hf.spelling import write_config
from tercet.hf.weights import INDEX, SINGLE
from tercet.model import Network

LABELLING = {"classifier", "tagger"}  # heads whose outputs have names
# What a saved folder may hold; of an older one, whatever is not written anew is removed.
FILES = (
    *(CONFIG, GENERATION_FILE, "model*.safetensors", INDEX, SETTINGS, TENSORS),
    *EMBEDDING_FILES,
)


def save(network: Network, folder: str | Path, extras: Extras | None = None) -> None:
    """A folder that `load` and, where a row fits, `transformers` open: config.json,
    model.safetensors, generation_config.json, and the files of a sentence-embedding model.

    All or nothing: a full disk leaves the folder as it was. Raises InputError when the folder
    cannot be written. The spelling is that of ``extras.model_type`` where it fits, else the first
    that does.
    """
    extras = extras or Extras()
    values, links = _spelt(network.config, extras)
    with written_folder(folder, instead_of=FILES) as scratch, torch.no_grad():
        state = network.state_dict()
        tensors = {
            link.theirs: link.op.write([state[name] for name in link.ours]).cpu().contiguous()
            for link in links
        }
        save_file(tensors, scratch / SINGLE, metadata={"format": "pt"})
        _write_settings(network, values, extras, scratch)


def save_adapter(
    network: Network, folder: str | Path, extras: Extras | None = None, *, base: str
) -> None:
    """The adapters of a network and what else of it is trained, as `peft` keeps them, beside the
    settings of the whole. base: the folder, or the hub's name, of what lies below. Raises
    InputError for what the format cannot say, and when the folder cannot be written."""
    extras = extras or Extras()
    config = network.config
    values, links = _spelt(config, extras)
    found = row_for(config, extras.model_type)
    if found is None and extras.model_type not in (None, OURS):
        raise InputError(
            f"no class of model type {extras.model_type!r} has the heads "
            f"{', '.join(config.heads)}, so an adapter with them cannot name its tensors; save the "
            "merged model"
        )
    if found is not None and not found[2].bare:  # a pooler is the body's, though a form names it
        before = found[1].prefix
        links = [
            replace(link, theirs=before * link.theirs.startswith("pooler.") + link.theirs)
            for link in links
        ]
    if config.tie_embeddings and network.tokens.weight.requires_grad:
        # peft ties no copies: what was trained must stand in both places
        untied = _spelt(config.replace(tie_embeddings=False), extras)[1]
        links += [link for link in untied if OUTPUT in link.ours]
    with written_folder(folder, instead_of=FILES) as scratch, torch.no_grad():
        write_adapter(network, scratch, links, base=base, heads=config.heads)
        _write_settings(network, values, extras, scratch)


def _write_settings(network: Network, values: dict[str, Any], extras: Extras, folder: Path) -> None:
    """All but the tensors. values: of config.json, without what a head's outputs mean."""
    config = network.config
    values |= _about_labels(values, config, extras)
    values["dtype"] = str(network.tokens.weight.dtype).removeprefix("torch.")
    write_json(folder / CONFIG, values)
    write_generation(config, extras, folder)
    write_embedding(extras.embedding, folder, config.d_model)


def _spelt(config: TransformerConfig, extras: Extras) -> tuple[dict[str, Any], list[Link]]:
    """config.json, and the links with their names as they stand in the file."""
    names = own_names(config)
    found = row_for(config, extras.model_type)
    if found is None:
        return {"model_type": OURS, **config.to_dict()}, [Link(name, (name,)) for name in names]
    values, table, form = found
    prefix = "" if form.bare else table.prefix
    links = [
        Link(prefix * link.body + link.theirs, link.ours, link.op)
        for link in links_of(table, form, names, gated=config.gated)
    ]
    if not config.tie_embeddings:  # then `transformers` ties nothing, and reads a head's copies too
        originals = {link.theirs: link for link in links}
        links += [
            Link(copy, originals[original].ours, OPS["copy"])
            for copy, original in table.copies.items()
            if original in {rule.theirs for rule in form.rules}
        ]
    return values, links


def _about_labels(
    values: dict[str, Any], config: TransformerConfig, extras: Extras
) -> dict[str, Any]:
    """The keys of config.json that say what a head's outputs mean."""
    if not LABELLING & set(config.heads) or len(extras.labels) != config.n_labels:
        return {}
    said: dict[str, Any] = {
        "id2label": {str(i): label for i, label in enumerate(extras.labels)},
        "label2id": {label: i for i, label in enumerate(extras.labels)},
    }
    if extras.problem is not None:
        said["problem_type"] = extras.problem
    own = {} if extras.temperature == 1 else {TEMPERATURE: extras.temperature}
    own |= {OVERFLOW: extras.overflow} if extras.overflow else {}
    if own:
        said[OURS] = values.get(OURS, {}) | own
    return said


def row_for(
    config: TransformerConfig, preferred: str | None = None
) -> tuple[dict[str, Any], Table, Form] | None:
    """config.json in the spelling of the first row that fits, and the names that go with it."""
    for model_type in sorted(ROWS, key=lambda name: name != preferred):
        for form in TABLES[model_type].forms:
            if set(form.heads) != set(config.heads):
                continue
            values = write_config(config, model_type)
            if values is None:
                break
            values["architectures"] = [form.architecture]
            return values, TABLES[model_type], form
    return None

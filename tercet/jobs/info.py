"""The verb `info`: what a model is, and what it costs to read, to train and to write with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from tercet.errors import InputError
from tercet.jobs.flags import Named, print_json, unset, verbs

if TYPE_CHECKING:
    from tercet.config import TransformerConfig
    from tercet.language_model import LanguageModel


def run(
    model: Named,
    *,
    length: Annotated[int | None, unset("N")] = None,
    batch: Annotated[int, arg(metavar="N")] = 1,
    precision: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
    json: bool = False,
) -> None:
    """What a model is: family, sizes, settings; its parameters, FLOPs and bytes by component.

    MODEL may be a preset too (their names are in tercet.PRESETS); weights are not read, and of a
    hub's model not fetched (pickled ones, with --allow-pickle, must be).

      tercet info runs/quickstart/decoder --length 64 --batch 8

    Args:
        length: tokens a sequence that the costs are for; without it, one full context
        batch: sequences at a time
        precision: of weights, gradients, activations and cache
        json: all of it as one JSON object
    """
    from tercet.plan import plan

    config, about = _describe(model)
    about |= _machine()
    for flag, value in (("--length", length), ("--batch", batch)):
        if value is not None and value < 1:
            raise InputError(f"{flag} {value} must be 1 or more")
    costs = plan(config, [length or config.context_length] * batch, dtype=precision)
    if json:
        print_json({**about, "config": config.to_dict(), "plan": costs.to_dict()})
        return
    rows = {**about, **config.to_dict()}
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        print(f"{name:{width}}{_plain(value)}")
    print(f"\n{costs}")


def _describe(model: Named) -> tuple[TransformerConfig, dict[str, Any]]:
    """The configuration, and what else is known: a preset has neither weights nor tokenizer."""
    from tercet.presets import preset

    name = model.named()
    if "/" not in name and not Path(name).expanduser().exists():
        try:
            config = preset(name)
        except InputError as error:
            raise InputError(f"{name}: there is no such folder, and {error}") from None
        if model.context is not None:
            config = config.extended(model.context)
        return config, {"model": name, "family": config.family, "preset": True}
    loaded = _without_weights(model)
    config = loaded.config
    about = {"model": name, "family": config.family, "can": verbs(loaded)}
    tokens = loaded.tokenizer.vocab_size
    return config, {**about, "tokens": tokens, "longest_text": loaded.limit}


def _machine() -> dict[str, Any]:
    """How models run here: threads of torch and tokenizer, and the precisions."""
    import torch

    from tercet.kernels.processor import NATIVE, emulated, outrun

    slow = {(True, True): " (emulated: slow)", (False, True): " (many rows: slower than float32)"}
    said = [kind + slow.get((emulated(kind), outrun(kind)), "") for kind in NATIVE]
    threads: int | str = torch.get_num_threads()
    own = os.environ.get("RAYON_NUM_THREADS", str(threads))
    if own != str(threads):
        threads = f"{threads} of torch, {own} of the tokenizer"
    return {"threads": threads, "precisions": ["float32", *said]}


def _without_weights(model: Named) -> LanguageModel:
    """The model with an empty network: what it is can be told, but it cannot be run."""
    from tercet import hf
    from tercet.language_model import LanguageModel
    from tercet.model import build
    from tercet.text import Tokenizer

    folder, shapes = hf.find_settings(model.model, allow_pickle=model.allow_pickle)
    config, extras = hf.config_of(
        folder, allow_pickle=model.allow_pickle, shapes=shapes, context=model.context
    )
    tokenizer = Tokenizer.load(folder, max_length=model.context)
    return LanguageModel(build(config, seed=None), tokenizer, extras)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)

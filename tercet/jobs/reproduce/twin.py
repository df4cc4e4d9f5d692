"""The recurrent twin of a network: equal parameters, equal text, equal seconds."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tercet.config import TransformerConfig
from tercet.jobs import recipe as recipes
from tercet.jobs.train.settings import RunRecipe
from tercet.plan.parameters import count, shapes

LAYERS = 2
STEP = 4  # of the widths that are tried


def size(config: TransformerConfig) -> int:
    """Parameters of a network of this shape."""
    return sum(count(tensors) for tensors in shapes(config).values())


def beside_table(config: TransformerConfig) -> int:
    """Parameters outside the embeddings."""
    return size(config) - config.vocab_size * config.d_model


def twin(config: TransformerConfig) -> dict[str, Any]:
    """What makes a decoder an LSTM of two layers with as many parameters, as nearly as widths in
    steps of four allow."""
    fixed = {"mixer": "lstm", "positions": "none", "n_heads": 1, "decoder_layers": LAYERS}

    def excess(width: int) -> int:
        return abs(size(config.replace(**fixed, d_model=width)) - size(config))

    width = min(range(STEP, 8 * config.d_model, STEP), key=excess)
    return {**fixed, "d_model": width}


def twin_of(
    recipe: RunRecipe, config: TransformerConfig, *, seconds: float, changes: Sequence[str]
) -> RunRecipe:
    """A run's recipe for its twin; ``config`` is the network of the run."""
    model = dataclasses.replace(recipe.model, change={**recipe.model.change, **twin(config)})
    told = recipes.text(dataclasses.replace(recipe, model=model))
    return recipes.parse(told, "the twin", [f"train.budget={seconds:.1f}s", *changes])


def share(run: Path, other: Path) -> None:
    """Another run's folder gets the corpus of this one, if it has none: it is prepared once."""
    if (other / "data").exists():
        return
    draft = other / ".data"
    shutil.rmtree(draft, ignore_errors=True)  # of a copy that was interrupted
    shutil.copytree(run / "data", draft)
    draft.rename(other / "data")

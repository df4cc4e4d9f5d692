"""Runs for tests: a real one of seconds, and folders that look like the runs of hours."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tercet.files import written
from tercet.jobs import recipe as recipes
from tercet.jobs.train.job import train

RECIPE = """
about: A small decoder of a test
model:
  preset: gpt2
  change: {{d_model: 32, d_ff: 64, n_heads: 2, decoder_layers: 1, context_length: 32}}
tokenizer: {{kind: bytes}}
data: {{files: ["{files}"], validation: 0.3, split: line}}
objective: {{length: 32}}
batch: {{tokens: 256}}
train: {{steps: 12, on_trouble: skip}}
evaluate: {{every: 4, prompts: ["Nothing", "<b>"], max_new_tokens: 5}}
checkpoint: {{every: 6}}
"""


def recipe_file(folder: Path) -> Path:
    """A recipe and its texts."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"Line {i}: nothing is lost, everything is written down.\n" for i in range(60)]
    (folder / "texts.txt").write_text("".join(lines))
    path = folder / "small.yaml"
    path.write_text(RECIPE.format(files=folder / "texts.txt"))
    return path


def train_small(folder: Path, *changes: str) -> Path:
    """A run that was really trained; its folder."""
    wanted = recipes.load(str(recipe_file(folder)), changes)
    train(wanted, folder / "run")
    return folder / "run"


def imitated(folder: Path, rows: Iterable[dict[str, Any]], *changes: str) -> Path:
    """A run folder that holds a recipe and a log only."""
    folder.mkdir(parents=True)
    recipe = recipes.parse(RECIPE.format(files="texts.txt"), changes=changes)
    (folder / "recipe.yaml").write_text(recipes.text(recipe))
    with written(folder / "log.jsonl") as draft:
        draft.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def step(number: int, **facts: Any) -> dict[str, Any]:
    """A line of the log: a step of 1,000 tokens and half a second."""
    told = {"loss": 2.0, "norm": 1.0, "rate": 1e-3, "skipped": 0.0}
    told |= {"tokens": 1000 * number, "seconds": 0.5 * number}
    return {"kind": "step", "step": number, **told, **facts}

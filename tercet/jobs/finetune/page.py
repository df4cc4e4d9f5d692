"""The report page of a fine-tuning: what came of it, how it learned, the data, the recipe."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import RESULT, opened
from tercet.jobs.finetune.card import about_choice, rungs, sentences
from tercet.report import Html, Page, Series, code, line_plot, side_by_side, table
from tercet.train.log import rows


def page(folder: Path) -> Page:
    """Of a run folder, while it works too."""
    recipe = opened(folder / recipes.RECIPE)
    done = folder / RESULT
    result = json.loads(done.read_text(encoding="utf-8")) if done.exists() else None
    climbed = result if result is not None and "ladder" in result else None
    told = about_choice(climbed) if climbed else sentences(result) if result else []
    lead = " ".join(f"{line}." for line in told) or "Not complete yet."
    found = Page(
        recipe.about.strip() or f"Fine-tuning {recipe.model} to {recipe.task}",
        lead=lead,
        kicker=f"tercet report {folder} · {time.strftime('%Y-%m-%d %H:%M')}",
    )
    if climbed:
        header, *lines = rungs(climbed)
        found.section("The rungs", table(header, lines))
    elif result is not None:
        header = ["run", "split", *result["validation"]["mean"]]
        lines = [
            [name, split, *(f"{figures.get(key, float('nan')):.4f}" for key in header[2:])]
            for split in ("validation", "test")
            if result[split] is not None
            for name, figures in result[split]["runs"].items()
        ]
        found.section("What it is worth", table(header, lines))
    curves = _curves(folder) if recipe.ladder is None else _rung_curves(folder)
    if curves:
        found.section("Learning", side_by_side(*curves))
    if result is not None:
        data = [[key, _short(value)] for key, value in result["data"].items()]
        found.section("The data", table(["", ""], data))
    found.section("The recipe", code(recipes.text(recipe)))
    return found


def _curves(folder: Path) -> list[Html]:
    """The loss of each run, and the metric on its validation examples."""
    losses, metrics, name = [], [], "metric"
    for log in sorted(folder.glob("*/log.jsonl")):
        run = log.parent.name
        steps = list(rows(log, "step"))
        x, y = [row["step"] for row in steps], [float(row["loss"]) for row in steps]
        losses.append(Series(run, x, y, smooth=max(1, len(x) // 20)))
        measured = list(rows(log, "evaluation"))
        name = measured[0]["chosen_by"] if measured else name
        at, values = [row["step"] for row in measured], [row[name] for row in measured]
        metrics.append(Series(run, at, values, points=True))
    return [
        line_plot(losses, title="Loss", y="nats a target"),
        line_plot(metrics, title=f"Validation: {name}", y=name),
    ]


def _rung_curves(folder: Path) -> list[Html]:
    """The loss of each rung that takes steps, each of a kind of its own."""
    found = []
    for log in sorted(folder.glob("*/whole/log.jsonl")):
        steps = list(rows(log, "step"))
        x, y = [row["step"] for row in steps], [float(row["loss"]) for row in steps]
        name = log.parents[1].name
        found.append(line_plot([Series(name, x, y)], title=f"Loss: {name}", y="nats a target"))
    return found


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else f"{text[:399]}…"

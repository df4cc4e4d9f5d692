"""The report page of a fine-tuning: what came of it, how it learned, the data, the recipe."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import RESULT, opened
from tercet.jobs.finetune.card import curve_cells, sentences
from tercet.report import Axis, Html, Page, Series, code, line_plot, side_by_side, table
from tercet.train.log import rows


def page(folder: Path) -> Page:
    """Of a run folder, while it works too."""
    recipe = opened(folder / recipes.RECIPE)
    done = folder / RESULT
    result = json.loads(done.read_text(encoding="utf-8")) if done.exists() else None
    lead = " ".join(f"{line}." for line in sentences(result)) if result else "Not complete yet."
    found = Page(
        recipe.about.strip() or f"Fine-tuning {recipe.model} to {recipe.task}",
        lead=lead,
        kicker=f"tercet report {folder} · {time.strftime('%Y-%m-%d %H:%M')}",
    )
    if result is not None:
        header = ["run", "split", *result["validation"]["mean"]]
        lines = [
            [name, split, *(f"{figures.get(key, float('nan')):.4f}" for key in header[2:])]
            for split in ("validation", "test")
            if result[split] is not None
            for name, figures in result[split]["runs"].items()
        ]
        found.section("What it is worth", table(header, lines))
        if "curve" in result:
            found.section("More labels", table(*curve_cells(result)), _label_curve(result))
    found.section("Learning", side_by_side(*_curves(folder)))
    if result is not None:
        data = [[key, _short(value)] for key, value in result["data"].items()]
        found.section("The data", table(["", ""], data))
    found.section("The recipe", code(recipes.text(recipe)))
    return found


def _label_curve(result: dict[str, Any]) -> Html:
    """The figure by the number of rows, a curve for each kind of weights to begin with."""
    curve, metric = result["curve"], result["metric"]
    points: dict[str, list[tuple[int, float]]] = {}
    for one in curve["points"]:
        points.setdefault(one["start"], []).append((one["rows"], one["mean"][metric]))
    series = [
        Series(name, [x for x, _ in found], [y for _, y in found], points=True)
        for name, found in points.items()
    ]
    title = f"{curve['split'].capitalize()}: {metric}"
    return line_plot(series, title=title, x=Axis("training rows", log=True), y=metric)


def _curves(folder: Path) -> list[Html]:
    """The loss of each run, and the metric on its validation examples."""
    losses, metrics, name = [], [], "metric"
    for log in sorted(folder.glob("*/log.jsonl")):
        steps = list(rows(log, "step"))
        x, y = [row["step"] for row in steps], [float(row["loss"]) for row in steps]
        losses.append(Series(log.parent.name, x, y, smooth=max(1, len(x) // 20)))
        measured = list(rows(log, "evaluation"))
        name = measured[0]["chosen_by"] if measured else name
        at, values = [row["step"] for row in measured], [row[name] for row in measured]
        metrics.append(Series(log.parent.name, at, values, points=True))
    return [
        line_plot(losses, title="Loss", y="nats a target"),
        line_plot(metrics, title=f"Validation: {name}", y=name),
    ]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else f"{text[:399]}…"

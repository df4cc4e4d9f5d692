"""The report page of a fine-tuning: what came of it, what it gets wrong, what is odd in the data,
how it learned, the recipe."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import FINDINGS, kept, opened
from tercet.jobs.finetune.card import about_choice, curve_cells, metric_of, rungs, sentences
from tercet.jobs.finetune.page_findings import found_facts, sections
from tercet.report import (
    Axis,
    Fact,
    Html,
    Page,
    Series,
    code,
    facts,
    line_plot,
    side_by_side,
    table,
)
from tercet.train.log import rows
from tercet.train.progress import clock

SHARES = ("accuracy", "f1", "macro_f1", "micro_f1", "exact", "precision", "recall")  # of 1


def page(folder: Path) -> Page:
    """Of a run folder, while it works too."""
    recipe = opened(folder / recipes.RECIPE)
    result, found = kept(folder / recipes.RESULT), kept(folder / FINDINGS) or {}
    climbed = result is not None and "ladder" in result
    told = [] if result is None else about_choice(result) if climbed else sentences(result)
    lead = " ".join(f"{line[:1].upper()}{line[1:]}." for line in told) or "Not complete yet."
    drawn = Page(
        recipe.about.strip() or f"Fine-tuning {recipe.model} to {recipe.task}",
        lead=lead,
        kicker=f"tercet report {folder} · {time.strftime('%Y-%m-%d %H:%M')}",
    )
    if result is not None:
        drawn.add(facts(*_key_figures(result), *found_facts(found)))
        if climbed:
            header, *lines = rungs(result)
            drawn.section("The rungs", table(header, lines))
        else:
            drawn.section("What it is worth", _figures(result))
        if "curve" in result:
            drawn.section("More labels", table(*curve_cells(result)), _label_curve(result))
        for title, *pieces in sections(found, result):
            drawn.section(title, *pieces)
    curves = _curves(folder) if recipe.ladder is None else _rung_curves(folder)
    if curves:
        drawn.section("Learning", side_by_side(*curves))
    if result is not None:
        data = [[key.replace("_", " "), _short(value)] for key, value in result["data"].items()]
        drawn.section("The data", table(["", ""], data))
    drawn.section("The recipe", code(recipes.text(recipe)))
    return drawn


def _key_figures(result: dict[str, Any]) -> list[Fact]:
    """The figure that the best epoch was chosen by, and the time."""
    split = "test" if result["test"] is not None else "validation"
    figures = result[split]
    metric = metric_of(figures["mean"], result["metric"])
    mean, sd = figures["mean"][metric], figures["sd"][metric]
    n_runs = len(result["runs"])
    if sd is not None:
        note = f"± {_said(sd, metric)}, {n_runs} runs"
    elif metric == "accuracy" and "low" in figures["mean"]:
        low, high = (_said(figures["mean"][end], metric) for end in ("low", "high"))
        note = f"{low} to {high}, {figures['n']:,} examples"
    else:
        note = f"{figures['n']:,} examples"
    return [
        Fact(_said(mean, metric), f"{split} {metric.replace('_', ' ')}", note),
        Fact(clock(result["seconds"]), "of training", f"{n_runs} run{'s' * (n_runs > 1)}"),
    ]


def _said(value: float, metric: str) -> str:
    return f"{100 * value:.1f}\u00a0%" if metric in SHARES else f"{value:.4f}"


def _figures(result: dict[str, Any]) -> Html:
    splits = [split for split in ("validation", "test") if result[split] is not None]
    header = ["run", "split", *dict.fromkeys(key for s in splits for key in result[s]["mean"])]
    lines = [
        [name, split, *(f"{figures[key]:.4f}" if key in figures else "" for key in header[2:])]
        for split in splits
        for name, figures in result[split]["runs"].items()
    ]
    return table(
        [name.replace("_", " ") for name in header], lines, align="ll" + "r" * (len(header) - 2)
    )


def _label_curve(result: dict[str, Any]) -> Html:
    """The figure by the number of rows, a curve for each kind of weights to begin with."""
    curve = result["curve"]
    metric = metric_of(curve["points"][0]["mean"], result["metric"])
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
    """As people write it: names with their counts, lists with commas."""
    if isinstance(value, dict):
        text = ", ".join(f"{name} {_short(part)}" for name, part in value.items())
    elif isinstance(value, list):
        text = ", ".join(map(_short, value))
    elif isinstance(value, str):
        text = value
    else:
        text = f"{value:,}" if type(value) is int else json.dumps(value, ensure_ascii=False)
    return (text if len(text) <= 400 else f"{text[:399]}…") or "–"

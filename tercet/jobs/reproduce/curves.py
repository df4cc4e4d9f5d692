"""What pretraining is worth by the number of labels: label curves of several bodies and tasks.

The curves are those of `tercet finetune --curve --scratch`. Beside them stands logistic regression
on the frozen vectors of the same rows, of their mean and of [CLS]; and on [CLS] before and after
the body was fine-tuned on all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tercet.evaluate.probe import probe_vectors
from tercet.jobs.finetune import curve as curves
from tercet.jobs.finetune import finetune
from tercet.jobs.finetune.classify import Example, classify
from tercet.jobs.finetune.job import Job
from tercet.jobs.flags import say
from tercet.jobs.reproduce.bodies import body
from tercet.jobs.reproduce.figures import draw
from tercet.jobs.reproduce.kept import Figures, Kept
from tercet.jobs.reproduce.table import Row
from tercet.jobs.reproduce.tasks import recipe_of, slug
from tercet.language_model import load
from tercet.report import Axis, Panel, Series

TUNED, SCRATCH, MEAN, CLS = "fine-tuned", "scratch", "frozen mean", "frozen [CLS]"
POOLS = {MEAN: "mean", CLS: "first"}


@dataclass(frozen=True)
class Found:
    """Of one body on one task. points: kind -> rows -> accuracy in percent. interval: of the
    fine-tuned ones, by rows. after: of logistic regression on [CLS] of the body fine-tuned on
    all rows."""

    body: str
    task: str
    points: dict[str, dict[int, float]]
    interval: dict[int, tuple[float, float]]
    after: float


def transfer_curves(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """``bodies`` and ``tasks`` by name, and the ``curve`` of each of their pairs."""
    kept = Kept(folder / "pieces.json", say if not quiet else lambda sentence: None)
    found = []
    for name, told in entry["bodies"].items():
        model = body(told, quiet)
        for task in entry["tasks"]:
            found.append(_measured(entry, folder, (name, model, task), kept, quiet))
    rows = [row for one in found for row in _rows(one)]
    pictures = {"transfer-curves": [_panel(one) for one in found]}
    draw(folder, "Transfer by the number of labels", pictures, rows)
    return rows


def _measured(
    entry: dict[str, Any], folder: Path, of: tuple[str, str, str], kept: Kept, quiet: bool
) -> Found:
    name, model, task = of
    tree = {**entry["tasks"][task], "curve": entry["curve"]}
    wanted, place = recipe_of(model, entry, tree, folder), folder / slug(f"{name} {task}")
    if not quiet:
        say(f"{name}, {task}")
    result = finetune(wanted, place, resume=True, quiet=quiet)
    job = Job.of(wanted, place, classify, quiet=True)
    points: dict[str, dict[int, float]] = {TUNED: {}, SCRATCH: {}}
    interval = {}
    for one in result["curve"]["points"]:
        tuned, mean = one["start"] == curves.PRETRAINED, one["mean"]
        points[TUNED if tuned else SCRATCH][one["rows"]] = 100 * mean["accuracy"]
        if tuned:
            interval[one["rows"]] = 100 * mean["low"], 100 * mean["high"]
    sizes = list(interval)
    for kind, pool in POOLS.items():
        said = f"{name}, {task}, {kind}, rows {sizes}"
        each = kept(said, partial(frozen, job, model, pool, sizes))
        points[kind] = {int(size): 100 * accuracy for size, accuracy in each.items()}
    tuned_model = partial(frozen, job, str(place / "model"), "first", sizes[-1:])
    after = kept(f"{name}, {task}, [CLS] after fine-tuning on {sizes[-1]} rows", tuned_model)
    return Found(name, task, points, interval, 100 * after[str(sizes[-1])])


def frozen(job: Job, model: str, pool: str, sizes: list[int]) -> Figures:
    """Number of rows -> test accuracy of logistic regression on the vectors of the rows that the
    curve has learned from."""
    parts = [curves.ordered(job), job.splits.validation, job.splits.test]
    reader = load(model)
    vectors = [reader.embed(list(map(_text, part)), pool=pool) for part in parts]
    labels = [[one.target for one in part] for part in parts]
    train, validation, test = zip(vectors, labels, strict=True)
    return {
        str(size): probe_vectors((train[0][:size], train[1][:size]), validation, test).test.accuracy
        for size in sizes
    }


def _text(example: Example) -> str:
    assert isinstance(example.group, str), "a pair has no vector"
    return example.group


def _rows(found: Found) -> Iterator[Row]:
    points = found.points
    for size, (low, high) in found.interval.items():
        beside = [f"{kind} {points[kind][size]:.1f}" for kind in (SCRATCH, MEAN, CLS)]
        note = f"{low:.1f} to {high:.1f}; {', '.join(beside)}"
        measure = f"{found.task}, {found.body}, {size:,} labels: {TUNED}, %"
        yield Row(measure, points[TUNED][size], None, note)
    before = points[CLS][max(found.interval)]
    note = f"before fine-tuning {before:.1f}"
    measure = f"{found.task}, {found.body}: logistic regression on [CLS] after fine-tuning, %"
    yield Row(measure, found.after, None, note)


def _panel(found: Found) -> Panel:
    series = [
        Series(kind, list(found.points[kind]), list(found.points[kind].values()), points=True)
        for kind in (SCRATCH, MEAN, CLS, TUNED)
    ]
    title = f"{found.task}, {found.body}"
    return Panel(title, series, Axis("labels", log=True), Axis("test accuracy, %"))

"""The label curve: the same fine-tuning on fewer of the training rows, beside that on all.

Each point is a run as any other, in a folder of its own, and goes on as it does; no model of it is
kept. The smaller parts stand in the larger ones, with each label as often as in all the rows, and
all are measured on the same validation and test rows.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from tercet.data.order import permutation
from tercet.errors import InputError
from tercet.jobs.finetune import CURVE
from tercet.jobs.finetune.settings import Curve, FinetuneRecipe
from tercet.jobs.flags import say

if TYPE_CHECKING:
    from tercet.jobs.finetune.job import Job

PRETRAINED, SCRATCH = "pretrained", "from scratch"
SEED = 0  # of the order: the same for every seed of a job, so that their figures compare
Parts = dict[int, Sequence[Any]]  # by their size


def parts(job: Job) -> Parts:
    """The training examples of each size, none where no curve is wanted. Raises InputError for a
    size that is no part."""
    wanted, rows = job.recipe.curve.sizes, job.splits.train
    for size in wanted:
        if size >= len(rows):
            raise InputError(
                f"curve.sizes {size:,}: there are {len(rows):,} rows to learn from; name smaller "
                "numbers, all rows are measured anyway"
            )
    found = ordered(job) if wanted else []
    return {size: found[:size] for size in wanted}


def ordered(job: Job) -> list[Any]:
    """The training examples in the order of the curve: each size is its first ones."""
    rows = job.splits.train
    return [rows[i] for i in order([_label(one) for one in rows])]


def order(labels: Sequence[Hashable]) -> list[int]:
    """The numbers of the examples in a drawn order, of which any first so many have each label
    nearly as often as all have: the k-th of the n with a label stands at (k + 1/2) / n."""
    drawn = permutation(SEED, 0, len(labels)).tolist()
    numbers: dict[Hashable, list[int]] = defaultdict(list)
    for i in drawn:
        numbers[labels[i]].append(i)
    places = {i: (k + 0.5) / len(same) for same in numbers.values() for k, i in enumerate(same)}
    return sorted(drawn, key=lambda i: places[i])  # of equals the first drawn


def _label(example: Any) -> Hashable:
    """One name of several; numbers, sentences of tags and the like are all of one kind."""
    target = getattr(example, "target", None)
    return target if isinstance(target, int) else None


def measured(job: Job, parts: Parts, whole: dict[str, Any]) -> dict[str, Any]:
    """The points of the curve, smaller ones first; ``whole``: what result.json says of all rows."""
    split = "validation" if whole["test"] is None else "test"
    n = len(job.splits.train)
    everything = {**parts, n: job.splits.train}
    points = []
    for start in (PRETRAINED, SCRATCH) if job.recipe.curve.scratch else (PRETRAINED,):
        for size, examples in everything.items():
            if start == PRETRAINED and size == n:
                found, runs = whole[split], whole["runs"].values()
            else:
                found, runs = _point(job, examples, start, split)
            steps = max(one["step"] for one in runs)
            points.append({"rows": size, "start": start, "steps": steps, **found})
    return {"of": asdict(job.recipe.curve), "split": split, "points": points}


def _point(
    job: Job, examples: Sequence[Any], start: str, split: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What came of the examples, as result.json says it of a split, and of each run."""
    from tercet.jobs.finetune.job import together

    name = f"{len(examples)} rows, {start}"
    if not job.quiet:
        say(name)
    done = replace(
        job,
        recipe=_recipe(job, examples, start),
        folder=job.folder / CURVE / name.replace(", ", "-").replace(" ", "-"),
        splits=replace(job.splits, train=examples),
    ).fitted(kept=False)
    scores = {name: getattr(one, split) for name, one in done.items()}
    return together(scores), [asdict(one) for one in done.values()]


def _recipe(job: Job, examples: Sequence[Any], start: str) -> FinetuneRecipe:
    """With more epochs where those of the recipe are fewer steps than ``curve.steps``; measured as
    often as the run on all rows."""

    def steps_per_epoch(rows: Sequence[Any]) -> float:
        return job.task.stream(rows, job.recipe.seed).draw.steps_per_epoch

    train, own = job.recipe.train, steps_per_epoch(examples)
    least = min(job.recipe.curve.steps, train.epochs * steps_per_epoch(job.splits.train))
    epochs = max(train.epochs, math.ceil(least / own))
    every = math.ceil(round(epochs * own) / train.epochs)
    return replace(
        job.recipe,
        train=replace(train, epochs=epochs, scratch=start == SCRATCH),
        curve=Curve(),
        evaluate=replace(job.recipe.evaluate, every=every),
    )

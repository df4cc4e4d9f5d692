"""tercet runs: what runs there are, how far each is, and what two of them did differently.

Reads the recipe, the log, the result and the lock of a run folder, and nothing else: no weights and
no torch, so that it answers at once, while a run is working too.
"""

from __future__ import annotations

import dataclasses
import json as jsons
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.files import holder
from tercet.jobs import finetune as finetuning
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.flags import aligned, print_json, say
from tercet.jobs.train.settings import RunRecipe
from tercet.train.log import last_rows, rows
from tercet.train.progress import clock

RECENT = 20  # steps that the shown loss is the mean of
WIDEST = 40  # letters of a recipe's value in the comparison; --json has all of it


def run(
    folders: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="FOLDER...", help_behavior_hint="")
    ] = (),
    *,
    json: bool = False,
) -> None:
    """List the runs below a folder, or compare two and more.

    The loss is the mean of the last 20 steps; the time is that spent in training steps. Two or more
    run folders are set side by side, with the keys of their recipes that differ.

      tercet runs runs/first runs/second

    Args:
        folders: where to look, runs/ if not given; or run folders to compare
        json: an object a run
    """
    compared = len(folders) > 1 and all(map(is_run, folders))
    found = (
        []
        if compared
        else list(dict.fromkeys(r for f in folders or [Path("runs")] for r in find(f)))
    )
    summaries = list(summarised(folders if compared else found))
    differing = differences([one.recipe for one in summaries]) if compared else {}
    if json:
        for i, one in enumerate(summaries):
            recipe = {key: values[i] for key, values in differing.items()}
            print_json(one.to_dict() | ({"recipe": recipe} if compared else {}))
    elif compared:
        print(comparison(summaries, differing))
    else:
        print(listing(summaries))


# what is known of a run --------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """How far a run is. None: not known yet."""

    run: str
    family: str  # of a fine-tuning: its task
    parameters: int | None
    step: int
    steps: int | None
    tokens: int
    seconds: float  # in training steps
    loss: float | None  # mean of the last steps, nats a target; of rewards it says nothing
    validation: float | None  # the best; of rewards the highest
    best_step: int | None
    state: str  # running, complete, stopped or ended early
    process: str | None  # that works on it
    reason: str | None  # why it ended early
    recipe: Any = field(repr=False)  # a RunRecipe or a FinetuneRecipe

    @property
    def tokens_per_second(self) -> float | None:
        return self.tokens / self.seconds if self.seconds else None

    @property
    def said(self) -> str:
        """The state in words."""
        more = f" (process {self.process})" if self.process else ""
        return self.state + (f": {self.reason}" if self.reason else more)

    def to_dict(self) -> dict[str, Any]:
        facts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del facts["recipe"]
        return facts | {"tokens_per_second": self.tokens_per_second}


def is_run(folder: Path) -> bool:
    return (folder / recipes.RECIPE).is_file()


def find(folder: Path) -> list[Path]:
    """The run folders in and below ``folder``, in order. Raises InputError where there are none."""
    found = []
    for place, below, files in os.walk(folder):
        below.sort()
        if recipes.RECIPE in files:
            found.append(Path(place))
            below.clear()  # a run holds no runs, but many files
    if not found:
        raise InputError(f"{folder}: holds no run; tercet train makes one, or name another FOLDER")
    return found


def summarised(folders: Sequence[Path]) -> Iterator[Summary]:
    """Each run that can be read; a sentence about any other."""
    for folder in folders:
        try:
            yield summary(folder)
        except InputError as error:
            say(f"{folder} is left out: {error}")


def summary(folder: Path) -> Summary:
    """What the folder of a run tells. Raises InputError where it holds none or is damaged."""
    if not is_run(folder):
        raise InputError(f"{folder} holds no run (no recipe.yaml); tercet runs lists them")
    path = folder / recipes.RECIPE
    if finetuning.is_finetuning(path):
        return _of_finetuning(folder, finetuning.opened(path))
    recipe = recipes.load(str(path))
    log = folder / recipes.LOG
    last = last_rows(log, "step", RECENT)
    now = last[-1] if last else {}
    losses = [loss for row in last if math.isfinite(loss := float(row["loss"]))]
    begun = next(rows(log, "event"), {})
    planned = [row["steps"] for row in rows(log, "plan")]
    evaluations = [(float(row["loss"]), row["step"]) for row in rows(log, "evaluation")]
    best = min(evaluations, key=lambda one: (math.isnan(one[0]), one), default=(None, None))
    rewards = recipe.objective.rewards  # whose loss is minus the reward
    process, ended = holder(folder), result(folder)
    reason = ended.get("stopped")
    ending = ("ended early" if reason else "complete") if ended else "stopped"
    return Summary(
        run=str(folder),
        family=recipes.family(recipe),
        parameters=begun.get("parameters"),
        step=now.get("step", 0),
        steps=planned[-1] if planned else recipe.train.steps,
        tokens=now.get("tokens", 0),
        seconds=now.get("seconds", 0.0),
        loss=sum(losses) / len(losses) if losses and not rewards else None,
        validation=0.0 - best[0] if rewards and best[0] is not None else best[0],
        best_step=best[1],
        state="running" if process else ending,
        process=process,
        reason=None if process else reason,
        recipe=recipe,
    )


def _of_finetuning(folder: Path, recipe: FinetuneRecipe) -> Summary:
    """All seeds or folds together; the metric that the best is chosen by stands for the loss of a
    validation split, and the loss is that of the run that came last."""
    found = folder.rglob(recipes.LOG)
    logs = [log for log in found if log.relative_to(folder).parts[0] != finetuning.CURVE]
    logs.sort(key=lambda log: log.stat().st_mtime)
    last = [last_rows(log, "step", RECENT) for log in logs]
    ends = [found[-1] for found in last if found]
    begun = [next(rows(log, "event"), {}) for log in logs]
    # a ladder's rungs are compared by what result.json holds
    told = logs if recipe.ladder is None else []
    evaluations = [row for log in told for row in rows(log, "evaluation")]
    best = max(evaluations, key=lambda row: row[row["chosen_by"]], default=None)
    losses = [float(row["loss"]) for row in (last[-1] if last else [])]
    process, ended = holder(folder), (folder / recipes.RESULT).exists()
    runs = recipe.folds or recipe.seeds
    return Summary(
        run=str(folder),
        family=recipe.task,
        parameters=begun[0].get("parameters") if begun else None,
        step=sum(row["step"] for row in ends),
        steps=runs * begun[0]["steps"] if begun and recipe.ladder is None else None,
        tokens=sum(row["tokens"] for row in ends),
        seconds=sum(row["seconds"] for row in ends),
        loss=sum(losses) / len(losses) if losses else None,
        validation=None if best is None else best[best["chosen_by"]],
        best_step=None if best is None else best["step"],
        state="running" if process else "complete" if ended else "stopped",
        process=process,
        reason=None,
        recipe=recipe,
    )


def result(folder: Path) -> dict[str, Any]:
    """How the run ended; empty while it has not."""
    path = folder / recipes.RESULT
    try:
        return jsons.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(
            f"{path}: damaged ({error}); go on with --resume to write it anew"
        ) from None


def differences(several: Sequence[RunRecipe | FinetuneRecipe]) -> dict[str, list[Any]]:
    """The keys that are not the same in all recipes, with the value in each."""
    flat = [recipes.flat(recipe) for recipe in several]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = {key: [one.get(key) for one in flat] for key in keys}
    return {key: values for key, values in found.items() if any(v != values[0] for v in values)}


# as text -----------------------------------------------------------------------------------------


def facts(one: Summary) -> dict[str, str]:
    """The columns of the list, which are the rows of the comparison."""
    speed = one.tokens_per_second
    return {
        "family": one.family,
        "parameters": "–" if one.parameters is None else short(one.parameters),
        "step": f"{one.step:,} of {'?' if one.steps is None else f'{one.steps:,}'}",
        "tokens": short(one.tokens),
        "tokens/s": "–" if speed is None else f"{speed:,.0f}",
        "time": clock(one.seconds),
        "loss": "–" if one.loss is None else f"{one.loss:.4f}",
        "validation": "–"
        if one.validation is None
        else f"{one.validation:.4f} at {one.best_step:,}",
        "state": one.said,
    }


def listing(summaries: Sequence[Summary]) -> str:
    """A line a run."""
    header = ["run", *(facts(summaries[0]) if summaries else [])]
    return aligned([header, *([one.run, *facts(one).values()] for one in summaries)])


def comparison(summaries: Sequence[Summary], differing: dict[str, list[Any]]) -> str:
    """A column a run: first what their recipes say differently, then what came of it."""
    lines = [["", *(one.run for one in summaries)]]
    lines += [[key, *map(written, values)] for key, values in differing.items()]
    if not differing:
        lines.append(["the same recipe", *("" for _ in summaries)])
    columns = [facts(one) for one in summaries]
    lines += [[name, *(column[name] for column in columns)] for name in columns[0]]
    return aligned(lines)


def written(value: Any) -> str:
    """A recipe's value in a line."""
    text = "–" if value is None else jsons.dumps(value, ensure_ascii=False)
    text = value if isinstance(value, str) and "\n" not in value else text
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def short(count: int) -> str:
    """12345678 -> "12.3 M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return str(count)

"""What the ladder is worth where labels are few: is its choice as good as the best of its rungs?

So many texts of each label are drawn from a training file, and all rungs climbed, those too that
the ladder would have left out; the test file tells how good each is. Beside them the few-shot rung
alone, over several draws.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tercet.data.order import permutation
from tercet.files import written
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import finetune
from tercet.jobs.finetune.classify import ClassifyTask, classify
from tercet.jobs.finetune.job import Job
from tercet.jobs.finetune.rungs import FEW_SHOT, Rungs
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.flags import say
from tercet.jobs.reproduce.bodies import body
from tercet.jobs.reproduce.kept import Figures, Kept
from tercet.jobs.reproduce.made import columns
from tercet.jobs.reproduce.table import Row


def ladder(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """A row for each set and number of labels, and one for the draws of the few-shot rung."""
    kept = Kept(folder / "pieces.json", say if not quiet else lambda sentence: None)
    pieces, rows = Pieces(entry, folder, quiet), []
    for name in entry["sets"]:
        for labels in entry["labels"]:
            piece = f"{name}, {labels} a label"
            rows.append(_row(piece, kept(piece, partial(pieces.climbed, name, labels))))
    few = entry["few_shot"]
    draws = [
        kept(f"{few['name']}, {few['labels']} a label, draw {draw}", partial(pieces.drawn, draw))
        for draw in range(few["draws"])
    ]
    return [*rows, _of_draws(few, draws)]


@dataclass(frozen=True)
class Pieces:
    """The pieces of the measurement, minutes each."""

    entry: dict[str, Any]
    folder: Path
    quiet: bool

    def climbed(self, name: str, labels: int) -> Figures:
        """All rungs on so many texts a label. Goes on where it was interrupted."""
        place = self.folder / f"{name}-{labels}".lower().replace(" ", "-")
        wanted = self._recipe(self.entry["sets"][name], labels, 0, place)
        result = finetune(wanted, place / "run", resume=True, quiet=self.quiet)
        told = result["ladder"]
        rungs = {one["name"]: one["test"]["figures"] for one in told["rungs"]}
        figures = ("accuracy", "low", "high")
        return {
            "chosen": result["best"],
            "reason": told["reason"],
            "test": {rung: {key: one[key] for key in figures} for rung, one in rungs.items()},
            told["how"]: {
                one["name"]: one["validation"]["figures"]["accuracy"] for one in told["rungs"]
            },
            "seconds": {one["name"]: round(one["seconds"], 1) for one in told["rungs"]},
        }

    def drawn(self, draw: int) -> Figures:
        """Test accuracy of the few-shot rung on one draw of texts."""
        few = self.entry["few_shot"]
        with TemporaryDirectory(dir=self.folder) as place:
            wanted = self._recipe(few, few["labels"], draw, Path(place))
            job = Job.of(wanted, Path(place), classify, quiet=True)
            assert isinstance(job.task, ClassifyTask)
            rungs = Rungs(job.task, wanted, job.splits.train, quiet=self.quiet)
            found: Figures = {}

            def keep(network: Any) -> None:
                found[FEW_SHOT] = job.task.scores(network, job.splits.test).figures["accuracy"]

            rungs.learn(FEW_SHOT, range(len(job.splits.train)), Path(place) / FEW_SHOT, keep)
        return found

    def _recipe(self, files: dict[str, Any], labels: int, seed: int, place: Path) -> FinetuneRecipe:
        """With the drawn texts and the test texts as tables of their own."""
        train = drawn(_texts(files["train"], files), labels, seed)
        parts = {"train": train, "test": _texts(files["test"], files)}
        for name, rows in parts.items():
            with written(place / f"{name}.jsonl") as draft:
                lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
                draft.write_text("".join(lines), encoding="utf-8")
        tree: dict[str, Any] = {
            "model": body(self.entry["body"], self.quiet),
            "task": "classify",
            "data": {name: [str(place / f"{name}.jsonl")] for name in parts},
            "classify": {"kind": "label"},
            **self.entry.get("settings", {}),
        }
        tree["ladder"] = {"all": True, **tree.get("ladder", {})}
        return recipes.built(FinetuneRecipe, tree, "ladder")


def drawn(rows: Sequence[dict[str, str]], labels: int, seed: int) -> list[dict[str, str]]:
    """``labels`` rows of each label, or all of one that has fewer, in a drawn order."""
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for i in permutation(seed, 0, len(rows)).tolist():
        if len(found[rows[i]["label"]]) < labels:
            found[rows[i]["label"]].append(rows[i])
    return [row for label in sorted(found) for row in found[label]]


def _texts(file: str | dict[str, Any], files: dict[str, Any]) -> list[dict[str, str]]:
    """Text and label of each row: of the set's columns, or as a file's own words say it."""
    said = {"text": "text", "label": "label", **files.get("columns", {})}
    source = file if isinstance(file, dict) else {"file": file, "make": said}
    make = {new: [old] if isinstance(old, str) else old for new, old in source["make"].items()}
    (name,) = recipes.expanded([source["file"]])
    return list(columns(name, source | {"make": make}))


def _row(piece: str, found: Figures) -> Row:
    """The choice's test accuracy in percent, and how it stands to the best rung's interval."""
    tests = found["test"]
    best = max(tests, key=lambda rung: tests[rung]["accuracy"])
    chosen, low, high = tests[found["chosen"]]["accuracy"], tests[best]["low"], tests[best]["high"]
    each = ", ".join(f"{rung} {100 * one['accuracy']:.1f}" for rung, one in tests.items())
    inside = "within" if low <= chosen <= high else "NOT within"
    note = f"{found['chosen']}, {inside} {100 * low:.1f} to {100 * high:.1f} of {best} ({each})"
    return Row(f"{piece}: the choice's test accuracy, %", 100 * chosen, None, note)


def _of_draws(few: dict[str, Any], draws: list[Figures]) -> Row:
    each = [100 * one[FEW_SHOT] for one in draws]
    spread = statistics.stdev(each) if len(each) > 1 else 0.0
    note = f"± {spread:.1f} over {len(each)} draws, {min(each):.1f} to {max(each):.1f}"
    measure = f"{few['name']}, {few['labels']} a label, {FEW_SHOT}: test accuracy, %"
    return Row(measure, statistics.fmean(each), None, note)

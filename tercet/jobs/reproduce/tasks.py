"""Real tasks, each fine-tuned by the public job in its own folder, beside what was aimed at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import finetune
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.flags import say
from tercet.jobs.reproduce.bodies import body
from tercet.jobs.reproduce.made import make
from tercet.jobs.reproduce.table import Row
from tercet.train.progress import clock


def tasks(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """``tasks``: name -> a recipe of `tercet finetune` without its model, the test's ``figures``
    that are reported, what the first of them should reach (``aim``), all times 100, and the
    ``minutes`` that one thread takes, for people. ``before``: such a recipe that the body learns
    from first (Phang et al. 2018, Sentence Encoders on STILTs)."""
    pretrained, rows = body(entry["body"], quiet), []
    for name, told in entry["tasks"].items():
        if not quiet:
            minutes = told.get("minutes")
            say(name if minutes is None else f"{name}: about {minutes} minutes on one thread")
        model = pretrained
        if "before" in told:
            place = folder / "before" / slug(name)
            first = recipe_of(model, entry, told["before"], folder)
            finetune(first, place, resume=True, quiet=quiet)
            model = str(place / "model")
        wanted = recipe_of(model, entry, told["recipe"], folder)
        result = finetune(wanted, folder / wanted.task / slug(name), resume=True, quiet=quiet)
        rows += _rows(name, told, result)
    return rows


def recipe_of(
    model: str, entry: dict[str, Any], tree: dict[str, Any], folder: Path
) -> FinetuneRecipe:
    """A recipe of an entry, its model filled in, what all share (``train``) beside its own, and
    the ``tables`` that are made of other files in the place of their names."""
    data = dict(tree["data"])
    for split in ("train", "validation", "test"):
        if isinstance(data.get(split), list):
            data[split] = [_file(file, entry.get("tables", {}), folder) for file in data[split]]
    train = {**entry.get("train", {}), **tree.get("train", {})}
    whole = {"task": "classify", **tree, "model": model, "data": data, "train": train}
    return recipes.built(FinetuneRecipe, whole, "the experiment")


def slug(name: str) -> str:
    """A name as a folder's."""
    return "-".join(re.findall(r"\w+", name.lower()))


def _file(name: str, tables: dict[str, Any], folder: Path) -> str:
    return make(folder / f"{name}.jsonl", tables[name]) if name in tables else name


def _rows(name: str, told: dict[str, Any], result: dict[str, Any]) -> list[Row]:
    test, rows = result["test"], []
    each = f"{clock(result['seconds'])} of training steps"
    for figure in told["figures"]:
        aim = told.get("aim") if figure == told["figures"][0] else None
        mean = 100 * test["mean"][figure]
        several = [f"{100 * run[figure]:.1f}" for run in test["runs"].values()]
        note = f"seeds {', '.join(several)}; {each}" if len(several) > 1 else each
        if aim is not None:
            note = f"{'reached' if mean >= aim else 'NOT reached'}; {note}"
        rows.append(Row(f"{name}, {test['n']:,} examples: {figure}", mean, aim, note))
    return rows

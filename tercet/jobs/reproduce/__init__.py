"""tercet reproduce NAME: train, measure with the published metric, print ours beside theirs.

What is reproduced is data: recipes/reproduce.yaml names the kind of experiment, its recipes, and
the published figures. An experiment is a function here that returns rows.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import yaml
from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.files import locked
from tercet.jobs.checks import nearest
from tercet.jobs.flags import print_json, unset
from tercet.jobs.recipe import SHIPPED
from tercet.jobs.reproduce.table import keep, table

EXPERIMENTS = {  # kind -> the function: (entry, folder, quiet) -> rows
    "validation-loss": "tercet.jobs.reproduce.language:validation_loss",
    "language-model": "tercet.jobs.reproduce.language:language_model",
    "growth": "tercet.jobs.reproduce.growth:growth",
    "recurrent": "tercet.jobs.reproduce.recurrent:recurrent",
    "translation": "tercet.jobs.reproduce.translation:translation",
    "transfer": "tercet.jobs.reproduce.transfer:transfer",
    "transfer-curves": "tercet.jobs.reproduce.curves:transfer_curves",
    "tasks": "tercet.jobs.reproduce.tasks:tasks",
    "contrastive": "tercet.jobs.reproduce.contrastive:contrastive",
    "two-kinds": "tercet.jobs.reproduce.kinds:two_kinds",
    "ladder": "tercet.jobs.reproduce.ladder:ladder",
    "addition": "tercet.jobs.reproduce.addition:addition",
    "recovery": "tercet.jobs.reproduce.recovery:recovery",
    "instruct": "tercet.jobs.reproduce.instruct:instruct",
}


def run(
    name: Annotated[Positional[str | None], unset("NAME")] = None,
    *,
    task: Annotated[tuple[str, ...], arg(metavar="TASK...")] = (),
    folder: Annotated[Path | None, unset("FOLDER")] = None,
    json: Annotated[bool, arg()] = False,
    quiet: bool = False,
) -> None:
    """Train by a shipped recipe, measure, and print our figures beside the published ones.

    Without a name: what there is. An interrupted one goes on with the same command.
    Example: tercet reproduce shakespeare-char

    Args:
        name: which one.
        task: of one with several tasks, these alone; the whole goes on from there.
        folder: where it is written; runs/reproduce/NAME if not given.
        json: one object a row.
        quiet: no progress.
    """
    known = entries()
    if name is None and task:
        raise InputError("--task wants the NAME of an experiment before it")
    if name is None:
        for one, entry in known.items():
            print(f"{one:20}{entry['about']}")
        return
    if name not in known:
        raise InputError(
            f"there is nothing to reproduce called {name!r}{nearest(name, list(known))}"
        )
    place, entry = folder or Path("runs") / "reproduce" / name, _with(known[name], task)
    with locked(place):
        rows = reproduce(entry, place, quiet=quiet)
        if not task:
            keep(place, entry, rows)
    for row in rows if json else ():
        print_json(row.plain())
    if not json:
        print(table(rows))


def _with(entry: dict[str, Any], task: tuple[str, ...]) -> dict[str, Any]:
    """The entry, with these of its tasks."""
    whole = entry.get("tasks", {})
    for one in task:
        if one not in whole:
            there = f"it has {', '.join(map(repr, whole))}" if whole else "it has none"
            raise InputError(f"the experiment has no task {one!r}; {there}")
    return entry | {"tasks": {one: whole[one] for one in task}} if task else entry


def entries() -> dict[str, dict[str, Any]]:
    """Name -> what recipes/reproduce.yaml says of it."""
    return yaml.safe_load((SHIPPED / "reproduce.yaml").read_text(encoding="utf-8"))


def reproduce(entry: dict[str, Any], folder: Path, *, quiet: bool = True) -> list[Any]:
    """The rows of an experiment."""
    module, _, function = EXPERIMENTS[entry["kind"]].partition(":")
    return getattr(import_module(module), function)(entry, folder, quiet)

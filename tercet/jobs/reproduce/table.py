"""A measured figure beside a published one, and the run that an experiment stands on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import InputError
from tercet.files import written
from tercet.jobs import recipe as recipes
from tercet.jobs.train.settings import RunRecipe

if TYPE_CHECKING:
    from tercet.jobs.train.run import Run

GROUND = "ground.json"  # in the folder of a run that goes on from a model


@dataclass(frozen=True)
class Row:
    """What was measured, ours, theirs (None: nobody has published it), and how it was measured."""

    measure: str
    ours: float | str
    theirs: float | str | None = None
    note: str = ""  # the metric's signature, the seconds, whose figure theirs is

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def table(rows: Sequence[Row]) -> str:
    cells = [("measure", "ours", "theirs", ""), *map(_cells, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    return "\n".join(
        f"{row[0]:{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in cells
    )


def _cells(row: Row) -> tuple[str, str, str, str]:
    return row.measure, shown(row.ours), shown(row.theirs), row.note


def shown(value: float | str | None) -> str:
    """A figure for reading: four digits, more only where they stand before the point."""
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"
    return "–" if value is None else str(value)


def keep(folder: Path, entry: dict[str, Any], rows: Sequence[Row]) -> None:
    """The rows beside what they were measured on."""
    with written(folder / "reproduced.json") as draft:
        kept = {"entry": entry, "rows": [row.plain() for row in rows]}
        draft.write_text(json.dumps(kept, indent=1, ensure_ascii=False), encoding="utf-8")


def trained(
    recipe: str | RunRecipe, folder: Path, *, quiet: bool, changes: Sequence[str] = ()
) -> tuple[Run, dict[str, Any]]:
    """The finished run of a recipe in a folder (trained now, or gone on with, or found whole), and
    its result.json. Raises InputError where it goes on from a model, and that or its files are
    others than those it was begun with."""
    from tercet.jobs.train.job import train
    from tercet.jobs.train.run import Run

    wanted = recipes.load(recipe, changes) if isinstance(recipe, str) else recipe
    if wanted.model.folder is not None:
        _stand(folder, _ground(wanted))
    train(wanted, folder, resume=True, quiet=quiet)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return Run.open(folder), result


def _ground(recipe: RunRecipe) -> dict[str, Any]:
    """What decides a run beside its recipe: its first model, and the contents of its files."""
    from tercet.data.items import checksum_of
    from tercet.data.sources import found
    from tercet.language_model import load
    from tercet.language_model.identity import fingerprint

    ground: dict[str, Any] = {"model.folder": fingerprint(load(str(recipe.model.folder)))}
    for name, data in recipe.data.items():
        named = [*data.files, *(data.validation if isinstance(data.validation, list) else ())]
        files = found(recipes.expanded(named), also=(".json",))
        ground[f"data.{name}"] = [checksum_of(file) for file in files]
    return ground


def _stand(folder: Path, ground: dict[str, Any]) -> None:
    """Writes down what a run stands on, where it is begun; holds it to that where it was."""
    from tercet.jobs.train.job import BEGUN

    path = folder / GROUND
    if path.exists() and any((folder / name).exists() for name in BEGUN):
        before = json.loads(path.read_text(encoding="utf-8"))
        if changed := [name for name, seal in ground.items() if before.get(name) != seal]:
            raise InputError(
                f"{folder} was begun with other contents of {', '.join(changed)}; remove it, or "
                "choose another --folder"
            )
    with written(path) as draft:
        draft.write_text(json.dumps(ground, indent=1), encoding="utf-8")

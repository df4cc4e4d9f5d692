"""Rows for a task: which column is which part of an example, named by the user or by its name.

Knows no task: a task says which parts it wants and how their columns are usually called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tercet.data.sources import Tally, found, nearest
from tercet.data.tables import Row, rows
from tercet.errors import InputError
from tercet.jobs import recipe as recipes

FLAGS = {part: f"--{part} " for part in ("text", "pair", "label")}  # of tercet finetune


@dataclass(frozen=True)
class Part:
    """A part of an example. usual: how its column is called, the likeliest first. needed: whether
    there must be one."""

    name: str
    usual: tuple[str, ...]
    needed: bool = True


@dataclass(frozen=True)
class Table:
    """The rows of some files with their parts by name, and where each stands."""

    columns: dict[str, str]  # part -> column
    guessed: tuple[str, ...]  # parts that nobody named
    rows: list[tuple[str, Row]]  # "train.csv, row 3" and its parts

    @property
    def sentence(self) -> str:
        said = ", ".join(f"{part} from column {name!r}" for part, name in self.columns.items())
        return f"{said}{' (by their names)' if self.guessed else ''}"


def read_table(files: Sequence[str], parts: Sequence[Part], named: Mapping[str, str]) -> Table:
    """All rows of the files. Raises InputError for a part that does not exist, with those that do;
    for a column that does not, with the nearest name; and where a part's column is neither named
    nor to be guessed."""
    known = [part.name for part in parts]
    for name, column in named.items():
        if name not in known:
            keys = " or ".join(f"--set data.columns.{part}={column}" for part in known)
            raise InputError(f"data.columns.{name} is no part of these examples; write {keys}")
    numbered = [name for name in named.values() if name.isdigit()]
    wanted = list(named.values()) if len(numbered) == len(named) else []
    columns: dict[str, str] = {}
    read: list[tuple[str, Row]] = []
    for file in found(recipes.expanded(files)):
        for number, row in rows(file, wanted, Tally()):
            where = f"{file}, row {number}"
            columns = columns or chosen(list(row), parts, named, where)
            for column in columns.values():
                if column not in row:
                    raise InputError(
                        f"{where}: has no column {column!r}; {nearest(column, list(row))}"
                    )
            read.append((where, {part: row[column] for part, column in columns.items()}))
    if not read:
        raise InputError(f"{', '.join(files)}: holds no rows")
    return Table(columns, tuple(part for part in columns if part not in named), read)


def chosen(
    names: Sequence[str], parts: Sequence[Part], named: Mapping[str, str], where: str
) -> dict[str, str]:
    """The column of each part: as named, else one that is called as usual, else the only one left
    for the only part that is still needed."""
    for part, column in named.items():
        if column not in names:
            raise InputError(
                f"{where}: has no column {column!r} for the {part}; {nearest(column, names)}"
            )
    columns = dict(named)
    lowered = {name.lower(): name for name in reversed(names)}
    for part in parts:
        if part.name not in columns:
            usual = next((lowered[one] for one in part.usual if one in lowered), None)
            if usual is not None and usual not in columns.values():
                columns[part.name] = usual
    missing = [part for part in parts if part.needed and part.name not in columns]
    left = [name for name in names if name not in columns.values()]
    if len(missing) == len(left) == 1:
        columns[missing[0].name] = left[0]
        missing = []
    if missing:
        part = missing[0].name
        raise InputError(
            f"{where}: which column is the {part}? There are {', '.join(map(repr, names))}; name "
            f"it with {FLAGS.get(part, f'--set data.columns.{part}=')}NAME"
        )
    return {part.name: columns[part.name] for part in parts if part.name in columns}


def empty(value: Any) -> bool:
    """Nothing but blanks."""
    return value is None or (isinstance(value, str) and not value.strip())

"""What a run writes down as it goes: a JSON line for every step, evaluation, sample and event.

A line is flushed when it is written, so a killed process has lost none; a run that goes on from a
checkpoint first drops the lines of the steps that it will take again.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tercet.errors import InputError
from tercet.files import written

Row = dict[str, Any]


def rows(path: Path, kind: str | None = None) -> Iterator[Row]:
    """The lines of a log, of one kind; a last line that was cut by a crash is left out."""
    for line in _lines(path, kind):
        yield from _read(line)


def last_rows(path: Path, kind: str, count: int) -> list[Row]:
    """The last so many lines of a kind, without the work of reading those before."""
    lines = deque(_lines(path, kind), maxlen=count + 1)  # one may be cut
    return [row for line in lines for row in _read(line)][-count:]


def _lines(path: Path, kind: str | None) -> Iterator[str]:
    sign = "" if kind is None else f'"kind": "{kind}"'  # cannot stand in a text: quotes are escaped
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line for line in file if sign in line)


def _read(line: str) -> list[Row]:
    """The row of a line; none of one that was cut."""
    try:
        return [json.loads(line)]
    except ValueError:
        return []


class Log:
    """Appends to ``path``; ``board``: TensorBoard's writer, which gets the numbers too."""

    def __init__(self, path: Path, *, step: int = 0, board: Any = None) -> None:
        kept = [row for row in rows(path) if row["step"] <= step or row["kind"] == "plan"]
        with written(path) as draft:
            draft.write_text("".join(map(_line, kept)), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._board = board

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # a full disk was said already
            self._file.close()
        if self._board is not None:
            self._board.close()

    def __call__(self, kind: str, step: int, **facts: Any) -> None:
        try:
            self._file.write(_line({"kind": kind, "step": step, **facts}))
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"{self._file.name}: cannot be written ({error.strerror}) at step {step}; the last "
                "checkpoint is whole: free some space and go on with --resume"
            ) from error
        if self._board is None:
            return
        for name, value in facts.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)
            elif isinstance(value, str):
                self._board.add_text(f"{kind}/{name}", value, step)


def _line(row: Row) -> str:
    """Numbers that JSON has no word for are written as text: nan must not be lost or hidden."""
    plain = {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
    return json.dumps(plain, ensure_ascii=False) + "\n"

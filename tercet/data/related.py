"""Rows of texts that belong together, out of tables and retrieval folders. Texts alone: no tokens.

A row is a pair that should be near, with a text that should be far where a column has one; two
texts and how alike people call them; or a text by itself, which is its own partner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tercet.data.sources import Names, Tally, found
from tercet.data.tables import Row, rows, text_of
from tercet.errors import InputError

EMPTY, TWICE = "empty", "there already"


@dataclass(frozen=True)
class Related:
    """texts: the first, its partner, and texts that are none. score: how alike the two are."""

    texts: tuple[str, ...]
    score: float | None = None


def related_pairs(
    files: Names, columns: Sequence[str], *, tally: Tally | None = None
) -> list[Related]:
    """Pairs (anchor, positive), or with a third column (anchor, positive, negative); an empty
    negative is none. Rows with an empty side, and rows that stood there before, are left out and
    counted in the tally. Raises InputError as ``rows`` does, and where nothing is left."""
    tally = tally or Tally()
    found_rows = [
        Related(texts[:2] + tuple(text for text in texts[2:] if text.strip()))
        for _, texts, _ in _texts(files, columns, (), tally)
    ]
    return _kept(found_rows, files, tally)


def scored_pairs(
    files: Names, columns: Sequence[str], score: str, *, tally: Tally | None = None
) -> list[Related]:
    """Pairs with a score. Raises InputError for a score that is no finite number, with its row,
    and where all of them are equal."""
    tally = tally or Tally()
    found_rows = [
        Related(texts, number_of(row[score], score, where))
        for where, texts, row in _texts(files, columns, (score,), tally)
    ]
    kept = _kept(found_rows, files, tally)
    if len({row.score for row in kept}) < 2:
        raise InputError(
            f"{files}: every {score!r} is {kept[0].score:g}; pairs that are all equally alike have "
            "no order to learn: name another column, or train on pairs without scores"
        )
    return kept


def single_texts(files: Names, column: str, *, tally: Tally | None = None) -> list[Related]:
    """Each text as its own partner, to be read under two draws of dropout (SimCSE)."""
    tally = tally or Tally()
    found_rows = [Related(texts * 2) for _, texts, _ in _texts(files, [column], (), tally)]
    return _kept(found_rows, files, tally)


def number_of(found_value: Any, column: str, where: str) -> float:
    try:
        number = float(found_value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or isinstance(found_value, bool):
        raise InputError(
            f"{where}: {column!r} is {found_value!r:.40}, not a finite number; mend the row"
        )
    return number


def _texts(
    files: Names, columns: Sequence[str], more: Sequence[str], tally: Tally
) -> Iterator[tuple[str, tuple[str, ...], Row]]:
    """Where each row stands, its texts (the first two of them not empty), and all its values."""
    for name in found(files):
        with tally.reading(name):
            for number, row in rows(name, [*columns, *more], tally):
                where = f"{name}, row {number}"
                texts = tuple(text_of(row[column], column, where) for column in columns)
                if all(text.strip() for text in texts[:2]):
                    yield where, texts, row
                else:
                    tally.skipped[EMPTY] += 1


def _kept(found_rows: Sequence[Related], files: Names, tally: Tally) -> list[Related]:
    kept = list(dict.fromkeys(found_rows))
    if len(found_rows) > len(kept):
        tally.skipped[TWICE] += len(found_rows) - len(kept)
    if not kept:
        raise InputError(f"{files}: no row has texts on both sides; give texts to learn from")
    return kept

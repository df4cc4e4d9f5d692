"""Rows with named columns: .jsonl, .csv, .tsv, .parquet (each also .gz), hub data sets, and decks.

A row is a dict. Columns are called by name; columns called by number ("1", "2") say that a .csv or
.tsv has no header row. A .tsv is what its name says, values between tabs: quotes are text there.
Knows nothing of what the columns mean.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from tercet.data.sources import HUB, Tally, kind_of, nearest
from tercet.errors import InputError, require
from tercet.text.read import blocks

Row = dict[str, Any]
LONGEST_VALUE = 1 << 30  # characters of a .csv value; the library's own limit is 131,072


def rows(name: str, columns: Sequence[str], tally: Tally) -> Iterator[tuple[int, Row]]:
    """Each row of a source with its number from 1; only `columns`, in that order, if some are
    named.

    .jsonl, .csv and .tsv hold a row in memory, .parquet a thousand; `.parquet.gz` is unpacked into
    a temporary file. A hub data set is streamed, with no copy kept. Raises InputError for rows that
    are damaged or lack a column, with the nearest name.
    """
    kind = kind_of(name)
    if name.startswith(HUB):
        found = enumerate(_of_the_hub(name), 1)
    elif kind == ".jsonl":
        found = _json_lines(name, tally)
    elif kind in (".csv", ".tsv"):
        found = _separated(name, kind, columns, tally)
    elif kind == ".parquet":
        found = enumerate(_parquet(name, tally), 1)
    else:
        found = enumerate(_cards(name, tally), 1)
    if not columns:
        yield from found
        return
    for number, row in found:
        yield number, {column: value(row, column, f"{name}, row {number}") for column in columns}


def value(row: Row, column: str, where: str) -> Any:
    """A row's value. Raises InputError for a column that it lacks."""
    if column not in row:
        raise InputError(f"{where}: has no column {column!r}; {nearest(column, list(row))}")
    return row[column]


def text_of(found: Any, column: str, where: str) -> str:
    """A value that should be a text: "" for null. Raises InputError for anything else."""
    if found is not None and not isinstance(found, str):
        kind = type(found).__name__
        raise InputError(f"{where}: {column!r} is {kind} {found!r:.40}, not a text; name another")
    return found or ""


def lines_of(name: str, tally: Tally) -> Iterator[str]:
    r"""Lines without their ends ("\n" or "\r\n"), telling the tally how far they are."""
    held: list[str] = []
    for block, tally.within in blocks(name):
        first, end, more = block.partition("\n")
        held.append(first)
        if end:
            *whole, last = more.split("\n")
            yield "".join(held).removesuffix("\r")
            for line in whole:
                yield line.removesuffix("\r")
            held = [last]
    if any(held):
        yield "".join(held).removesuffix("\r")


def _json_lines(name: str, tally: Tally) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(lines_of(name, tally), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(
                f"{name}, line {number}: not JSON ({error}); a .jsonl file has an object a line"
            ) from error
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise InputError(f"{name}, line {number}: a {kind}, not an object with columns")
        yield number, row


def _separated(
    name: str, kind: str, columns: Sequence[str], tally: Tally
) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(LONGEST_VALUE)
    lines = (f"{line}\n" for line in lines_of(name, tally))
    first = next(lines, "")
    # Excel writes semicolons where a comma stands in numbers
    comma = ";" if ";" in first and "," not in first else ","
    style: dict[str, Any] = {
        ".csv": {"delimiter": comma},
        ".tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
    }
    reader = csv.reader(chain([first], lines), strict=True, **style[kind])
    header: list[str] | None = None
    number = 0
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                numbered = bool(columns) and all(column.isdigit() for column in columns)
                header = [str(i) if numbered else cell.strip() for i, cell in enumerate(cells, 1)]
                if not numbered:
                    _check_header(header, name)
                    continue
            number += 1
            if len(cells) != len(header):
                raise InputError(
                    f"{name}, line {reader.line_num}: has {len(cells)} columns where the first row"
                    f" has {len(header)}; mend the line"
                )
            yield number, dict(zip(header, cells))
    except csv.Error as error:
        raise InputError(
            f"{name}, line {reader.line_num}: not {kind[1:]} ({error}); mend the line"
        ) from error


def _check_header(header: Sequence[str], name: str) -> None:
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise InputError(
            f"{name}: the header names {', '.join(map(repr, twice))} more than once; rename one, or"
            " call the columns by number if this is no header"
        )


def _parquet(name: str, tally: Tally) -> Iterator[Row]:
    parquet = require("pyarrow.parquet", "data")
    arrow = require("pyarrow", "data")
    try:
        with Path(name).open("rb") as file, tempfile.TemporaryFile() as unpacked:
            file = _unpacked(file, unpacked) if name.lower().endswith(".gz") else file
            table = parquet.ParquetFile(file)
            size, done = Path(name).stat().st_size, 0
            for batch in table.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
                done += len(batch)
                tally.within = size * done // max(1, table.metadata.num_rows)
    except (arrow.ArrowException, gzip.BadGzipFile, EOFError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{name}: not a whole parquet file ({said}); copy it anew") from error


def _unpacked(file: IO[bytes], into: IO[bytes]) -> IO[bytes]:
    with gzip.open(file) as packed:
        shutil.copyfileobj(packed, into, 1 << 20)
    into.seek(0)
    return into


def _of_the_hub(name: str) -> Iterable[Row]:
    """A data set by name: "hub:owner/name", "hub:owner/name/configuration:split" (split: train)."""
    path, _, split = name.removeprefix(HUB).partition(":")
    owner, _, rest = path.partition("/")
    title, *configuration = rest.split("/", 1)
    if not owner or not title:
        raise InputError(f"{name}: not a data set's name; write hub:owner/name")
    datasets = require("datasets", "data")
    try:
        yield from datasets.load_dataset(
            f"{owner}/{title}", *configuration, split=split or "train", streaming=True
        )
    except (OSError, ValueError) as error:  # no such data set, split or configuration; no network
        raise InputError(f"{name}: cannot be read ({' '.join(str(error).split())})") from error


# decks of cards -----------------------------------------------------------------------------------


def _cards(name: str, tally: Tally) -> Iterator[Row]:
    """The cards of a Markdown deck: title, background, question, answer.

    `#### title`, lines of background, `:p question`, `??x`, the answer, `x??`. One title may stand
    above several questions. A question without an answer is skipped and counted. Raises InputError
    for an answer without a question or an end, and for a file without cards.
    """
    card = {"title": "", "background": "", "question": "", "answer": ""}
    part, opened, any_card = "", 0, False
    for number, line in enumerate(lines_of(name, tally), 1):
        if part != "answer" and line.startswith("??x"):
            if part != "question":
                raise InputError(f"{name}, line {number}: ??x without a question; put :p before it")
            part, opened = "answer", number
            card["answer"] = ""
            line = line.removeprefix("??x")
        if part == "answer":
            answer = line.rstrip()
            card["answer"] += answer.removesuffix("x??") + "\n"
            if answer.endswith("x??"):
                yield {key: text.strip() for key, text in card.items()}
                any_card, part = True, ""
            continue
        if part == "question" and line.startswith(("#### ", ":p")):
            tally.skipped["question without an answer"] += 1
        if line.startswith("#### "):
            part = "background"
            card |= {"title": line.removeprefix("#### "), "background": ""}
        elif line.startswith(":p"):
            part = "question"
            card["question"] = f"{line.removeprefix(':p')}\n"
        elif part and line.strip() != "---":
            card[part] += f"{line}\n"
    tally.skipped.update(["question without an answer"] if part == "question" else [])
    if part == "answer":
        raise InputError(f"{name}, line {opened}: this answer has no end; put x?? behind it")
    if not any_card:
        raise InputError(
            f"{name}: holds no cards (:p question, ??x, answer, x??); records come from .jsonl .csv"
            " .tsv .parquet or a deck"
        )

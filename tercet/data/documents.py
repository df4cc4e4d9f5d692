"""Documents, records and pairs of texts, read from files one after another in bounded memory.

`documents` for language modelling, `records` for rows with labels, `text_pairs` for translation.
What a name may be stands in `sources.py`, what a table may be in `tables.py`. Knows no tokens.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import NamedTuple

from tercet.data.sources import Names, Tally, found, is_table
from tercet.data.tables import Row, lines_of, rows, text_of
from tercet.errors import InputError
from tercet.text.read import STDIN, blocks

SPLITS = ("file", "line", "paragraph")
PART = 1 << 18  # characters: a longer document comes in parts
EMPTY = "empty"

# A piece of a file: the title ("" if it has none) where the piece begins a document, else None.
Piece = tuple[str | None, str]


@dataclass(frozen=True)
class Document:
    """A text to learn from, or a part of one.

    source    the file that it stands in
    number    which document of that file, from 1, skipped ones counted: the line, the row ...
    part      0, and 1, 2 ... for what follows of a document longer than `PART`
    title     the title that it was found by, or ""
    """

    text: str
    source: str
    number: int
    part: int = 0
    title: str = ""


def documents(
    files: Names, *, split: str = "file", column: str = "text", tally: Tally | None = None
) -> Iterator[Document]:
    r"""The documents of text files and tables, in order.

    split     how plain text is cut: "file" (a file is one document, to its last blank), "line",
              "paragraph" (blank lines between them), or a regular expression for the line that
              begins a document, matched at the line's start. The line belongs to the document
              ("# " for Markdown), unless the expression has a group that matches, which then is
              the title and no text ("<<<(.*)>>>"). Empty lines at a document's ends are dropped
    column    where a table has its texts; each row is a document
    tally     counts what is skipped (documents of blanks only) and the bytes read

    Line ends come as "\n". A document of more than `PART` characters (262,144) comes in parts with
    the same number, cut at a line's end, or before a space in a line longer than that; joined, they
    are its text. So a file larger than memory can be one document. A row of a table is held whole,
    and so is a line where each is a document.
    Raises InputError for what `found` and `rows` refuse, and for a title that stands nowhere.
    """
    tally = tally or Tally()
    title = None if split in SPLITS else _title(split)
    searched, titles = [], 0
    for name in found(files):
        table = is_table(name)
        pieces = _rows(name, column, tally) if table else _plain(name, split, title, tally)
        searched += [] if table else [name]
        with tally.reading(name):
            for document in _assembled(pieces, name, tally, exact=table or split == "file"):
                titles += bool(document.title)
                yield document
    if title is not None and searched and not titles:
        raise InputError(f"{', '.join(searched)}: no line begins with {split!r}; mend --split")


def _title(split: str) -> re.Pattern[str]:
    near = difflib.get_close_matches(split, SPLITS, n=1, cutoff=0.7)
    if near:
        raise InputError(f"split {split!r} is neither of {', '.join(SPLITS)}; write {near[0]!r}")
    try:
        return re.compile(split)
    except re.error as error:
        raise InputError(
            f"split {split!r} is neither of {', '.join(SPLITS)} nor a regular expression ({error})"
        ) from error


def _rows(name: str, column: str, tally: Tally) -> Iterator[Piece]:
    for number, row in rows(name, [column], tally):
        text = text_of(row[column], column, f"{name}, row {number}").replace("\r\n", "\n")
        for place, part in enumerate(slices(text, PART // 4)):
            yield (None if place else ""), part


def slices(text: str, longest: int) -> Iterator[str]:
    """A text in pieces of at most `longest` characters, cut at a line's end or before a space."""
    start = 0
    while len(text) - start > longest:
        place = text.rfind("\n", start, start + longest) + 1
        place = place or max(text.rfind(" ", start + 1, start + longest), start)
        place = place if place > start else start + longest
        yield text[start:place]
        start = place
    yield text[start:]


def _plain(name: str, split: str, title: re.Pattern[str] | None, tally: Tally) -> Iterator[Piece]:
    """The pieces of plain text: blocks for "file", else lines."""
    if split == "line":
        yield from (("", line) for line in lines_of(name, tally))
        return
    begins = True  # a document; and whether the last line was whole
    whole = True
    for block, tally.within in blocks(name):
        text = block.replace("\r\n", "\n")
        if split == "file":
            yield ("" if begins else None), text
            begins = False
            continue
        for line in io.StringIO(text, newline="\n"):
            match = title.match(line) if title and whole else None
            whole = line.endswith("\n")
            if match:
                named = match.lastindex and match[match.lastindex]
                yield (named or line.strip()), ("" if named else line)
                begins = False
                continue
            blank = not line.strip()
            if not blank or (title and not begins):
                yield ("" if begins else None), line
            begins = blank and (begins or not title)
    if split == "file" and begins:  # an empty file is an empty document
        yield "", ""


def _assembled(pieces: Iterator[Piece], name: str, tally: Tally, exact: bool) -> Iterator[Document]:
    """Documents, and parts of them, from pieces; without `exact`, no empty lines at their ends."""
    number, part, title = 0, 0, ""
    held: list[str] = []
    size = 0
    for begins, piece in chain(pieces, [("", "")]):  # the last one only ends the one before it
        if begins is not None:
            text = _joined(held, part, exact)
            text = text if exact else text.rstrip("\n")
            if text.strip() or (part and text):
                yield Document(text, name, number, part, title)
            elif number and not part:
                tally.skipped[EMPTY] += 1
            number, part, title, held, size = number + 1, 0, begins, [], 0
        held.append(piece)
        size += len(piece)
        if size >= PART:
            text = _joined(held, part, exact)
            kept = text if exact else text.rstrip("\n") or text
            if kept.strip() or part:
                yield Document(kept, name, number, part, title)
                part += 1
            held = [text[len(kept) :]]
            size = len(held[0])


def _joined(held: list[str], part: int, exact: bool) -> str:
    text = "".join(held)
    return text if exact or part else text.lstrip("\n")


def records(
    files: Names, *, columns: Sequence[str] = (), tally: Tally | None = None
) -> Iterator[Row]:
    """Rows with named columns, in order: of tables, and the cards of a deck (.txt, .md).

    columns    the ones wanted, in this order; by number ("1", "2") where a .csv or .tsv has no
               header row. None: all
    A card has title, background, question, answer. Values of .csv and .tsv are texts.
    Raises InputError for a column that a row lacks, with the nearest name, and for damaged rows.
    """
    tally = tally or Tally()
    for name in found(files):
        with tally.reading(name):
            for _, row in rows(name, columns, tally):
                yield row


# pairs of texts -----------------------------------------------------------------------------------


class TextPair(NamedTuple):
    """`number`: the line of two parallel files, or the row of a table."""

    source: str
    target: str
    file: str
    number: int


def text_pairs(
    source: str, target: str, *, files: Names = (), tally: Tally | None = None
) -> Iterator[TextPair]:
    """Pairs (source, target, file, number): the lines of two parallel files, or two columns.

    source, target    two files of plain text, or with `files` the names of two of their columns,
                      by number ("1", "2") for a .csv or .tsv without a header row; a deck's columns
                      are question and answer
    tally             counts what is skipped: pairs with an empty side; and the bytes read

    Raises InputError for parallel files of unequal length, with both line counts and before the
    first pair where the files can be read twice; and for what `found` and `rows` refuse.
    """
    tally = tally or Tally()
    given = bool(files) if isinstance(files, Sequence) else True
    for pair in _columns(source, target, files, tally) if given else _lines(source, target, tally):
        missing = [side for side in ("source", "target") if not getattr(pair, side).strip()]
        if missing:
            tally.skipped[EMPTY if len(missing) == 2 else f"{missing[0]} {EMPTY}"] += 1
        else:
            yield pair


def _columns(source: str, target: str, files: Names, tally: Tally) -> Iterator[TextPair]:
    for name in found(files):
        with tally.reading(name):
            for number, row in rows(name, [source, target], tally):
                where = f"{name}, row {number}"
                first, second = (text_of(row[side], side, where) for side in (source, target))
                yield TextPair(first, second, name, number)


def _lines(source: str, target: str, tally: Tally) -> Iterator[TextPair]:
    """The lines of two files side by side."""
    for name in (source, target):
        if found(name) != [name] or is_table(name):
            raise InputError(f"{name}: not one file of plain text; for columns name the files too")
    if STDIN not in (source, target):
        counts = [sum(1 for _ in lines_of(name, Tally())) for name in (source, target)]
        _check_equal(source, target, *counts)
    other = Tally()
    with tally.reading(source), other.reading(target):
        for number, (first, second) in enumerate(
            zip_longest(lines_of(source, tally), lines_of(target, other)), 1
        ):
            if first is None or second is None:
                ended, longer = (source, target) if first is None else (target, source)
                raise InputError(
                    f"{ended} ends after line {number - 1:,} where {longer} goes on; parallel files"
                    " have a line for each line"
                )
            yield TextPair(first, second, source, number)


def _check_equal(source: str, target: str, n_source: int, n_target: int) -> None:
    if n_source == n_target:
        return
    shorter, longer = sorted([(n_source, source), (n_target, target)])
    raise InputError(
        f"{source} has {n_source:,} lines and {target} has {n_target:,}: line {shorter[0] + 1:,} of"
        f" {longer[1]} has no partner in {shorter[1]}, which ends at line {shorter[0]:,}; parallel"
        " files have a line for each line"
    )

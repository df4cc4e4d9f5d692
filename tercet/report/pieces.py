"""The pieces that a page is made of: figures in large type, tables, samples, answers, commands.

Each function takes plain data and gives `Html`. All text is escaped; prose may set `code` between
backticks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from tercet.errors import InputError
from tercet.report.markup import Html, escape, inline, join, number, tag

Cell = str | int | float | bool | None  # Html is a str


@dataclass(frozen=True)
class Fact:
    """A key figure: the value in large type, what it is, and what to hold it against."""

    value: str | float
    label: str
    note: str = ""
    good: bool | None = None  # a mark beside the value: reached, missed, or no mark


def facts(*items: Fact) -> Html:
    """Key figures side by side."""
    return tag("dl", *map(_fact, items), class_="facts")


def _fact(item: Fact) -> Html:
    value = item.value if isinstance(item.value, str) else number(item.value)
    return tag(
        "div",
        tag("dt", inline(item.label)),
        tag("dd", value, _mark(item.good) if item.good is not None else None, class_="value"),
        tag("dd", inline(item.note), class_="note") if item.note else None,
        class_="fact",
    )


def _mark(good: bool) -> Html:
    sign, word = ("✓", "yes") if good else ("✗", "no")
    hidden = tag("span", sign, aria_hidden="true")
    return tag("span", hidden, tag("span", word, class_="unseen"), class_=f"mark {word}")


def text(*paragraphs: str) -> Html:
    """Paragraphs of prose."""
    return join(*(tag("p", inline(paragraph)) for paragraph in paragraphs))


def table(
    header: Sequence[str], rows: Iterable[Sequence[Cell]], *, caption: str = "", align: str = ""
) -> Html:
    """A table. True and False become marks, None a dash, numbers are grouped and right-aligned.

    align: a letter a column, `l` or `r`; by default columns of numbers stand right.
    """
    rows = [list(row) for row in rows]
    for row in rows:
        if len(row) != len(header):
            raise InputError(f"table row {row!r} has {len(row)} cells for {len(header)} columns")
    if align and len(align) != len(header):
        raise InputError(f"align {align!r} has {len(align)} letters for {len(header)} columns")
    align = align or "".join(_side([row[i] for row in rows]) for i in range(len(header)))
    kinds = ["number" if side == "r" else None for side in align]
    head = [tag("th", inline(h), scope="col", class_=k) for h, k in zip(header, kinds, strict=True)]
    body = [
        tag("tr", *(tag("td", _cell(c), class_=k) for c, k in zip(row, kinds, strict=True)))
        for row in rows
    ]
    inner = tag(
        "table",
        tag("caption", inline(caption)) if caption else None,
        tag("thead", tag("tr", *head)),
        tag("tbody", *body),
    )
    return tag("div", inner, class_="scroll", tabindex="0", role="group", aria_label="Table")


def _side(cells: list[Cell]) -> str:
    numbers = [isinstance(c, int | float) and not isinstance(c, bool) for c in cells]
    return "r" if any(numbers) and all(n or c is None for n, c in zip(numbers, cells)) else "l"


def _cell(cell: Cell) -> Html:
    if cell is None or isinstance(cell, str):
        return escape("–" if cell is None else cell)
    return _mark(cell) if isinstance(cell, bool) else escape(number(cell))


def difference(expected: str, answer: str) -> Html:
    """The answer, with what differs from the expected text marked; dates compare digit by digit."""
    if len(expected) == len(answer):
        return join(*(a if a == e else tag("mark", a, title=e) for e, a in zip(expected, answer)))
    parts = []
    matcher = difflib.SequenceMatcher(None, expected, answer, autojunk=False)
    for what, start, end, first, last in matcher.get_opcodes():
        if what == "equal":
            parts.append(escape(answer[first:last]))
        else:  # a gap is marked too, where something is missing
            parts.append(tag("mark", answer[first:last] or "\u2038", title=expected[start:end]))
    return join(*parts)


def sample(prompt: str, completion: str, *, note: str = "") -> Html:
    """What a model wrote: the prompt faint, the completion after it."""
    return tag(
        "figure",
        tag("figcaption", inline(note)) if note else None,
        tag("pre", tag("span", prompt, class_="prompt"), tag("b", completion), dir="auto"),
        class_="sample",
    )


def quote(*texts: str, note: str = "") -> Html:
    """A text of someone else's, or several that belong together, for a cell of a table."""
    below = tag("p", note, class_="note") if note else None
    return tag("div", *(tag("p", text, dir="auto") for text in texts), below, class_="quote")


def fill(
    masked: str,
    candidates: Sequence[tuple[str, float]],
    *,
    truth: str | None = None,
) -> Html:
    """A text with a gap, [MASK], and the likeliest words for it, probabilities as bars (0 to 1).

    truth: the word that stood there; it is marked among the candidates, or named below them.
    """
    gap = tag("span", tag("span", "mask", class_="unseen"), class_="gap")
    pieces = masked.split("[MASK]")
    gaps = zip_longest(map(escape, pieces), [gap] * (len(pieces) - 1))
    rows = [_candidate(word, float(chance), word == truth) for word, chance in candidates]
    missed = truth is not None and all(word != truth for word, _ in candidates)
    return tag(
        "figure",
        tag("p", *(part for pair in gaps for part in pair), class_="masked", dir="auto"),
        tag("ol", *rows, class_="candidates"),
        tag("p", "It was ", tag("b", truth), ".", class_="truth") if missed else None,
        class_="fill",
    )


def _candidate(word: str, chance: float, right: bool) -> Html:
    rect = tag("rect", width=f"{100 * min(max(chance, 0.0), 1.0):.1f}%", height="100%", rx="2")
    return tag(
        "li",
        tag("bdi", word),
        tag("svg", rect, aria_hidden="true"),
        tag("span", f"{100 * chance:.0f}\u00a0%", class_="chance"),
        _mark(True) if right else tag("span"),
        class_="right" if right else None,
    )


def answers(*pairs: tuple[str, str]) -> Html:
    """Questions and answers."""
    items = [
        join(tag("dt", inline(question)), tag("dd", inline(answer))) for question, answer in pairs
    ]
    return tag("dl", *items, class_="answers")


def code(source: str) -> Html:
    """A block of code with a button that copies it."""
    button = tag("button", "Copy", type="button", class_="copy")
    return tag("div", tag("pre", tag("code", source)), button, class_="code")


def commands(*pairs: tuple[str, str]) -> Html:
    """What to type next: (what it does, command) each, with buttons that copy."""
    items = [tag("li", tag("p", inline(meaning)), code(command)) for meaning, command in pairs]
    return tag("ol", *items, class_="commands")


def side_by_side(*children: Html) -> Html:
    """The children in columns where there is room, below one another where there is not."""
    return tag("div", *children, class_="columns")


def fold(summary: str, *children: Html, opened: bool = False) -> Html:
    """The children behind a line that opens them."""
    return tag("details", tag("summary", inline(summary)), *children, open=opened)


def anchor(title: str) -> str:
    """A title as the name of a place on the page."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"

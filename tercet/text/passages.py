"""Documents cut into passages: whole sentences up to so many tokens, under the headings that stand
above them.

A passage is what one vector stands for, and what a search shows. Knows no tokenizer: how many
tokens texts have is asked of a function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tercet.errors import InputError

Count = Callable[[Sequence[str]], list[int]]  # texts -> tokens of each, special ones left out

HEADING = re.compile(r"(?m)^(#{1,6})[ \t]+(\S[^\n]*)$\n?")
CLOSING = re.compile(r"[ \t]+#+[ \t]*$")  # marks behind a heading; those of "# C#" are its name
FENCED = re.compile(r"(?ms)^(```|~~~).*?^\1")  # code, in which a line "# so" is no heading
BLANKS = re.compile(r"\s+")
BELOW = 4  # headings may take this part of a passage: 1/4
# A sentence ends behind . ! ? with closing quotes, before a blank and what may begin another; or
# with a blank line; or behind the full stops of Chinese and Japanese, which no blank follows.
END = re.compile(
    r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[\w¿¡])|\n[ \t]*\n\s*|(?<=[。！？])[」』）]*\s*",
)
SHORT = re.compile(  # what a full stop ends that is no sentence
    r"(?:^|[\s(\[\"'“‘])(?:(?:[A-Za-z]\.)*[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|cf|Figs?|Eq|pp|al)"
    r"\.[\"'”’)\]]*\s*$"
)


@dataclass(frozen=True)
class Passages:
    """How documents are cut."""

    tokens: int | None
    """tokens of a passage at the most, special ones left out; None: a document is one passage"""
    overlap: int = 0
    """of these, how many a passage may have in common with the one before: whole sentences"""
    headings: bool = True
    """whether the Markdown headings above a passage stand before its text"""

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < BELOW:
            raise InputError(f"passages of {self.tokens} tokens: give {BELOW} or more, or none")
        most = 0 if self.tokens is None else self.tokens // 2
        if not 0 <= self.overlap <= most:
            raise InputError(
                f"an overlap of {self.overlap} tokens: give 0 to {most}, half of a passage"
            )


def passages(text: str, policy: Passages, count: Count) -> list[str]:
    """The passages of a document, in order; none of blanks alone.

    Every word of the text stands in one of them (in more where they overlap), and no passage has
    more than ``policy.tokens``, unless a single character has. A sentence that is longer is cut
    between words, or within one. Line ends come as "\\n".
    """
    text = text.replace("\r\n", "\n")
    if policy.tokens is None:
        return [text.strip()] if text.strip() else []
    found, shown = [], set[int]()
    for headings, body in _sections(text) if policy.headings else [([], text)]:
        head, first = _head([name for _, name in headings], policy.tokens // BELOW, count)
        shown |= {place for place, _ in headings[first:]}
        # what has no room above a passage stands in one
        left = [(place, name) for place, name in headings[:first] if place not in shown]
        shown |= {place for place, _ in left}
        body = "\n\n".join([*(name for _, name in left), body])
        room = policy.tokens - (count([head])[0] if head else 0)
        found += [head + piece for piece in _cut(body, room, policy.overlap, count)]
    return found


def _sections(text: str) -> Iterator[tuple[list[tuple[int, str]], str]]:
    """The headings above each stretch of text, outermost first, with their places, and the stretch.
    A heading that nothing stands below is a stretch of text itself."""
    above: dict[int, tuple[int, str]] = {}  # level -> heading
    start = 0
    fences = [match.span() for match in FENCED.finditer(text)]
    for match in [*HEADING.finditer(text), None]:
        if match and any(first < match.start() < last for first, last in fences):
            continue
        body = text[start : match.start() if match else len(text)]
        level = len(match[1]) if match else 0
        if body.strip():
            yield list(above.values()), body
        elif above and level <= max(above):
            *outer, (_, last) = above.values()
            yield outer, last
        if match:
            above = {depth: name for depth, name in above.items() if depth < level}
            above[level] = match.start(), CLOSING.sub("", match[2]).strip()
            start = match.end()


def _head(headings: Sequence[str], room: int, count: Count) -> tuple[str, int]:
    """A line of as many headings as have room, the innermost first, or nothing; and which of them
    is its first."""
    for first in range(len(headings)):
        line = " > ".join(headings[first:]) + "\n"
        if count([line])[0] <= room:
            return line, first
    return "", len(headings)


def _cut(text: str, tokens: int, overlap: int, count: Count) -> list[str]:
    """A text without headings, in pieces of whole sentences."""
    units, sizes, groups = list[str](), list[int](), list[list[str]]()
    whole = sentences(text)
    for unit, size in zip(whole, count(whole), strict=True):
        parts = [unit] if size <= tokens else _halves(unit, tokens, count)
        units += parts
        sizes += [size] if len(parts) == 1 else count(parts)
    start, stop = 0, 0
    while stop < len(units):
        size = sum(sizes[start:stop])
        while stop < len(units) and (stop == start or size + sizes[stop] <= tokens):
            size += sizes[stop]
            stop += 1
        groups.append(units[start:stop])
        following = sizes[stop] if stop < len(units) else tokens
        start = _back(sizes, range(start, stop), min(overlap, tokens - following))
    return _fitting(groups, tokens, count)


def _back(sizes: Sequence[int], group: range, room: int) -> int:
    """Where the next group begins: so many tokens before the end of this one at the most."""
    start = group.stop
    while start - 1 > group.start and sum(sizes[start - 1 : group.stop]) <= room:
        start -= 1
    return start


def _fitting(groups: list[list[str]], tokens: int, count: Count) -> list[str]:
    """The groups as texts; in halves where tokens do not add up (a tokenizer may cut a sentence
    otherwise than it cuts it among others)."""
    found = []
    texts = ["".join(group).strip() for group in groups]
    for group, text, size in zip(groups, texts, count(texts), strict=True):
        half = len(group) // 2
        if size > tokens and half:
            found += _fitting([group[:half], group[half:]], tokens, count)
        elif text:
            found.append(text)
    return found


def sentences(text: str) -> list[str]:
    """A text as its sentences, with the blanks behind them: joined, they are the text."""
    found, start = [], 0
    for match in END.finditer(text):
        if match.end() > start and not SHORT.search(
            text, max(start, match.start() - 8), match.end()
        ):
            found.append(text[start : match.end()])
            start = match.end()
    return [*found, text[start:]] if text[start:] else found


def _halves(text: str, tokens: int, count: Count) -> list[str]:
    """A sentence of too many tokens, in halves of halves: between the words nearest to the middle,
    or in the middle of one."""
    parts, whole = [text], False
    while not whole:
        sizes, before = count(parts), parts
        parts = [
            piece
            for part, size in zip(before, sizes, strict=True)
            for piece in (_two(part) if size > tokens and len(part) > 1 else [part])
        ]
        whole = len(parts) == len(before)
    return parts


def _two(text: str) -> list[str]:
    middle = len(text) // 2
    near = [m.end() for m in BLANKS.finditer(text) if 0 < m.end() < len(text)]
    place = min(near, key=lambda place: abs(place - middle), default=middle)
    return [text[:place], text[place:]]

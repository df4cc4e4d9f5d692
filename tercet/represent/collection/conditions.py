"""Conditions on rows in SQL: made safe to hand to the store, and where it does not understand one,
what is wrong and at which character."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from tercet.errors import InputError

TEXT = re.compile(r"'(?:[^']|'')*'")
NAME = re.compile(r"No field named (\S+?)\. ")  # the store's own sentences, from here on
PLACE = re.compile(r"(?:.*: )?(.*) at Line: (\d+), Column: (\d+)")
FOUND = re.compile(r"Expected: (.*?), found: (\S+?)\)?(?= at Line|$)")
LITERAL = re.compile(r'literal \w+\("?(.*?)"?\)')


def whole(where: str) -> str:
    """The condition as the store gets it: in brackets, for it takes no notice of what stands behind
    a condition, and "place = 0 author = 'x'" without its AND would be "place = 0". Raises
    InputError for what even so would be taken in silence."""
    if not where.strip():
        raise InputError('the filter is empty; leave it out, or give one such as "year > 1990"')
    open_brackets = 0
    for at, character in enumerate(_without_texts(where)):
        open_brackets += (character == "(") - (character == ")")
        if open_brackets < 0:
            raise misunderstood(where, at, "this bracket closes none")
        if character == ";":
            raise misunderstood(where, at, "';' ends a statement, and a filter is one condition")
    return f"({where}\n)"  # a line of its own, behind what may be a comment


def refused(where: str, reason: str, columns: Sequence[str]) -> InputError:
    """For a condition whose `whole` the store refused with this reason."""
    if match := NAME.search(reason):
        name = match[1].strip('"`')
        near = difflib.get_close_matches(name, columns, 1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(columns)}"
        if f'"{name}"' in where:
            meant = f"a text stands in single quotes: '{name}'"
        return misunderstood(where, _only(where, name), f"no column is called {name!r}; {meant}")
    if match := FOUND.search(reason):
        wanted, found = match[1], match[2]
        ours = found == ")" and not where.rstrip().endswith(")")
        if found == "EOF" or ours:
            return misunderstood(where, len(where), f"{wanted} is missing")
        wanted = "AND, OR or the end" if wanted == ")" else wanted
        return misunderstood(where, _only(where, found), f"{wanted} should stand before {found!r}")
    if match := PLACE.search(reason):
        line = int(match[2]) - 1
        before = sum(len(one) + 1 for one in where.split("\n")[:line])
        return misunderstood(where, before + int(match[3]) - 1 - (line == 0), match[1])
    match = LITERAL.search(reason)
    said = reason.removeprefix("Invalid input, ").split(": ")[-1]
    return misunderstood(where, where.find(match[1]) if match else -1, said)


def _without_texts(where: str) -> str:
    """With blanks in the place of what stands in single quotes."""
    return TEXT.sub(lambda found: " " * len(found[0]), where)


def _only(where: str, word: str) -> int:
    """Where a word or a sign stands, if it stands there alone; else -1."""
    edges = (r"(?<!\w)", r"(?!\w)") if word[:1].isalnum() else ("", "")
    pattern = edges[0] + re.escape(word) + edges[1]
    places = [match.start() for match in re.finditer(pattern, _without_texts(where))]
    return places[0] if len(places) == 1 else -1


def misunderstood(where: str, at: int, reason: str) -> InputError:
    """at: the character that the reason is about, from 0; -1 where it is not known."""
    place = f" at character {at + 1}" if at >= 0 else ""
    return InputError(f"the filter {where!r} is not understood{place}: {reason}")

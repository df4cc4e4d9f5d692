"""Conditions on rows in SQL that the store does not understand: what is wrong, and where."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from tercet.errors import InputError

QUOTED = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`")
NAMES = re.compile(r"No field named (\S+?)\. ")  # the store's own sentences, from here on
PLACE = re.compile(r"Line: (\d+), Column: (\d+)")
FOUND = re.compile(r"(Expected: .*?, found: (\S+?))(?= at Line|\)|$)")
LITERAL = re.compile(r'literal \w+\("?(.*?)"?\)')


def check(where: str) -> None:
    """Raises InputError for what the store takes in silence: nothing, and a second sentence."""
    if not where.strip():
        raise InputError('the filter is empty; leave it out, or give one such as "year > 1990"')
    semicolon = QUOTED.sub(lambda found: " " * len(found[0]), where).find(";")
    if semicolon >= 0:
        raise misunderstood(where, semicolon, "';' ends a statement, and a filter is one condition")


def refused(where: str, reason: str, columns: Sequence[str]) -> InputError:
    """For a condition that the store refused with this reason."""
    if match := NAMES.search(reason):
        name = match[1].strip('"`')
        near = difflib.get_close_matches(name, columns, 1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(columns)}"
        if f'"{name}"' in where:
            meant = f"a text stands in single quotes: '{name}'"
        return misunderstood(where, where.find(name), f"no column is called {name!r}; {meant}")
    if match := FOUND.search(reason):
        at = len(where) if match[2] == "EOF" else where.rfind(match[2])
        wanted = match[1].replace("found: EOF", "found: its end")
        return misunderstood(where, at, wanted[0].lower() + wanted[1:])
    if match := PLACE.search(reason):
        lines = where.split("\n")[: int(match[1]) - 1]
        at = sum(len(line) + 1 for line in lines) + int(match[2]) - 1
        return misunderstood(
            where, at, reason[: match.start()].split(": ")[-1].removesuffix(" at ")
        )
    match = LITERAL.search(reason)
    said = reason.removeprefix("Invalid input, ").split(": ")[-1]
    return misunderstood(where, where.find(match[1]) if match else -1, said)


def misunderstood(where: str, at: int, reason: str) -> InputError:
    """at: the character that the reason is about, from 0; -1 where it is not known."""
    place = f" at character {at + 1}" if at >= 0 else ""
    return InputError(f"the filter {where!r} is not understood{place}: {reason}")

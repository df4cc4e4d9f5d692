"""Tags of words that say where things begin and go on: BIO, as CoNLL-2003's data write it (IOB2).

``B-person`` begins a person, ``I-person`` goes on with it, ``O`` stands outside of all. Knows
neither tokens nor scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"


class Chunk(NamedTuple):
    """What is said to be of one kind: the words from ``start`` to before ``stop``."""

    kind: str
    start: int
    stop: int


def is_bio(tags: Iterable[str]) -> bool:
    """Whether all of the tags are of this scheme, and some thing is named at all."""
    known = set(tags)
    return bool(known - {OUTSIDE}) and all(_split(tag) is not None for tag in known)


def repaired(tags: Sequence[str]) -> tuple[list[str], int]:
    """The tags with ``I-`` made ``B-`` where nothing of its kind stands before, and how many were.

    The entities then are those that conlleval, and seqeval by default, read off the tags as they
    stood.
    """
    found: list[str] = []
    before = OUTSIDE  # the kind that is open, behind a mark
    count = 0
    for tag in tags:
        mark, kind = _split(tag) or (OUTSIDE, "")
        if mark == "I" and before != f"-{kind}":
            tag = f"B{tag[1:]}"
            count += 1
        before = OUTSIDE if mark == OUTSIDE else f"-{kind}"
        found.append(tag)
    return found, count


def chunks(tags: Sequence[str]) -> list[Chunk]:
    """What the tags name, in order; illegal ones are read as ``repaired`` has them."""
    found: list[Chunk] = []
    for place, tag in enumerate(repaired(tags)[0]):
        mark, kind = _split(tag) or (OUTSIDE, "")
        if mark == "B":
            found.append(Chunk(kind, place, place + 1))
        elif mark == "I":
            found[-1] = found[-1]._replace(stop=place + 1)
    return found


def _split(tag: str) -> tuple[str, str] | None:
    """(mark, kind), or None for a tag of another scheme."""
    mark, dash, kind = tag.partition("-")
    if mark not in ("B", "I") or (dash and not kind):
        return (OUTSIDE, "") if tag == OUTSIDE else None
    return mark, kind

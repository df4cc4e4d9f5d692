"""What settings of all kinds are asked, and the name that was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from tercet.errors import InputError


def nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    if value not in allowed:
        said = ", ".join(str(one) for one in allowed if one is not None)
        raise InputError(f"{name} {value!r} is unknown{nearest(str(value), said.split(', '))}")


def one_of(settings: Any, name: str, first: str, second: str) -> None:
    if (getattr(settings, first) is None) == (getattr(settings, second) is None):
        raise InputError(f"{name}: give {first} or {second}, one of the two")


def positive(settings: Any, name: str, *fields: str) -> None:
    for field_name in fields:
        value = getattr(settings, field_name)
        if value is not None and value < 1:
            raise InputError(f"{name}.{field_name} {value} must be 1 or more")

"""What the rendering of a template may cost, so that one without an end is stopped.

Everything that it does is paid for in characters made; what one step makes has a bound besides, and
where that could only be told when it is too late, it is told from what the step is given. Knows no
templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from string import Formatter
from typing import Any

from jinja2 import TemplateError

STEP = 100  # what a turn of a loop, a call or a filter costs, in characters made
WORK = 200_000_000  # a rendering, in characters; ten thousand messages take a tenth of it
LONGEST = 1 << 24  # characters of one value, and the size of a number handed on
ITEM = 64  # what an item counts, in characters
MANY = 100_000  # parts that something is cut into
BITS = 1024  # of a whole number that was worked out
WIDE = re.compile(r"\d{6}")  # so many digits of a width
FLAGS = re.compile(r"[-+ #0.\d*]*")
# Of a text that is formatted, what may be replaced by all of a value; "": every character.
REPLACED = {"format": "{%", "format_map": "{", "%": "%", "indent": "\n", "expandtabs": "\t"}
REPLACED |= {"translate": ""}

_left: ContextVar[int] = ContextVar("characters that the present rendering may still make")


class Endless(TemplateError):
    """The template was stopped."""


@contextmanager
def paid() -> Iterator[None]:
    """Around a rendering: what it may cost."""
    token = _left.set(WORK)
    try:
        yield
    finally:
        _left.reset(token)


def spend(cost: int) -> None:
    left = _left.get(WORK) - cost
    if left < 0:
        raise Endless("it has no end, or makes more text than any conversation holds")
    _left.set(left)


def weighed(value: Any) -> Any:
    """A value that a template has made, paid for."""
    size, _ = _extent(value)
    spend(STEP + size)
    if size > LONGEST:
        raise Endless(f"it makes {size:,} characters or more in one go")
    if isinstance(value, int) and value.bit_length() > BITS:
        raise Endless("it counts beyond all bounds")
    return value


def each(values: Iterable[Any]) -> Iterator[Any]:
    """A loop's values, each paid for."""
    for value in values:
        spend(STEP)
        yield value


def _extent(value: Any) -> tuple[int, int]:
    """The characters of a value and of all that it holds, as often as it holds it, up to the bound;
    and how deep it goes."""
    size, depth, waiting = 0, 0, [(value, 1)]
    while waiting and size <= LONGEST:
        one, level = waiting.pop()
        depth = max(depth, level)
        if isinstance(one, str | range):
            size += len(one)
        elif isinstance(one, list | tuple | dict):
            size += ITEM * len(one)
            held = [*one, *one.values()] if isinstance(one, dict) else one
            waiting += [(inner, level + 1) for inner in held]
    return size, depth


def foreseen(name: str, values: Sequence[Any]) -> list[Any]:
    """What a call is given, which tells whether the result would be beyond all bounds. Iterators
    that are joined are gone through."""
    if any(isinstance(value, int) and abs(value) > LONGEST for value in values):
        raise Endless("it counts beyond all bounds")
    found = list(values)
    if name == "join":
        found = [list(each(one)) if isinstance(one, Iterator) else one for one in found]
    size = _result(name, found)
    if size > LONGEST:
        raise Endless(f"it makes {size:,} characters or more in one go")
    return found


def _result(name: str, values: Sequence[Any]) -> int:
    """The size of what a call makes, nearly; 0 where that is no more than it is given."""
    texts = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if isinstance(value, int)]
    if name == "replace" and len(texts) >= 3:
        return texts[0].count(texts[1]) * len(texts[2])
    if name == "join":
        sizes = [len(one) for one in values if isinstance(one, str | list | tuple | range)]
        return sum(_extent(one)[0] for one in values) + prod(sizes) * (len(sizes) > 1)
    if name == "tojson":
        size, depth = max(map(_extent, values), default=(0, 0))
        return size * (1 + depth * max(numbers, default=0))
    if name in ("slice", "batch") and max(numbers, default=0) > MANY:
        raise Endless(f"it cuts something into {max(numbers):,} parts")
    if name == "sum" and any(isinstance(one, list | tuple) for one in values[2:]):
        raise Endless("it adds up lists")
    if name in REPLACED and texts:
        return _replaced(name, texts[0], [one for one in values if one is not texts[0]], numbers)
    return 0


def _replaced(name: str, text: str, others: Sequence[Any], numbers: Sequence[int]) -> int:
    """The size of a text in which signs become values."""
    signs = REPLACED[name]
    times = sum(text.count(sign) for sign in signs) + 1 if signs else len(text)
    largest = max((_extent(one)[0] for one in others), default=0)
    if name in ("indent", "expandtabs"):
        return times * max(largest, *numbers, 8)
    if name != "translate" and any(map(_wide, _widths(name, text))):
        raise Endless("it makes a text of a width beyond all bounds")
    return times * largest


def _widths(name: str, text: str) -> Iterator[str]:
    """What a text to be formatted says of the width of each value."""
    if name != "%":
        try:
            yield from (spec for _, _, spec, _ in Formatter().parse(text) if spec)
        except ValueError:  # no such text: to be said by who formats it
            pass
    if name in ("%", "format"):  # the filter of this name is the operator
        for part in text.split("%")[1:]:
            part = part.partition(")")[2] if part.startswith("(") else part
            found = FLAGS.match(part)
            yield found[0] if found else ""


def _wide(width: str) -> bool:
    """Whether a width is given from elsewhere, or has many digits."""
    return "*" in width or "{" in width or WIDE.search(width) is not None

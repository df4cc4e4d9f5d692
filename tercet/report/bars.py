"""Horizontal bars, the value at the end of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tercet.errors import InputError
from tercet.report.markup import Html, join, number, tag
from tercet.report.plots import colour, legend


def bar_plot(
    rows: Sequence[tuple[str, Sequence[float] | float]],
    *,
    title: str,
    unit: str = "",
    names: Sequence[str] = (),
) -> Html:
    """Horizontal bars from zero, the value at the end of each.

    rows: (label, value) or (label, values); with several values a row, `names` says what they are.
    unit: written after each value ("%", "s"). Values are finite and not negative.
    """
    groups = [
        (label, [float(values)] if isinstance(values, int | float) else [float(v) for v in values])
        for label, values in rows
    ]
    for label, values in groups:
        for value in values:
            if not math.isfinite(value) or value < 0:
                raise InputError(f"bar {label!r} has the value {value}; give finite values from 0")
        if len(values) != max(len(names), 1):
            raise InputError(f"bar {label!r} has {len(values)} values for {len(names)} names")
    top = max((value for _, values in groups for value in values), default=0.0) or 1.0
    body = []
    for label, values in groups:
        bars = [_bar(value, top, unit, i) for i, value in enumerate(values)]
        body.append(join(tag("dt", label), tag("dd", *bars)))
    key = legend(names) if len(names) > 1 else None
    heading = tag("figcaption", tag("strong", title))
    return tag("figure", heading, key, tag("dl", *body, class_="bars"), class_="plot bar-plot")


def _bar(value: float, top: float, unit: str, index: int) -> Html:
    # SVG, not a coloured box: browsers print no backgrounds.
    rect = tag("rect", width=f"{100 * value / top:.2f}%", height="100%", rx="2")
    picture = tag("svg", rect, aria_hidden="true", style=colour(index))
    written = number(value) + (f"\u00a0{unit}" if unit else "")
    return tag("div", picture, tag("b", written), class_="bar")

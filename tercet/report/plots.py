"""Line plots as inline SVG whose letters stay readable at any width.

Only the curves are stretched with the page (their strokes are not); names and ticks are ordinary
text beside them. Colours are CSS variables `--series-1` ... `--series-6`, told apart by people with
any of the common colour-blindnesses (Okabe & Ito 2008, darkened or lightened for contrast). A curve
also carries its name at its end, so colour is never the only key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tercet.errors import InputError
from tercet.report.markup import Html, legal, number, tag
from tercet.report.scales import Axis, Scale, scale_of, tick_labels

COLOURS = 6
MOST_POINTS = 400  # a curve's points on the page; more than its pixels would only cost bytes


@dataclass(frozen=True)
class Series:
    """One curve.

    x, y: as many numbers each (lists, tuples or one-dimensional arrays); y may hold NaN: a gap.
    smooth: width, in points, of a centred mean drawn over the faint raw curve; 0 draws it plainly.
    points: a dot at each point too, for values measured now and then.
    dashed: for what is a yardstick rather than the subject.
    faint: points drawn faintly behind the curve, where it is itself a mean (see `in_stretches`).
    """

    name: str
    x: Iterable[float]
    y: Iterable[float]
    smooth: int = 0
    points: bool = False
    dashed: bool = False
    faint: Sequence[tuple[float, float]] = ()

    def numbers(self) -> tuple[list[float], list[float]]:
        """x and y as floats, sorted by nothing: the order of the points is the user's."""
        x, y = [float(v) for v in self.x], [float(v) for v in self.y]
        if len(x) != len(y):
            raise InputError(
                f"series {self.name!r} has {len(x)} x values and {len(y)} y values; "
                "give one y for each x"
            )
        return x, y


@dataclass(frozen=True)
class _Curve:
    """A series made ready: what is drawn faintly, what is drawn boldly, and how."""

    series: Series
    raw: list[tuple[float, float]]
    line: list[tuple[float, float]]

    @property
    def last(self) -> tuple[float, float]:
        return self.line[-1]


def line_plot(
    series: Sequence[Series],
    *,
    title: str,
    x: Axis | str = "step",
    y: Axis | str = "loss",
    references: Mapping[str, float] | None = None,
) -> Html:
    """Curves over common axes, each named at its end.

    references: horizontal lines at given heights, by name (what chance or an older method gets).
    Points that an axis cannot show (NaN, infinite, or below zero on a logarithmic axis) are left
    out; the latter are counted under the plot. Without any point the plot says so.
    """
    x_axis = Axis(x) if isinstance(x, str) else x
    y_axis = Axis(y) if isinstance(y, str) else y
    levels = {name: float(value) for name, value in (references or {}).items()}
    pairs = [list(zip(*one.numbers(), strict=True)) for one in series]
    flat = [point for points in pairs for point in points]
    across = scale_of((p[0] for p in flat), log=x_axis.log, tight=True)
    heights = [p[1] for p in flat] + [p[1] for one in series for p in one.faint]
    ground = [0.0] if y_axis.zero else []
    up = scale_of([*heights, *levels.values(), *ground], log=y_axis.log)
    shown = [[p for p in points if across.shows(p[0])] for points in pairs]
    curves = [_curve(s, p, up) for s, p in zip(series, shown, strict=True)]
    left_out = sum(
        math.isfinite(a) and math.isfinite(b) and not (across.shows(a) and up.shows(b))
        for a, b in flat
    )
    if not any(curve and curve.line for curve in curves):
        empty = tag("p", "No points yet.", class_="plot-empty")
        return tag("figure", _caption(title, y_axis), empty, class_="plot")
    levels = {name: value for name, value in levels.items() if up.shows(value)}
    return tag(
        "figure",
        _caption(title, y_axis),
        legend([one.name for one in series], levels),
        _frame(curves, levels, across, up, x_axis),
        tag("p", f"{left_out} points at or below zero left out.", class_="plot-note")
        if left_out
        else None,
        class_="plot",
    )


def _curve(series: Series, points: list[tuple[float, float]], up: Scale) -> _Curve | None:
    finite = [p for p in points if up.shows(p[1])]
    if not finite:
        return None
    behind = [point for point in series.faint if up.shows(point[1])]
    if series.smooth < 2:
        gapped = [p if up.shows(p[1]) else (p[0], math.nan) for p in points]
        while gapped and math.isnan(gapped[-1][1]):
            gapped.pop()
        return _Curve(series, _thinned(behind), _thinned(gapped))
    width = min(series.smooth, len(finite) // 4 + 1)  # a short curve keeps its shape
    mean = list(zip((p[0] for p in finite), _centred([p[1] for p in finite], width)))
    return _Curve(series, _thinned(behind or finite), _thinned(mean))


def in_stretches(series: Series, size: int) -> Series:
    """A long series with a point for every `size` of its points: their mean, over a faint line that
    joins the lowest and the highest of each stretch, so that no spike is lost.

    `smooth` goes on to count the points of `series`. Points that are not finite are left out.
    """
    points = [p for p in zip(*series.numbers(), strict=True) if math.isfinite(p[1])]
    if size < 2 or not points:
        return series
    x, y = zip(*points, strict=True)
    means, ends = [], []
    for start in range(0, len(y), size):
        part = y[start : start + size]
        means.append((x[start + (len(part) - 1) // 2], sum(part) / len(part)))
        ends += sorted({start + part.index(min(part)), start + part.index(max(part))})
    return replace(
        series,
        x=[a for a, _ in means],
        y=[b for _, b in means],
        smooth=series.smooth // size,
        faint=[points[i] for i in ends],
    )


def _centred(values: list[float], width: int) -> list[float]:
    """Means over windows of `width` points; at the start the window shrinks evenly."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    means = []
    for i in range(len(values)):
        half = min(width // 2, i, len(values) - 1 - i)
        # The last points lean back instead of shrinking to one: the end of a curve is the value
        # that people read, and it must not be the noisiest.
        start = max(0, min(i - half, len(values) - width))
        means.append((sums[i + half + 1] - sums[start]) / (i + half + 1 - start))
    return means


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MOST_POINTS points: the lowest and highest of each stretch, so no spike is lost."""
    if len(points) <= MOST_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / (MOST_POINTS - 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        rows = range(start, min(start + stretch, len(points)))
        rows = [i for i in rows if not math.isnan(points[i][1])]
        if rows:
            kept |= {min(rows, key=lambda i: points[i][1]), max(rows, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def _caption(title: str, y: Axis) -> Html:
    unit = tag("span", y.name + (", log scale" if y.log else ""), class_="plot-unit")
    return tag("figcaption", tag("strong", title), unit)


def colour(index: int) -> str:
    """The style that gives an element, and all in it, the colour of series `index`."""
    return f"--colour: var(--series-{index % COLOURS + 1})"


def legend(names: Sequence[str], levels: Iterable[str] = ()) -> Html:
    """The names beside their colours, in order, then those of the reference lines."""
    items = [tag("li", name, style=colour(i)) for i, name in enumerate(names)]
    items += [tag("li", name, class_="level") for name in levels]
    return tag("ul", *items, class_="plot-legend")


def _foot(across: Scale) -> list[tuple[float, str]]:
    """The ticks below a plot with their labels, so few that these do not touch: a narrow one has
    room for some 36 characters, which 200, 400 ... 2000 fill without a gap."""
    for wanted in (6, 5, 4, 3, 2):
        ticks = across.ticks(wanted)
        labels = tick_labels(ticks)
        if sum(len(label) + 2 for label in labels) <= 36:
            break
    return list(zip(ticks, labels, strict=True))


def _frame(
    curves: Sequence[_Curve | None],
    levels: Mapping[str, float],
    across: Scale,
    up: Scale,
    x_axis: Axis,
) -> Html:
    """The grid of a plot: ticks at the left, curves, names at the right, ticks below."""
    columns, rows = _foot(across), up.ticks(5)
    row_labels = tick_labels(rows)
    drawn = [(i, curve) for i, curve in enumerate(curves) if curve]
    names = [(up.place(c.last[1]), c.series.name, number(_short(c.last[1])), i) for i, c in drawn]
    names += [(up.place(value), name, number(_short(value)), -1) for name, value in levels.items()]
    widest = max(len(name) + len(value) + 3 for _, name, value, _ in names)
    grid = [_stroke("grid", f"M0 {_down(up.place(t))}H1000") for t in rows]
    grid += [_stroke("level", f"M0 {_down(up.place(v))}H1000") for v in levels.values()]
    picture = tag(
        "svg",
        *grid,
        *(_paths(i, curve, across, up) for i, curve in drawn),
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
        role="img",
        aria_label="; ".join(_spoken(c) for _, c in drawn),
    )
    area = tag(
        "div",
        picture,
        class_="plot-area",
        tabindex="0",
        role="group",
        aria_label="Plot. Left and right arrows read values.",
        data_plot=_hover_data(drawn, across, up, x_axis),
    )
    side = [
        tag("span", label, style=f"top:{100 - 100 * up.place(t):.2f}%")
        for t, label in zip(rows, row_labels, strict=True)
    ]
    foot = [tag("span", label, style=f"left:{100 * across.place(t):.2f}%") for t, label in columns]
    return tag(
        "div",
        tag("div", *side, class_="plot-side", aria_hidden="true"),
        area,
        tag("div", *_end_labels(names), class_="plot-names", aria_hidden="true"),
        tag("div", *foot, class_="plot-foot", aria_hidden="true"),
        tag("div", x_axis.name + (", log scale" if x_axis.log else ""), class_="plot-x"),
        class_="plot-frame",
        style=f"--side:{max(map(len, row_labels), default=1)}ch;--names:{min(widest, 30)}ch",
    )


def _down(place: float) -> str:
    return f"{1000 - 1000 * place:.1f}".removesuffix(".0")


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _spoken(curve: _Curve) -> str:
    (x0, y0), (x1, y1) = curve.line[0], curve.last
    return legal(
        f"{curve.series.name}: from {number(_short(y0))} at {number(_short(x0))} "
        f"to {number(_short(y1))} at {number(_short(x1))}"
    )


def _stroke(kind: str, path: str) -> Html:
    return tag("path", class_=kind, d=path)


def _paths(index: int, curve: _Curve, across: Scale, up: Scale) -> Html:
    kind = "line dashed" if curve.series.dashed or index >= COLOURS else "line"
    strokes = [_stroke("raw", _track(curve.raw, across, up))] if curve.raw else []
    strokes.append(_stroke(kind, _track(curve.line, across, up)))
    # A dot is a line of no length with round caps: it stays round when the picture is stretched.
    dots = curve.line if curve.series.points else [curve.last]
    spots = [f"{_at(p, across, up)}h0" for p in dots if not math.isnan(p[1])]
    strokes.append(_stroke("dots", "".join(f"M{spot}" for spot in spots)))
    return tag("g", *strokes, style=colour(index))


def _at(point: tuple[float, float], across: Scale, up: Scale) -> str:
    left = f"{1000 * across.place(point[0]):.1f}".removesuffix(".0")
    return f"{left} {_down(up.place(point[1]))}"


def _track(points: list[tuple[float, float]], across: Scale, up: Scale) -> str:
    """The path through the points; NaN lifts the pen."""
    steps, pen = [], "M"
    for point in points:
        if math.isnan(point[1]):
            pen = "M"
            continue
        steps.append(pen + _at(point, across, up))
        pen = "L"
    return "".join(steps)


def _end_labels(names: list[tuple[float, str, str, int]]) -> list[Html]:
    """Names at the height of their curves' ends, pushed apart where they would overlap."""
    room = 0.075  # a line of small letters, in heights of the plot (17 of 230 pixels)
    order = sorted(names, reverse=True)
    heights = [min(max(height, 0.0), 1.0) for height, *_ in order]
    for i in range(1, len(heights)):  # downwards from the top ...
        heights[i] = min(heights[i], heights[i - 1] - room)
    if heights and heights[-1] < 0:  # ... and back up where the floor is reached
        heights[-1] = 0.0
        for i in range(len(heights) - 2, -1, -1):
            heights[i] = max(heights[i], heights[i + 1] + room)
    labels = []
    for height, (_, name, value, index) in zip(heights, order, strict=True):
        style = f"top:{100 - 100 * height:.2f}%;" + (colour(index) if index >= 0 else "")
        kind = "end" if index >= 0 else "end level"
        labels.append(
            tag("span", tag("i"), tag("span", name), tag("b", value), class_=kind, style=style)
        )
    return labels


def _hover_data(drawn: Sequence[tuple[int, _Curve]], across: Scale, up: Scale, x_axis: Axis) -> str:
    curves = [
        {
            "name": legal(curve.series.name),
            "colour": index % COLOURS + 1,
            "points": [[_brief(a), _brief(b)] for a, b in curve.line if not math.isnan(b)],
        }
        for index, curve in drawn
    ]
    ends = {"x": [across.low, across.high, across.log], "y": [up.low, up.high, up.log]}
    data = {**ends, "unit": legal(x_axis.name), "curves": curves}
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _brief(value: float) -> float:
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short

"""Plots as a picture of their own: one SVG file, letters included, for documents.

`line_plot` draws for a page, whose letters and colours it shares; a picture stands alone, on white,
with its panels side by side, three in a row. Values that an axis cannot show are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tercet.report.markup import Html, escape, number, tag
from tercet.report.plots import Series
from tercet.report.scales import Axis, Scale, scale_of, tick_labels

COLOURS = ("#0072b2", "#d55e00", "#008f68", "#a8498a", "#8a6d00", "#4a5568")  # as on pages
WIDTH, HEIGHT = 440, 320  # of a panel
ACROSS = 3  # panels in a row
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 66, 46  # what surrounds its grid
FEW = 8  # different x, not too near to each other, that become the ticks themselves
SIZES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
STYLE = (
    "text{font:12px sans-serif;fill:#1c2733}.title{font-weight:600;font-size:13px}"
    ".faint{fill:#5b6875}.grid{stroke:#e3e8ed}path{fill:none}"
)


@dataclass(frozen=True)
class Panel:
    """Curves over common axes."""

    title: str
    series: Sequence[Series]
    x: Axis
    y: Axis


def picture(panels: Sequence[Panel]) -> Html:
    """The panels side by side, ACROSS in a row, as the text of an SVG file."""
    places = [divmod(i, ACROSS) for i in range(len(panels))]
    width, height = WIDTH * min(ACROSS, len(panels)), HEIGHT * -(-len(panels) // ACROSS)
    drawn = [
        tag("g", *_panel(panel), transform=f"translate({WIDTH * column} {HEIGHT * row})")
        for panel, (row, column) in zip(panels, places)
    ]
    return tag(
        "svg",
        tag("style", Html(STYLE)),
        tag("rect", width=width, height=height, fill="#fff"),
        *drawn,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label="; ".join(panel.title for panel in panels),
    )


def _panel(panel: Panel) -> list[Html]:
    points = [list(zip(*one.numbers())) for one in panel.series]
    flat = [point for curve in points for point in curve]
    across = scale_of((x for x, _ in flat), log=panel.x.log, tight=True)
    ground = [0.0] if panel.y.zero else []
    up = scale_of([*(y for _, y in flat), *ground], log=panel.y.log)
    places = sorted({x for x, _ in flat if across.shows(x)})
    ends = [across.place(x) for x in places]
    apart = all(b - a > 0.1 for a, b in zip(ends, ends[1:]))
    few = panel.x.log and apart and 1 < len(places) <= FEW
    columns = places if few else across.ticks(5)
    labels = list(map(_short, columns)) if few else tick_labels(columns)
    pieces = [_words(panel.title, LEFT, 20, "title"), _words(panel.y.name, LEFT, 38, "faint")]
    pieces += _grid(across, up, dict(zip(columns, labels)))
    middle = (LEFT + WIDTH - RIGHT) / 2
    pieces.append(_words(panel.x.name, middle, HEIGHT - 10, "faint", anchor="middle"))
    for i, (one, curve) in enumerate(zip(panel.series, points)):
        pieces += _curve(one, curve, across, up, COLOURS[i % len(COLOURS)])
    return pieces + _legend(panel.series)


def _grid(across: Scale, up: Scale, columns: dict[float, str]) -> list[Html]:
    rows, found = up.ticks(5), []
    for value, label in zip(rows, tick_labels(rows)):
        y = _down(up.place(value))
        found.append(tag("path", class_="grid", d=f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}"))
        found.append(_words(label, LEFT - 6, y + 4, anchor="end"))
    for value, label in columns.items():
        x = _right(across.place(value))
        found.append(_words(label, x, HEIGHT - BOTTOM + 18, anchor="middle"))
    return found


def _short(value: float) -> str:
    """331776 as 332k: two or three digits of what stands for itself."""
    for size, suffix in SIZES:
        if value >= max(size, 10_000):
            return f"{value / size:.3g}{suffix}"
    return number(value)


def _curve(
    one: Series, points: list[tuple[float, float]], across: Scale, up: Scale, colour: str
) -> list[Html]:
    seen = [
        (_right(across.place(x)), _down(up.place(y)))
        for x, y in points
        if across.shows(x) and up.shows(y)
    ]
    if not seen:
        return []
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in seen)
    dashes = "5 4" if one.dashed else None
    found = [tag("path", d=line, stroke=colour, stroke_width=2, stroke_dasharray=dashes)]
    if one.points:  # a dot is a line of no length with round caps
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in seen)
        found.append(tag("path", d=dots, stroke=colour, stroke_width=7, stroke_linecap="round"))
    return found


def _legend(series: Sequence[Series]) -> list[Html]:
    """Names beside their colours, in a row below the title."""
    found, x = [], float(LEFT)
    for i, one in enumerate(series if len(series) > 1 else ()):
        colour = COLOURS[i % len(COLOURS)]
        found.append(tag("path", d=f"M{x:.0f} 52h14", stroke=colour, stroke_width=3))
        found.append(_words(one.name, x + 18, 56))
        x += 34 + 6.5 * len(one.name)
    return found


def _words(
    text: str, x: float, y: float, kind: str | None = None, *, anchor: str | None = None
) -> Html:
    return tag("text", escape(text), class_=kind, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _right(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _down(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

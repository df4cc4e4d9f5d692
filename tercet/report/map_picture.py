"""The map of texts as a PNG by matplotlib: points in their topics' colours, names that keep apart.

Names stand where there is room near their topic's middle, the largest topics' first, with a line to
the middle when they had to move; a name without room is left out, its colour stays.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tercet.errors import require
from tercet.files import written
from tercet.report.colours import NONE

if TYPE_CHECKING:
    from tercet.report.map import TextMap

INCHES = 11.0  # the longer side
HEADING = 0.75  # inches for the title
RESOLUTION = 150  # pixels an inch
LONGEST = 30  # characters of a name
FONT, PADDING = 8.0, 2.0  # points: the size of a name's letters, and what its frame keeps free
WORDS: dict[str, Any] = dict(fontsize=FONT, weight="bold", parse_math=False)  # $ means itself
GAP = 5  # pixels between two names
Box = tuple[float, float, float, float]  # left, bottom, right, top


def draw_map(page: TextMap, path: str | Path) -> Path:
    """Draws it; an older picture survives a failure. InputError without matplotlib."""
    require("matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = np.asarray(page.home) / max(page.home)
    size = (INCHES * max(width, 0.5), INCHES * max(height, 0.5) + HEADING)
    figure = Figure(figsize=size, dpi=RESOLUTION)
    canvas = FigureCanvasAgg(figure)
    below = 1 - HEADING / size[1]
    axes = figure.add_axes((0, 0, 1, below))
    axes.set_axis_off()
    x, y = _limits(page.home, size[0] / (size[1] - HEADING))
    axes.set(xlim=(-x, x), ylim=(-y, y))
    side, top, note = 0.2 / size[0], 1 - 0.28 / size[1], 1 - 0.56 / size[1]
    words: dict[str, Any] = dict(va="center", parse_math=False)
    figure.text(side, top, page.title, fontsize=14, weight="bold", **words)
    figure.text(side, note, page.note, fontsize=9, color="#5b616d", **words)
    _points(axes, page)
    path = Path(path)
    with warnings.catch_warnings(), written(path) as beside:
        # letters that the font lacks are drawn as boxes; the page shows them
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        _names(axes, page, canvas.get_renderer())
        figure.savefig(beside, format="png", dpi=RESOLUTION, metadata={"Software": None})
    return path


def _limits(home: list[float], ratio: float) -> tuple[float, float]:
    """Half the width and height of what is shown, in units that are as long across as up."""
    x, y = home[0] * 1.04, home[1] * 1.04
    return (y * ratio, y) if x < y * ratio else (x, x / ratio)


def _points(axes: Any, page: TextMap) -> None:
    """All in one mixed order, so that no topic lies over all others; those of none below."""
    order = np.random.default_rng(0).permutation(len(page.topics))
    order = order[np.argsort(page.topics[order] >= 0, kind="stable")]
    colours = np.array([*(light for light, _ in page.colours), NONE[0]])
    area = float(np.clip(60_000 / len(order), 0.7, 30))
    x, y = page.places[order].T
    axes.scatter(x, y, s=area, c=colours[page.topics[order]], alpha=0.75, linewidths=0)


def _names(axes: Any, page: TextMap, renderer: Any) -> None:
    from matplotlib.transforms import IdentityTransform

    taken: list[Box] = []
    pixels: dict[str, Any] = dict(transform=IdentityTransform(), clip_on=False)
    for topic in sorted(range(len(page.names)), key=lambda topic: -page.sizes[topic]):
        if not page.sizes[topic]:
            continue
        name, colour = page.names[topic], page.colours[topic][0]
        frame = dict(boxstyle=f"round,pad={PADDING / FONT}", fc=(1, 1, 1, 0.85), ec=colour, lw=1.2)
        x, y = axes.transData.transform(page.middles[topic])
        label = axes.text(x, y, _short(name), ha="center", va="center", **WORDS, **pixels)
        # measured without its frame, whose own measures are of the time before it was placed
        around = PADDING * RESOLUTION / 72
        box = label.get_window_extent(renderer).padded(around).extents
        place = _room(box, taken, axes.bbox.extents)
        if place is None:
            label.remove()
            continue
        right, up = place
        label.set(position=(x + right, y + up), bbox=frame)
        taken.append((box[0] + right, box[1] + up, box[2] + right, box[3] + up))
        axes.plot([x, x + right], [y, y + up], color=colour, lw=1.2, **pixels)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _room(box: Box, taken: list[Box], picture: Box) -> tuple[float, float] | None:
    """By how many pixels a name moves so that it covers no other; None without room nearby."""
    height = box[3] - box[1]
    steps = [(right * 1.5, up * 1.25) for right in range(-3, 4) for up in range(-5, 6)]
    for right, up in sorted(steps, key=lambda step: np.hypot(*step)):
        x = _inside(right * height, box[0], box[2], picture[0], picture[2])
        y = _inside(up * height, box[1], box[3], picture[1], picture[3])
        free = all(
            box[2] + x + GAP < left
            or box[0] + x - GAP > far
            or box[3] + y + GAP < bottom
            or box[1] + y - GAP > top
            for left, bottom, far, top in taken
        )
        if free:
            return x, y
    return None


def _inside(step: float, low: float, high: float, least: float, most: float) -> float:
    """A step that leaves low to high within the picture."""
    return max(least + GAP - low, min(most - GAP - high, step))

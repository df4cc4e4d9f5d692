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
RESOLUTION = 150  # pixels an inch
LONGEST = 30  # characters of a name
GAP = 5  # pixels between two names
Box = tuple[float, float, float, float]  # left, bottom, right, top


def draw_map(page: TextMap, path: str | Path) -> Path:
    """Draws it; an older picture survives a failure. InputError without matplotlib."""
    require("matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = np.asarray(page.home) / max(page.home)
    figure = Figure(figsize=(INCHES * max(width, 0.5), INCHES * max(height, 0.5) + 0.7))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.9))
    axes.set_axis_off()
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlim(-page.home[0] * 1.05, page.home[0] * 1.05)
    axes.set_ylim(-page.home[1] * 1.05, page.home[1] * 1.05)
    # parse_math off: dollar signs in a title or a name mean themselves
    figure.text(0.02, 0.965, page.title, fontsize=15, weight="bold", va="center", parse_math=False)
    figure.text(0.02, 0.93, page.note, fontsize=9, color="#5b616d", va="center", parse_math=False)
    _points(axes, page)
    path = Path(path)
    with warnings.catch_warnings(), written(path) as beside:
        # letters that the font lacks are drawn as boxes; the page shows them
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        _names(axes, page, canvas.get_renderer())
        figure.savefig(beside, format="png", dpi=RESOLUTION)
    return path


def _points(axes: Any, page: TextMap) -> None:
    """All in one mixed order, so that no topic lies over all others; those of none below."""
    order = np.random.default_rng(0).permutation(len(page.topics))
    order = order[np.argsort(page.topics[order] >= 0, kind="stable")]
    colours = np.array([*(light for light, _ in page.colours), NONE[0]])
    area = float(np.clip(30_000 / len(order), 0.6, 24))
    x, y = page.places[order].T
    axes.scatter(x, y, s=area, c=colours[page.topics[order]], alpha=0.75, linewidths=0)


def _names(axes: Any, page: TextMap, renderer: Any) -> None:
    taken: list[Box] = []
    for topic in sorted(range(len(page.names)), key=lambda topic: -page.sizes[topic]):
        if not page.sizes[topic]:
            continue
        name, colour = page.names[topic], page.colours[topic][0]
        style = dict(boxstyle="round,pad=0.25", fc=(1, 1, 1, 0.85), ec=colour, lw=1.2)
        label = axes.annotate(
            name if len(name) <= LONGEST else name[: LONGEST - 1] + "…",
            page.middles[topic],
            xytext=(0, 0),
            textcoords="offset pixels",
            ha="center",
            va="center",
            fontsize=8.5,
            weight="bold",
            bbox=style,
            annotation_clip=False,
            parse_math=False,
            arrowprops=dict(arrowstyle="-", color=colour, lw=1.2, shrinkA=0, shrinkB=0),
        )
        box = label.get_bbox_patch().get_window_extent(renderer)
        moved = _room(box.extents, taken)
        if moved is None:
            label.remove()
            continue
        label.set_position(moved)
        (right, up), (left, bottom, far, top) = moved, box.extents
        taken.append((left + right, bottom + up, far + right, top + up))


def _room(box: Box, taken: list[Box]) -> tuple[float, float] | None:
    """By how many pixels a name moves so that it covers no other; None without room nearby."""
    height = box[3] - box[1]
    steps = [(right * 1.5, up * 1.25) for right in range(-3, 4) for up in range(-5, 6)]
    for right, up in sorted(steps, key=lambda step: np.hypot(*step)):
        x, y = right * height, up * height
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

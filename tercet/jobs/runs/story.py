"""What the log of a run tells, as curves: by step, thinned out by stretches of a stated length."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tercet.jobs.recipe import LOG
from tercet.jobs.runs import Summary, summary
from tercet.report import Series
from tercet.train.log import Row, rows

STRETCHES = 500  # that a curve is drawn in at the most
SMOOTH = 50  # the bold line's window is this part of the run


@dataclass(frozen=True)
class Story:
    """What the log tells, by kind, and the columns of its steps."""

    folder: Path
    now: Summary
    lines: dict[str, list[Row]]

    @classmethod
    def of(cls, folder: Path) -> Story:
        now = summary(folder)
        lines: dict[str, list[Row]] = defaultdict(list)
        for row in rows(folder / LOG):
            lines[row["kind"]].append(row)
        return cls(folder, now, lines)

    def column(self, name: str, kind: str = "step") -> list[float]:
        return [float(row.get(name, math.nan)) for row in self.lines[kind]]

    @cached_property
    def steps(self) -> list[float]:
        return self.column("step")

    @cached_property
    def seconds(self) -> list[float]:
        return self.column("seconds")

    def curve(self, name: str, label: str) -> Series:
        return Series(label, self.steps, self.column(name), smooth=self.width)

    @property
    def width(self) -> int:
        """Steps that a bold line is the running mean of."""
        return max(1, len(self.steps) // SMOOTH)

    @property
    def size(self) -> int:
        """Steps of a stretch."""
        return max(1, math.ceil(len(self.steps) / STRETCHES))


def speed(story: Story) -> Series:
    """Tokens over seconds of each stretch; a mean of single speeds would be too high."""
    size = max(story.size, len(story.steps) // 100, 1)
    tokens, seconds = story.column("tokens"), story.seconds
    ends = list(range(0, len(tokens), size))
    found = []
    for start, stop in zip(ends, ends[1:]):
        spent = seconds[stop] - seconds[start]
        if spent > 0:
            found.append((story.steps[stop], (tokens[stop] - tokens[start]) / spent))
    label = "each step" if size == 1 else f"over {size:,} steps"
    return Series(label, [a for a, _ in found], [b for _, b in found])

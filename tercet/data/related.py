"""Texts that belong together: a row of what is learned from by comparing texts. No tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tercet.errors import InputError


@dataclass(frozen=True)
class Related:
    """texts: the first, its partner, and texts that are none. score: how alike the two are. A text
    that is its own partner has nobody else."""

    texts: tuple[str, ...]
    score: float | None = None

    @property
    def group(self) -> str:
        """What must stay on one side of a split."""
        return self.texts[0]


def number_of(value: Any, column: str, where: str) -> float:
    """A value as a number. Raises InputError for anything that is no finite one."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise InputError(f"{where}: {column!r} is {value!r:.40}, not a finite number; mend the row")
    return number

"""Pieces of a long measurement, each written down when it is finished and not repeated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tercet.files import written

Figures = dict[str, Any]  # plain values


class Kept:
    """What is measured by name, in a file beside the run: an interruption costs one piece.

    The name must say all that decides a piece, so that other settings are other pieces.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda sentence: None) -> None:
        self.path, self.say = path, say
        text = path.read_text(encoding="utf-8") if path.exists() else "{}"
        self.pieces: dict[str, Figures] = json.loads(text)

    def __call__(self, name: str, measure: Callable[[], Figures]) -> Figures:
        """The figures of a piece, measured now if they never were."""
        if name not in self.pieces:
            self.pieces[name] = measure()
            with written(self.path) as draft:
                draft.write_text(json.dumps(self.pieces, indent=1), encoding="utf-8")
            self.say(f"{name}: {_told(self.pieces[name])}")
        return self.pieces[name]


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(one)}" for name, one in value.items())
    if isinstance(value, list):
        return " ".join(map(_told, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)

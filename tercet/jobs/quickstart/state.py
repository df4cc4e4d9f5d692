"""A run of the quickstart: its folder, its clock, and the results so far."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet.errors import InputError
from tercet.files import written

STATE = "state.json"
SHARES = {"decoder": 104.0, "recurrent": 104.0, "encoder": 56.0, "dates": 32.0}  # seconds, of 296
REST = 0.13  # of the whole: reading the text, measuring, the report


@dataclass(frozen=True)
class Settings:
    """How long and how large. The defaults are the quickstart; the tests shrink them."""

    seconds: float = 312.0
    vocab_size: int = 1024
    width: int = 256
    layers: int = 2
    row: int = 128  # tokens
    rows: int = 12  # a step
    date_pairs: int = 30_000
    characters: int | None = None  # of text; None: all


class Run:
    """A folder, a clock and the results so far."""

    def __init__(self, folder: Path, settings: Settings, *, quiet: bool) -> None:
        self.folder, self.settings, self.quiet = folder, settings, quiet
        self.work = folder / "work"
        self._started, self._before = time.monotonic(), 0.0
        self.results: dict[str, Any] = {}
        if (folder / STATE).exists():
            self._resume()

    def _resume(self) -> None:
        path = self.folder / STATE
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            settings, before, results = kept["settings"], kept["seconds"], kept["results"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} cannot be read ({error}); remove {self.folder}") from error
        mine = {**dataclasses.asdict(self.settings), "python": platform.python_version()}
        for name, value in mine.items():
            if settings.get(name) != value:
                raise InputError(
                    f"{self.folder} was begun with {name} {settings.get(name)}, not {value}; "
                    "remove it or choose another --folder"
                )
        self._before, self.results = before, results

    @property
    def seconds(self) -> float:
        """Spent on this folder, in all sessions."""
        return self._before + time.monotonic() - self._started

    def left(self) -> float:
        """Seconds to the planned end."""
        return self.settings.seconds - self.seconds

    def budget(self, part: str) -> float:
        """Seconds of training for a part: its share of what is left.

        A part that took longer than planned takes from the later ones, and the whole holds its
        time; but no part gets less than half of what was planned.
        """
        later = list(SHARES)[list(SHARES).index(part) :]
        rest = REST * self.settings.seconds * len(later) / len(SHARES)
        planned = SHARES[part] / sum(SHARES.values()) * self.settings.seconds * (1 - REST)
        share = SHARES[part] / sum(SHARES[name] for name in later)
        return max(planned / 2, share * (self.left() - rest))

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, flush=True)

    def keep(self) -> None:
        """Write the results down."""
        settings = {**dataclasses.asdict(self.settings), "python": platform.python_version()}
        state = {"settings": settings, "seconds": self.seconds, "results": self.results}
        with written(self.folder / STATE) as path:
            path.write_text(json.dumps(state, indent=1), encoding="utf-8")

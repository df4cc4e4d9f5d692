"""The main job: on the text that every Python carries, train all three families and use them.

This file is the order of the parts and their clock; what a part does is in the files beside it.
Each part is a function of the run that returns its results as plain data; they are written down
when it ends, so a run that was stopped goes on with the first part that is missing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet.errors import InputError
from tercet.files import locked, written
from tercet.train.progress import clock

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


def run(
    folder: Path = Path("runs/quickstart"), *, minutes: float = 5.2, quiet: bool = False
) -> None:
    """Train an encoder, a decoder and an encoder-decoder on the text that Python carries.

    Then use all three, beside an LSTM of equal size, and write a page about it.
    Nothing is downloaded. Ctrl-C keeps what is done; the same command goes on from there.
    Example: tercet quickstart

    Args:
        folder: where the models and report.html are written.
        minutes: how long it may take in all, about; the parts share the time.
        quiet: print nothing but where the report is.
    """
    if not minutes > 0:
        raise InputError(f"minutes {minutes} must be above 0")
    quickstart(folder, Settings(seconds=60 * minutes), quiet=quiet)
    print(f"{folder / 'report.html'}")


def quickstart(folder: Path, settings: Settings = Settings(), *, quiet: bool = False) -> Run:
    """The whole job in a folder; the finished run with its results."""
    with locked(folder):
        run = Run(folder, settings, quiet=quiet)
        parts = _parts()
        missing = [name for name in parts if name not in run.results]
        if not missing:
            run.say(
                f"The quickstart in {folder} is complete (it took {clock(run._before)}). "
                "Remove the folder to train anew."
            )
            return run
        run.say(_greeting(run, len(parts) - len(missing)))
        try:
            for name in missing:
                run.results[name] = parts[name](run)
                run.keep()
        except KeyboardInterrupt:
            run.keep()
            run.say(f"\nStopped in {name!r}. What is done is kept: run the same command to go on.")
            raise
        run.say(f"Done in {clock(run.seconds)}.")
        return run


def _greeting(run: Run, n_done: int) -> str:
    if n_done:
        return f"Going on in {run.folder} after {n_done} finished parts."
    minutes = run.settings.seconds / 60
    return (
        f"Three families of Transformer on the text that Python carries, about {minutes:.0f} "
        f"minutes on {os.cpu_count()} cores. Ctrl-C keeps what is done."
    )


def _parts() -> dict[str, Callable[[Run], dict[str, Any]]]:
    """Name -> function, in order. Imported here, so that `--help` loads no torch."""
    from tercet.jobs import quickstart_models as models
    from tercet.jobs import quickstart_use as use
    from tercet.jobs.quickstart_report import report

    return {
        "text": models.text,
        "decoder": models.decoder,
        "recurrent": models.recurrent,
        "encoder": models.encoder,
        "dates": models.dates,
        "use": use.use,
        "report": report,
    }

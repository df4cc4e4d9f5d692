"""The main job: on the text that every Python carries, train all three families and use them.

This file is the order of the parts; what a part does is in the files beside it. Each part is a
function of the run that returns its results as plain data; they are written down when it ends, so a
run that was stopped goes on with the first part that is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tercet.errors import InputError
from tercet.files import locked
from tercet.jobs.quickstart.state import Run, Settings
from tercet.train.progress import clock


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
    from tercet.jobs.quickstart import models
    from tercet.jobs.quickstart.report import report
    from tercet.jobs.quickstart.use import use

    return {
        "text": models.text,
        "decoder": models.decoder,
        "recurrent": models.recurrent,
        "encoder": models.encoder,
        "dates": models.dates,
        "use": use,
        "report": report,
    }

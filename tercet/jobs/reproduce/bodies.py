"""The pretrained bodies that experiments stand on: real weights from a package, or an own run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from tercet.errors import InputError
from tercet.files import locked


def body(told: dict[str, Any], quiet: bool) -> str:
    """The folder of a body.

    told: ``package`` and ``path``, a folder inside an installed Python package; ``model``, any
    folder; or ``folder`` with ``recipe`` and ``cpu_minutes``: the run of `tercet reproduce` that is
    there, which is trained now, or gone on with, where it is not complete.
    """
    if "package" in told:
        return str(_installed(told["package"]) / told["path"])
    if "model" in told:
        return told["model"]
    from tercet.jobs.reproduce.transfer import pretrained

    folder = Path(told["folder"])
    with locked(folder):
        run, _, _ = pretrained(told, folder, quiet)
    return str(run.folder / "model")


def _installed(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        name = package.replace("_", "-")
        raise InputError(f"the Python package {name} is not installed; pip install {name}")
    return Path(next(iter(found.submodule_search_locations)))

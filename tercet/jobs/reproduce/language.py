"""Language models against published losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tercet.jobs.reproduce.table import Row, trained
from tercet.train.progress import clock


def validation_loss(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """Nats a token of the whole validation split, in blocks of the recipe's length: the published
    protocol, each block by itself."""
    from tercet.jobs.train import validation_loss as loss_of
    from tercet.language_model import load

    run, result = trained(entry["recipe"], folder / "run", quiet=quiet)
    model = load(run.folder / "model")
    note = f"{result['step']:,} steps in {clock(result['seconds'])}; {entry['published']['by']}"
    loss = loss_of(run, model.network)
    return [Row("validation loss, nats a token", loss, entry["published"]["loss"], note)]

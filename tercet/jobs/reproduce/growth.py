"""Networks of growing size on equal tokens: the loss against parameters and against FLOPs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tercet.jobs.reproduce.figures import draw, evaluations
from tercet.jobs.reproduce.table import Row, trained
from tercet.jobs.reproduce.twin import beside_table, share
from tercet.report import Axis, Panel, Series
from tercet.train.progress import clock


def growth(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """``sizes``: name -> what of the recipe's model is changed. Same corpus, tokens and rate."""
    from tercet.jobs.reproduce.held_out import HeldOut
    from tercet.language_model import load
    from tercet.plan import plan

    first: Path | None = None
    rows, points, curves = [], [], []
    for name, change in entry["sizes"].items():
        place = folder / name.replace(" ", "")
        if first is not None:
            share(first, place)
        first = first or place
        changes = [f"model.change.{key}={value}" for key, value in change.items()]
        run, result = trained(entry["recipe"], place, quiet=quiet, changes=changes)
        length = run.recipe.objective.length
        text = HeldOut.read(entry["text"], run.tokenizer)
        loss = text.nats(load(run.folder / "model").network, length)
        each = plan(run.config, [length]).training_flops_per_token
        parameters, flops = beside_table(run.config), each * result["tokens"]
        note = (
            f"{text.bits_per_byte(loss):.3f} bits per byte; {result['tokens'] / 1e6:.1f} M tokens, "
            f"{flops:.2e} FLOPs, {clock(result['seconds'])}"
        )
        rows.append(Row(f"nats a token, {parameters:,} parameters", loss, None, note))
        points.append((parameters, flops, loss))
        curves.append(evaluations(run, name, each=each))
    falls = all(b[2] < a[2] for a, b in zip(points, points[1:]))
    rows.append(Row("the loss falls with each size", "yes" if falls else "no"))
    draw(folder, "Growth", {"growth": _panels(points, curves)}, rows)
    return rows


def _panels(points: list[tuple[int, float, float]], curves: list[Series]) -> list[Panel]:
    sizes, flops, found = zip(*points)
    nats = Axis("nats a token")
    ends = Series("at the end", flops, found, points=True)
    return [
        Panel(
            "Held-out loss against size",
            [Series("held-out novel", sizes, found, points=True)],
            Axis("parameters outside the embeddings", log=True),
            nats,
        ),
        Panel("Held-out loss against training FLOPs", [ends], Axis("FLOPs", log=True), nats),
        Panel("Validation loss on the way", curves, Axis("FLOPs", log=True), nats),
    ]

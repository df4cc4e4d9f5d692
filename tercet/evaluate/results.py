"""What an evaluation found, item by item, as a file that another one is compared with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet.errors import InputError, undamaged
from tercet.evaluate.significance import Difference, paired, sign_test
from tercet.files import written

KEEPS = "evaluate choice, lambada, instructions and retrieval keep them with --out FILE"


@dataclass(frozen=True)
class Results:
    """measure: what was asked ("choice arc-easy"). model: of whom. items: what tells the questions
    apart. values: metric -> one for each item; higher is better."""

    measure: str
    model: str
    items: Sequence[str]
    values: Mapping[str, Sequence[float]]


def write(path: str | Path, results: Results, told: Mapping[str, Any]) -> None:
    """A JSON object: what was ``told``, and the values by item."""
    kept = {**told, "measure": results.measure, "model": results.model}
    kept |= {
        "items": list(results.items),
        "values": {n: list(v) for n, v in results.values.items()},
    }
    with written(path) as beside:
        beside.write_text(json.dumps(kept, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: str | Path) -> Results:
    """Raises InputError for a file that holds no values by item."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); {KEEPS}") from None
    if not isinstance(found, dict) or "items" not in found or "values" not in found:
        raise InputError(f"{path}: holds no values by item; {KEEPS}")
    with undamaged(Path(path)):
        values = {name: [float(x) for x in column] for name, column in found["values"].items()}
        items = [str(item) for item in found["items"]]
        if any(
            len(column) != len(items) or not all(map(math.isfinite, column))
            for column in values.values()
        ):
            raise ValueError("not a number for each item")
        return Results(str(found["measure"]), str(found["model"]), items, values)


@dataclass(frozen=True)
class Compared:
    """Of one metric: the means of both, what the second gained, and for right and wrong answers
    how likely so much is by chance."""

    metric: str
    first: float
    second: float
    gain: Difference
    p: float | None

    @property
    def verdict(self) -> str:
        """By the test where there is one, else by whether the interval leaves out 0."""
        shown = self.p < 0.05 if self.p is not None else not self.gain.low <= 0 <= self.gain.high
        if not shown:
            return "no difference shown"
        return "B is better" if self.gain.mean > 0 else "A is better"


def compared(first: Results, second: Results) -> list[Compared]:
    """Each metric. Raises InputError where not the same was measured of the same items."""
    for name, ours, theirs in (
        ("measures", first.measure, second.measure),
        ("metrics", ", ".join(first.values), ", ".join(second.values)),
    ):
        if ours != theirs:
            raise InputError(f"unlike {name}, {ours!r} and {theirs!r}; evaluate both models by one")
    if list(first.items) != list(second.items):
        common = len(set(first.items) & set(second.items))
        raise InputError(
            f"unlike items: {len(first.items):,} and {len(second.items):,}, {common:,} of them in "
            "common; evaluate both models with the same rows and --limit"
        )
    if not first.items:
        raise InputError("no items; evaluate some")
    found = []
    for metric, ours in first.values.items():
        theirs = second.values[metric]
        gains = [after - before for before, after in zip(ours, theirs, strict=True)]
        a, b = (math.fsum(column) / len(column) for column in (ours, theirs))
        p = sign_test(gains) if {*ours, *theirs} <= {0.0, 1.0} else None  # right and wrong
        found.append(Compared(metric, a, b, paired(gains), p))
    return found

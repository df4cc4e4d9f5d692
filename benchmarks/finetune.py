"""Fine-tuning speed beside transformers' Trainer: 100 steps of 32 rows on seven real tasks, from
the real all-MiniLM-L6-v2, in float32 and bfloat16.

A side reads 3,200 rows of a task once: the same rows, and so the same tokens. Seconds are from the
making of the first batch to the end of the last step, with all that each side does between two
steps. The Trainer pads each batch to its longest text; its rows come in a drawn order, or grouped
by length (group_by_length).

    make benchmark JOB=finetune
    python benchmarks/finetune.py --tasks trec,stsb --precisions bfloat16 --rounds 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from typing import Any

from compare import CORE, Absent, line_of, turn
from finetune_rows import TASKS, drawn
from finetune_sides import Run, tercet, trainer

STEPS, PEER = 100, "trainer"
PRECISIONS = ("float32", "bfloat16")
SIDES = {"tercet": CORE, "Trainer": PEER, "Trainer, grouped by length": PEER}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(TASKS), help="some of them, with commas")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", help="run one side once, TASK/PRECISION/SIDE; prints JSON")
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(side(asked.side, asked.steps)), flush=True)
        os._exit(0)
    rows: list[dict[str, Any]] = []
    if not asked.json:
        print(
            f"fine-tuning, {asked.steps} steps; {asked.threads} threads, {asked.rounds} turns each"
        )
    for precision in asked.precisions.split(","):
        for task in asked.tasks.split(","):
            rows += compared(task, precision, asked)
    ratios = together(rows)
    if asked.json:
        print(json.dumps({"job": "finetune", "threads": asked.threads, "rows": rows, **ratios}))
        return
    for precision, found in ratios.items():
        for peer, (mean, lowest) in found.items():
            print(f"{precision} over {peer}: geometric mean {mean:.2f}, lowest {lowest:.2f}")


def side(name: str, steps: int) -> dict[str, Any]:
    task, precision, which = name.split("/")
    try:
        run = Run(task, drawn(task, steps), bfloat16=precision == "bfloat16")
        found = tercet(run) if which == "tercet" else trainer(run, grouped="grouped" in which)
    except Absent as why:
        return {"absent": str(why)}
    return found | {"tokens/s": found["tokens"] / found["seconds"]}


def compared(task: str, precision: str, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a side: the medians of its turns, and behind ours the ratio to each other's."""
    from tercet.kernels.processor import outrun

    try:
        if outrun(precision):
            raise Absent(f"{precision} is slow on this processor: ours would compute in float32")
        drawn(task, asked.steps)  # before the first turn, by the environment that can
    except Absent as why:
        return [_shown({"task": task, "precision": precision, "absent": str(why)}, asked)]
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    for _ in range(asked.rounds):
        for name, environment in SIDES.items():
            if not (turns[name] and "absent" in turns[name][-1]):
                how = (environment, asked.threads, "--steps", str(asked.steps))
                turns[name].append(turn(f"{task}/{precision}/{name}", *how))
    rows = []
    for name, found in turns.items():
        row: dict[str, Any] = {"task": task, "precision": precision, "side": name}
        if "absent" in found[-1]:
            rows.append(row | found[-1])
        else:
            rows.append(row | {k: statistics.median(one[k] for one in found) for k in found[0]})
    counted = {row["tokens"] for row in rows if "tokens" in row}
    assert len(counted) <= 1, f"{task}: the sides read {counted} tokens, not the same"
    ours, *others = rows
    for other in others:
        if "seconds" in ours and "seconds" in other:
            ours[f"over {other['side']}"] = other["seconds"] / ours["seconds"]
    return [_shown(row, asked) for row in rows]


def _shown(row: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    if not asked.json:
        print("  " + line_of(row), flush=True)
    return row


def together(rows: list[dict[str, Any]]) -> dict[str, dict[str, tuple[float, float]]]:
    """By precision and peer: the geometric mean of the tasks' ratios, and the lowest."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("over "):
                peers = found.setdefault(row["precision"], {})
                peers.setdefault(name.removeprefix("over "), []).append(value)
    return {
        precision: {
            peer: (statistics.geometric_mean(ratios), min(ratios)) for peer, ratios in peers.items()
        }
        for precision, peers in found.items()
    }


if __name__ == "__main__":
    main()

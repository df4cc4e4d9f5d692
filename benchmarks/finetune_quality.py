"""What fine-tuning is worth beside transformers' Trainer: the same rows, epochs, rates and heads,
three seeds, and the test split measured with the weights of the epoch that was best on the same
validation rows.

Takes hours. Each run is kept when it is done (runs/finetune-quality/results.jsonl), and one of ours
that was stopped goes on: start the same command again.

    make benchmark JOB=finetune_quality
    python benchmarks/finetune_quality.py trec --seeds 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from compare import CORE, Absent, turn
from finetune_rows import TASKS, read, whole
from finetune_sides import Run, tercet, trainer

SIDES = {"tercet": CORE, "Trainer": "trainer"}
USUAL = ("trec", "stsb", "mrpc")


def main() -> None:
    known = [name for name, task in TASKS.items() if "test" in task.files]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=USUAL, help=f"some of {', '.join(known)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs") / "finetune-quality")
    parser.add_argument("--side", help="run one side once, TASK/SEED/SIDE; prints JSON")
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(side(asked)), flush=True)
        os._exit(0)
    from tercet.kernels.processor import outrun

    if asked.bfloat16 and outrun("bfloat16"):
        parser.error("--bfloat16: it is slow on this processor, and ours would compute in float32")
    for task in asked.tasks:
        assert task in known, f"{task} has no test split here; choose from {', '.join(known)}"
        together = [compared(task, seed, asked) for seed in range(asked.seeds)]
        print(f"{task}, test {TASKS[task].metric} x 100, {asked.seeds} seeds: {summary(together)}")


def side(asked: argparse.Namespace) -> dict[str, Any]:
    task, seed, which = asked.side.split("/")
    try:
        how = dict(bfloat16=asked.bfloat16, epochs=asked.epochs, rate=asked.rate, seed=int(seed))
        run = Run(task, whole(task), **how, measured=True)
        return tercet(run, asked.folder / named(task, asked)) if which == "tercet" else trainer(run)
    except Absent as why:
        return {"absent": str(why)}


def named(task: str, asked: argparse.Namespace) -> str:
    """The folder of a run of ours."""
    _, seed, _ = asked.side.split("/")
    kind = "bfloat16" if asked.bfloat16 else "float32"
    return f"{task}-{seed}-{kind}-{asked.epochs}-{asked.rate:g}"


def compared(task: str, seed: int, asked: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By side what one seed came to: of this time, or of an earlier one."""
    settings = {"epochs": asked.epochs, "rate": asked.rate, "bfloat16": asked.bfloat16}
    found = {}
    for name, environment in SIDES.items():
        key = {"task": task, "seed": seed, "side": name, **settings}
        row = next((row for row in kept(asked) if key.items() <= row.items()), None)
        if row is None:
            row = key | measured(key, environment, asked)
            if "absent" not in row:
                asked.folder.mkdir(parents=True, exist_ok=True)
                with (asked.folder / "results.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        print("  " + "  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        found[name] = row
    return found


def kept(asked: argparse.Namespace) -> list[dict[str, Any]]:
    path = asked.folder / "results.jsonl"
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    )


def measured(key: dict[str, Any], environment: str, asked: argparse.Namespace) -> dict[str, Any]:
    task = key["task"]
    folder = whole(task)  # by the environment that can
    more = ["--epochs", str(asked.epochs), "--rate", str(asked.rate), "--folder", str(asked.folder)]
    more += ["--bfloat16"] if asked.bfloat16 else []
    row = turn(f"{task}/{key['seed']}/{key['side']}", environment, asked.threads, *more)
    if "behind each epoch" in row:
        truth = {part: read(folder, part) for part in ("train", "validation", "test")}
        row |= best(task, row.pop("behind each epoch"), truth)
    return row


def best(task: str, epochs: list[dict[str, Any]], rows: dict[str, Any]) -> dict[str, Any]:
    """Of the logits behind each epoch: those that are best on the validation rows, by the scores
    that our own are measured with."""
    import torch

    from tercet.jobs.finetune.kinds import Number, One, in_order

    labels = {str(row["label"]) for row in rows["train"]}
    kind = Number(0.0, 1.0) if TASKS[task].number else One(in_order(labels))

    def score(part: str, logits: Any) -> float:
        targets = torch.tensor([kind.target(row["label"], part) for row in rows[part]])
        return kind.scores(torch.tensor(logits), targets).figures[TASKS[task].metric]

    said = [{part: score(part, logits) for part, logits in epoch.items()} for epoch in epochs]
    chosen = max(range(len(said)), key=lambda i: said[i]["validation"])
    return said[chosen] | {"epoch": chosen + 1}


def summary(seeds: list[dict[str, dict[str, Any]]]) -> str:
    """Mean and deviation of each side, and the difference."""
    figures = {
        name: [100 * seed[name]["test"] for seed in seeds if "test" in seed[name]] for name in SIDES
    }
    means = {name: statistics.fmean(found) for name, found in figures.items() if found}
    said = [
        f"{name} {mean:.2f}" + (f" (sd {statistics.stdev(found):.2f})" if len(found) > 1 else "")
        for name, mean in means.items()
        if (found := figures[name])
    ]
    if len(means) == 2:
        ours, theirs = means.values()
        said.append(f"difference {ours - theirs:+.2f}")
    return ", ".join(said)


if __name__ == "__main__":
    main()

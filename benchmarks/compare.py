"""Two or more ways to do one job, in processes that take turns: medians, and the ratio to the best.

A benchmark file names its sides; for each turn of a side it is started again with ``--side NAME``
and prints one JSON object of figures. A side that cannot run here says why.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

Figures = dict[str, float]
Side = Callable[[], Figures]


class Absent(Exception):
    """Why a side cannot run on this machine."""


def main(
    job: str,
    sides: dict[str, Side],
    *,
    key: str,
    ours: str = "tercet",
    products: tuple[float, str] | None = None,
) -> None:
    """The command line of a benchmark file. ``key``: the figure that is compared, more is better;
    sides whose name begins with ``ours`` are ours. ``products``: FLOPs of matrix products that one
    of ``key`` stands for, and their type, for the share of what this machine can do of them."""
    parser = argparse.ArgumentParser(description=job)
    parser.add_argument("--side", choices=list(sides), help="run one side once; prints JSON")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.side:
        try:
            figures = sides[asked.side]()
        except Absent as why:
            print(json.dumps({"absent": str(why)}))
            return
        print(json.dumps(figures))
        return
    found = {name: [] for name in sides}
    for _ in range(asked.rounds):
        for name, turns in found.items():
            if not (turns and "absent" in turns[0]):
                turns.append(_turn(name, asked.threads))
    rows = _rows(found, key, ours)
    if products is not None:
        peak = _matrix_peak(products[1], asked.threads)
        for row in rows:
            if key in row:
                row["share of the matrix peak"] = row[key] * products[0] / peak
    if asked.json:
        print(json.dumps({"job": job, "threads": asked.threads, "rows": rows}))
        return
    print(f"{job}; {asked.threads} threads, {asked.rounds} turns each, medians")
    for row in rows:
        print("  " + "  ".join(f"{name} {_said(value)}" for name, value in row.items()))


def _turn(name: str, threads: int) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, sys.argv[0], "--side", name],
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode:
        return {"absent": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


PEAK = """
import sys, time, torch
from tercet.kernels.linear import times
x = torch.randn(2048, 2048, dtype=getattr(torch, sys.argv[1]))
took = []
for _ in range(30):
    start = time.perf_counter()
    times(x, x)
    took.append(time.perf_counter() - start)
print(2 * 2048**3 / sorted(took)[10])
"""


def _matrix_peak(kind: str, threads: int) -> float:
    """FLOP/s of a product of 2048 x 2048 matrices, now and in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", PEAK, kind]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return float(done.stdout)


def _rows(found: dict[str, list[Any]], key: str, ours: str) -> list[dict[str, Any]]:
    """A row a side: medians, and behind ours the ratio to the best of the others."""
    rows = []
    for name, turns in found.items():
        if "absent" in turns[0]:
            rows.append({"side": name, "absent": turns[0]["absent"]})
            continue
        medians = {k: statistics.median(turn[k] for turn in turns) for k in turns[0]}
        rows.append({"side": name, **medians})
    best = max((r.get(key, 0.0) for r in rows if not r["side"].startswith(ours)), default=0.0)
    for row in rows:
        if row["side"].startswith(ours) and best:
            row["ratio to the best peer"] = row[key] / best
    return rows


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def timed(step: Callable[[], Any], tokens: Callable[[], int], steps: int, warm: int) -> float:
    """Tokens a second over ``steps`` steps, after ``warm`` ones; ``tokens``: of the last step."""
    for _ in range(warm):
        step()
    total, started = 0, time.perf_counter()
    for _ in range(steps):
        step()
        total += tokens()
    return total / (time.perf_counter() - started)


def memory(name: str) -> int:
    """Bytes of this process from the system: VmRSS now, VmHWM at its largest."""
    with open("/proc/self/status") as file:
        row = next(line for line in file if line.startswith(name))
    return 1024 * int(row.split()[1])

"""Two or more ways to do one job, in processes that take turns: medians, and the ratio to the best.

A benchmark file names its sides; for each turn of a side it is started again with ``--side NAME``,
by the Python of the side's own environment (peers.py), and prints one JSON object of figures. A
side that cannot run here says why. Sides are compared within their group, such as a precision.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peers import CORE, Absent, python

Figures = dict[str, float]
Run = Callable[[], Figures]
Limits = dict[str, tuple[float, str]]
MEMORY = "memory"  # a kind of limit: bytes that are read, instead of products of a type


@dataclass(frozen=True)
class Side:
    """One way to do the job. ``environment``: the file of benchmarks/peers/ that lists what it
    needs; ``group``: it is compared with the sides of the same."""

    run: Run
    environment: str = CORE
    group: str = ""


def main(
    job: str,
    sides: dict[str, Side] | dict[str, Run],
    *,
    key: str,
    ours: str = "tercet",
    prepare: Callable[[], Limits] = dict,
) -> None:
    """The command line of a benchmark file. ``key``: the figure that is compared, more is better;
    sides whose name begins with ``ours`` are ours. ``prepare`` makes what the sides read, before
    the first turn, and says by group what one of ``key`` stands for: FLOPs of matrix products and
    their type, or bytes and MEMORY, for the share of what this machine can do of them."""
    all_sides = {n: s if isinstance(s, Side) else Side(s) for n, s in sides.items()}
    parser = argparse.ArgumentParser(description=job)
    parser.add_argument("--side", choices=list(sides), help="run one side once; prints JSON")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.side:
        try:
            figures = all_sides[asked.side].run()
        except Absent as why:
            figures = {"absent": str(why)}
        print(json.dumps(figures), flush=True)
        os._exit(0)  # some peers fall over while they leave
    limits = prepare()
    found = {name: [] for name in sides}
    for _ in range(asked.rounds):
        for name, turns in found.items():
            if not (turns and "absent" in turns[-1]):
                turns.append(turn(name, all_sides[name].environment, asked.threads))
    groups = {name: side.group for name, side in all_sides.items()}
    rows = _rows(found, groups, key, ours)
    reached = {kind: _reached(kind, asked.threads) for kind in {k for _, k in limits.values()}}
    for row in rows:
        cost, kind = limits.get(groups[row["side"]], (0.0, ""))
        if cost and key in row:
            of = "memory's bandwidth" if kind == MEMORY else "matrix peak"
            row[f"share of the {of}"] = row[key] * cost / reached[kind]
    if asked.json:
        print(json.dumps({"job": job, "threads": asked.threads, "rows": rows}))
        return
    print(f"{job}; {asked.threads} threads, {asked.rounds} turns each, medians")
    for row in rows:
        print("  " + line_of(row))


def turn(name: str, environment: str, threads: int, *more: str) -> dict[str, Any]:
    """What one side prints, in a process of its own; ``more``: of the command line. A line tells of
    it at once, since all turns together may take half an hour."""
    found = _turn(name, environment, threads, *more)
    print(f"    {name}: {line_of(found)}", file=sys.stderr, flush=True)
    return found


def _turn(name: str, environment: str, threads: int, *more: str) -> dict[str, Any]:
    try:
        command = [python(environment), sys.argv[0], "--side", name, *more]
    except Absent as why:
        return {"absent": str(why)}
    done = subprocess.run(command, capture_output=True, text=True, env=_settings(threads))
    if done.returncode:
        said = done.stderr.strip() or f"it ended with {done.returncode}"
        return {"absent": said.splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _settings(threads: int) -> dict[str, str]:
    """The environment variables of every process that is measured: ``threads`` reads them."""
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **quiet, "OMP_NUM_THREADS": str(threads)}


def threads() -> int:
    """How many threads this side may use, for peers that must be told."""
    return int(os.environ.get("OMP_NUM_THREADS", "2"))


REACHED = """
import sys, time, torch
from tercet.kernels.linear import times
kind = sys.argv[1]
if kind == "memory":
    x = torch.ones(2**27)
    work, once = 4 * 2**27, x.sum
elif kind == "int8":
    x = torch.ones(2048, 2048, dtype=torch.int8)
    work, once = 2 * 2048**3, lambda: torch._int_mm(x, x)
else:
    x = torch.randn(2048, 2048, dtype=getattr(torch, kind))
    work, once = 2 * 2048**3, lambda: times(x, x)
took = []
for _ in range(30):
    start = time.perf_counter()
    once()
    took.append(time.perf_counter() - start)
print(work / sorted(took)[10])
"""


def _reached(kind: str, threads: int) -> float:
    """What this machine does now, in a process of its own: FLOP/s of a product of 2048 x 2048
    matrices, or for MEMORY bytes/s of a sum over half a gigabyte."""
    command = [sys.executable, "-c", REACHED, kind]
    settings = _settings(threads)
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=True)
    return float(done.stdout)


def _rows(
    found: dict[str, list[Any]], groups: dict[str, str], key: str, ours: str
) -> list[dict[str, Any]]:
    """A row a side: medians, and behind ours the ratio to the best of the others in its group."""
    rows, best = [], dict.fromkeys(groups.values(), 0.0)
    for name, turns in found.items():
        if "absent" in turns[-1]:
            rows.append({"side": name, "absent": turns[-1]["absent"]})
            continue
        medians = {k: statistics.median(turn[k] for turn in turns) for k in turns[0]}
        rows.append({"side": name, **medians})
        if not name.startswith(ours):
            best[groups[name]] = max(best[groups[name]], medians[key])
    for row in rows:
        peer = best[groups[row["side"]]]
        if row["side"].startswith(ours) and key in row and peer:
            row["ratio to the best peer"] = row[key] / peer
    return rows


def line_of(figures: dict[str, Any]) -> str:
    return "  ".join(f"{name} {said(value)}" for name, value in figures.items())


def said(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"({len(value)})"
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


def fastest(ways: Sequence[Any], run: Callable[[Any], Any]) -> Any:
    """The one of a peer's settings with which it is quickest here."""
    run(ways[0])  # whatever is made at first use
    took = []
    for way in ways:
        started = time.perf_counter()
        run(way)
        took.append(time.perf_counter() - started)
    return ways[took.index(min(took))]


def memory(name: str) -> int:
    """Bytes of this process from the system: VmRSS now, VmHWM at its largest."""
    with open("/proc/self/status") as file:
        row = next(line for line in file if line.startswith(name))
    return 1024 * int(row.split()[1])

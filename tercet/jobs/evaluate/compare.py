"""The verb `compare`: whether one model is better than another by the same questions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tercet.jobs.flags import print_json


@dataclass(frozen=True)
class Files:
    """What two evaluations have kept."""

    first: Annotated[Positional[str], arg(metavar="A", help_behavior_hint="")]
    """the file that an evaluation wrote with --out"""
    second: Annotated[Positional[str], arg(metavar="B", help_behavior_hint="")]
    """the one that it is compared with"""


def run(files: Files, *, json: bool = False) -> None:
    """Whether B is better than A, of two evaluations that answered the same questions.

    Each metric of both, the difference with its 95 % interval (the items drawn again, in pairs),
    and for right and wrong answers the probability p of so uneven a split where both are equally
    good (McNemar's exact test). A difference is shown below 0.05, or where the interval leaves
    out 0.

      tercet evaluate choice small arc_easy.jsonl --task arc-easy --out small.json
      tercet evaluate choice large arc_easy.jsonl --task arc-easy --out large.json
      tercet compare small.json large.json

    Args:
        json: one JSON object
    """
    from tercet.evaluate.results import compared, read

    first, second = read(files.first), read(files.second)
    found = compared(first, second)
    if json:
        rows = [{**asdict(one), "verdict": one.verdict} for one in found]
        about = {"measure": first.measure, "A": first.model, "B": second.model}
        print_json({**about, "items": len(first.items), "metrics": rows})
        return
    print(f"{first.measure}, {len(first.items):,} items; A: {first.model}, B: {second.model}")
    width = max(12, *(len(one.metric) + 2 for one in found))
    print(f"{'':{width}}{'A':>9}{'B':>10}{'B - A':>10}   95 % interval            p")
    for one in found:
        gain, p = one.gain, "" if one.p is None else f"{one.p:.4f}"
        print(
            f"{one.metric:{width}}{one.first:9.4f}{one.second:10.4f}{gain.mean:+10.4f}   "
            f"{gain.low:+.4f} to {gain.high:+.4f}{p:>10}   {one.verdict}"
        )

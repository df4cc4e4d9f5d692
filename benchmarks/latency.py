"""One short text into a vector, tokenisation with it: all-MiniLM-L6-v2, milliseconds.

make benchmark JOB=latency
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import inputs
from compare import Figures, Limits, Side, main
from encoders import ENCODERS

TEXT = "How do I read a file line by line?"
TIMES, WARM = 200, 20


def latency(name: str, precision: str) -> Figures:
    encoder = ENCODERS[name][0](precision)
    took = []
    for _ in range(WARM + TIMES):
        started = time.perf_counter()
        encoder([TEXT])
        took.append(time.perf_counter() - started)
    first = inputs.texts()[0][:1]
    median = statistics.median(took[WARM:])
    cosine = inputs.cosine(encoder(first))
    return {"texts/s": 1 / median, "ms": 1000 * median, "cosine of a text to float32": cosine}


def prepare() -> Limits:
    inputs.vectors()
    return {}


if __name__ == "__main__":
    sides = {
        f"{name} {precision}": Side(partial(latency, name, precision), environment, precision)
        for precision in ("float32", "bfloat16", "int8")
        for name, (_, environment, precisions) in ENCODERS.items()
        if precision in precisions
    }
    main("one short text, all-MiniLM-L6-v2", sides, key="texts/s", prepare=prepare)

"""One user, 32 tokens of prompt and 128 greedy ones behind it: GPT-2's 124 M shapes, random
weights. Tokens a second are counted from the first to the last.

    make benchmark JOB=decode
"""

from __future__ import annotations

import math
import statistics
import time
from functools import partial

import inputs
from compare import MEMORY, Figures, Limits, Side, main
from decoders import DECODERS, PRECISIONS

TURNS = 3
PARAMETERS = 124_439_808 - 1024 * 768  # of the positions a single row is read
BITS = {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 4}


def decode(name: str, precision: str) -> Figures:
    decoder = DECODERS[name][0](precision)
    prompt, wanted = inputs.prompt(), inputs.greedy()
    speeds, firsts, written = [], [], []
    for turn in range(1 + TURNS):
        times = [time.perf_counter()]
        told = partial(lambda times: times.append(time.perf_counter()), times)
        written = decoder.write(prompt, len(wanted), told)
        assert len(times) == 1 + len(wanted), f"told of {len(times) - 1} tokens"
        if turn:  # the first warms up
            speeds.append((len(wanted) - 1) / (times[-1] - times[1]))
            firsts.append(1000 * (times[1] - times[0]))
    losses = decoder.losses(prompt + wanted)[len(prompt) - 1 :]
    alike = inputs.alike([written], [wanted])
    assert precision != "float32" or alike > 0.05, f"only {alike:.0%} of the tokens are right"
    return {
        "tokens/s": statistics.median(speeds),
        "first token ms": statistics.median(firsts),
        "perplexity of float32's text": math.exp(sum(losses) / len(losses)),
    }


def prepare() -> Limits:
    inputs.greedy()
    return {kind: (PARAMETERS * bits / 8, MEMORY) for kind, bits in BITS.items()}


if __name__ == "__main__":
    sides = {
        f"{name} {precision}": Side(partial(decode, name, precision), environment, precision)
        for precision in PRECISIONS
        for name, (_, environment, precisions) in DECODERS.items()
        if precision in precisions
    }
    main("decode, 124 M parameters, one user", sides, key="tokens/s", prepare=prepare)

"""8 users at once and 32, with prompts of 16 to 256 tokens and answers of 16 to 192: GPT-2's 124 M
shapes, random weights, greedy. The tokens of all answers, from the first prompt to the last token.

    make benchmark JOB=generate
"""

from __future__ import annotations

import time
from functools import partial

import inputs
from compare import Figures, Limits, Side, main
from decoders import DECODERS, PRECISIONS

USERS = (8, 32)
BLOCKS, OUTPUT = 12 * 12 * 768**2, inputs.VOCABULARY * 768  # weights that a token meets


def generate(name: str, precision: str, count: int) -> Figures:
    decoder, users = DECODERS[name][0](precision), inputs.users(count)
    decoder.serve([(prompt, wanted // 2) for prompt, wanted in users])  # warms up
    started = time.perf_counter()
    texts = decoder.serve(users)
    seconds = time.perf_counter() - started
    alike = inputs.alike(texts, inputs.answers(count))
    assert precision != "float32" or alike > 0.05, f"only {alike:.0%} of the tokens are right"
    return {"tokens/s": sum(map(len, texts)) / seconds}


def prepare() -> Limits:
    limits = {}
    for count in USERS:
        inputs.answers(count)
        read = sum(len(prompt) + wanted for prompt, wanted in inputs.users(count))
        written = sum(wanted for _, wanted in inputs.users(count))
        each = 2 * (read * BLOCKS / written + OUTPUT)
        for kind in ("float32", "bfloat16", "int8"):
            limits[f"{kind}, {count} users"] = each, kind
    return limits


if __name__ == "__main__":
    sides = {
        f"{name} {precision}, {count} users": Side(
            partial(generate, name, precision, count), environment, f"{precision}, {count} users"
        )
        for count in USERS
        for precision in PRECISIONS
        for name, (_, environment, precisions) in DECODERS.items()
        if precision in precisions
    }
    main("many users, 124 M parameters", sides, key="tokens/s", prepare=prepare)

"""2,000 texts of mixed length into vectors, tokenisation with it: all-MiniLM-L6-v2.

make benchmark JOB=encode
"""

from __future__ import annotations

import time
from functools import partial

import inputs
from compare import Figures, Limits, Side, main
from encoders import ENCODERS

PRODUCTS = 2 * 6 * 12 * 384**2  # FLOPs a token: 6 layers, attention's own products not counted


def encode(name: str, precision: str) -> Figures:
    texts, _ = inputs.texts()
    encoder = ENCODERS[name][0](precision)
    encoder(texts[:200])
    started = time.perf_counter()
    vectors = encoder(texts)
    seconds = time.perf_counter() - started
    return {"texts/s": len(texts) / seconds, "cosine to float32": inputs.cosine(vectors)}


def prepare() -> Limits:
    texts, tokens = inputs.texts()
    inputs.vectors()
    each = PRODUCTS * tokens / len(texts)
    return {kind: (each, kind) for kind in ("float32", "bfloat16", "int8")}


if __name__ == "__main__":
    sides = {
        f"{name} {precision}": Side(partial(encode, name, precision), environment, precision)
        for precision in ("float32", "bfloat16", "int8")
        for name, (_, environment, precisions) in ENCODERS.items()
        if precision in precisions
    }
    main("encode 2,000 texts, all-MiniLM-L6-v2", sides, key="texts/s", prepare=prepare)

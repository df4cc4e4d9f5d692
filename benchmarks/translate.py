"""64 sentences of 20 pieces into 20 pieces each, with 4 beams: Marian's base shapes, 6 + 6 layers,
width 512, vocabulary of 32,000, random weights. Output pieces a second; the BLEU tells whether a
side does the same work, not how well a trained network would stand its precision.

    make benchmark JOB=translate
"""

# pyright: reportMissingImports=false
# (peers live in environments of their own)

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import inputs
from compare import Figures, Limits, Side, fastest, main, threads

Texts = list[list[int]]
BATCHES = (16, 32, 64)  # sentences at once: a peer's best is searched for
# FLOPs of an output piece: its 4 beams through the decoder, and a sentence's share of reading
BLOCK, OUTPUT = 6 * (6 * 512**2 + 2 * 512 * 2048), 512 * inputs.PIECES
READ = 6 * (6 * 512**2 + 2 * 512 * 2048)  # the encoder, and keys and values for the decoder
PRODUCTS = 2 * (inputs.BEAMS * (BLOCK + OUTPUT) + READ)


def tercet(precision: str) -> Callable[[], Texts]:
    import torch

    from tercet import hf
    from tercet.generate import Beam, TokenRules, beam_search
    from tercet.model.quantize import quantise

    dtype = torch.float32 if precision == "int8" else getattr(torch, precision)
    network: Any = hf.load(inputs.marian(), dtype=dtype)[0]
    if precision == "int8":
        quantise(network, 8)
    beam, rules = Beam(inputs.BEAMS), TokenRules(never=(inputs.END, inputs.PAD))
    how: Any = dict(beam=beam, rules=rules, eos_ids=(), max_new_tokens=inputs.LENGTH)

    def translate() -> Texts:
        found = beam_search(network, None, sources=inputs.sentences(), **how)
        return [best[0].ids for best in found]

    return translate


def transformers(precision: str) -> Callable[[], Texts]:
    import torch
    from transformers import MarianMTModel

    dtype, folder = getattr(torch, precision), inputs.marian()
    model: Any = MarianMTModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    model.eval()
    fixed = dict(min_new_tokens=inputs.LENGTH, max_new_tokens=inputs.LENGTH)
    how: Any = dict(num_beams=inputs.BEAMS, bad_words_ids=[[inputs.PAD]], **fixed)
    ids = torch.tensor(inputs.sentences())

    def batched(size: int) -> Texts:
        with torch.inference_mode():
            parts = [model.generate(part, **how)[:, 1:].tolist() for part in ids.split(size)]
        return sum(parts, [])

    return partial(batched, fastest(BATCHES, batched))


def ctranslate2(precision: str) -> Callable[[], Texts]:
    import ctranslate2 as package

    def make(folder: Path) -> None:
        converter = package.converters.TransformersConverter(str(inputs.marian()))
        converter.convert(str(folder), force=True)

    folder = str(inputs.made("marian-ctranslate2", make))
    translator = package.Translator(folder, compute_type=precision, intra_threads=threads())
    tokens = [[*(f"w{i}" for i in ids[:-1]), "</s>"] for ids in inputs.sentences()]
    fixed = dict(min_decoding_length=inputs.LENGTH, max_decoding_length=inputs.LENGTH)
    how: Any = dict(beam_size=inputs.BEAMS, **fixed)

    def batched(size: int) -> Texts:
        found = translator.translate_batch(tokens, max_batch_size=size, **how)
        return [[int(name[1:]) for name in one.hypotheses[0]] for one in found]

    return partial(batched, fastest(BATCHES, batched))


WAYS = {
    "tercet": (tercet, "core", ("float32", "bfloat16", "int8")),
    "transformers": (transformers, "core", ("float32", "bfloat16")),
    "CTranslate2": (ctranslate2, "ctranslate2", ("float32", "int8")),
}


def timed(name: str, precision: str) -> Figures:
    from sacrebleu import corpus_bleu

    translate = WAYS[name][0](precision)
    translate()
    started = time.perf_counter()
    texts = translate()
    seconds = time.perf_counter() - started
    wanted = inputs.translations()
    assert all(len(text) == inputs.LENGTH for text in texts), "texts of another length"
    said, reference = ([" ".join(map(str, text)) for text in some] for some in (texts, wanted))
    bleu = corpus_bleu(said, [reference], tokenize="none", force=True).score
    assert precision != "float32" or bleu > 50, f"BLEU {bleu:.0f} against transformers' float32"
    return {
        "output tokens/s": inputs.LENGTH * len(texts) / seconds,
        "BLEU against float32": bleu,
    }


def prepare() -> Limits:
    inputs.translations()
    return {kind: (PRODUCTS, kind) for kind in ("float32", "bfloat16", "int8")}


if __name__ == "__main__":
    sides = {
        f"{name} {precision}": Side(partial(timed, name, precision), environment, precision)
        for precision in ("float32", "bfloat16", "int8")
        for name, (_, environment, precisions) in WAYS.items()
        if precision in precisions
    }
    main("translate, 4 beams", sides, key="output tokens/s", prepare=prepare)

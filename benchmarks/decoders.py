"""Every way to write with the GPT-2 of random weights, from ids to ids: each function takes a
precision, loads the model and gives a Decoder. decode.py and generate.py time them.
"""

# pyright: reportMissingImports=false
# (peers live in environments of their own)

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import inputs
from compare import fastest, threads

Ids = list[int]
Requests = list[tuple[Ids, int]]  # prompts, and how many tokens are wanted behind each


@dataclass(frozen=True)
class Decoder:
    """write(prompt, count, told) -> ids, greedy; ``told`` is called at every token.
    serve(requests) -> the ids of each, greedy, as many at once as the peer likes.
    losses(ids) -> nats of ids[1:], each behind those before it."""

    write: Callable[[Ids, int, Callable[[], None]], Ids]
    serve: Callable[[Requests], list[Ids]]
    losses: Callable[[Ids], list[float]]


def tercet(precision: str) -> Decoder:
    import torch

    from tercet import hf
    from tercet.generate import generate
    from tercet.generate.batcher import Batcher
    from tercet.generate.prompts import Finished
    from tercet.model import flatten
    from tercet.model.quantize import quantise

    bits = {"int8": 8, "int4": 4}.get(precision)
    dtype = torch.float32 if bits else getattr(torch, precision)
    network: Any = hf.load(inputs.gpt2(), dtype=dtype)[0]
    if bits:
        quantise(network, bits)

    def write(prompt: Ids, count: int, told: Callable[[], None]) -> Ids:
        how: Any = dict(max_new_tokens=count, eos_ids=(), on_token=lambda *_: told())
        return generate(network, [prompt], **how)[0].ids

    def serve(requests: Requests) -> list[Ids]:
        batcher, done = Batcher(network), {}
        for name, (prompt, wanted) in enumerate(requests):
            batcher.submit(name, prompt, max_new_tokens=wanted, eos_ids=())
        while batcher.busy:
            for name, answer in batcher.step().items():
                if isinstance(answer, Finished):
                    done[name] = answer.ids
        return [done[name] for name in range(len(requests))]

    @torch.inference_mode()
    def losses(ids: Ids) -> list[float]:
        tokens, layout = flatten([ids])
        logits = network.logits(network.states(tokens, layout)[:-1]).float()
        return torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="none").tolist()

    return Decoder(write, serve, losses)


def transformers(precision: str) -> Decoder:
    """A batch of prompts padded on the left goes on until the longest answer is written."""
    import torch
    from transformers import GPT2LMHeadModel

    dtype: Any = getattr(torch, precision)
    folder = inputs.gpt2()
    model: Any = GPT2LMHeadModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    model.eval()

    def run(prompts: list[Ids], count: int, **more: Any) -> list[Ids]:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        how = dict(do_sample=False, max_new_tokens=count, eos_token_id=None, pad_token_id=0)
        with torch.inference_mode():
            return model.generate(ids, attention_mask=mask, **how, **more)[:, longest:].tolist()

    class Told:
        """A streamer: it is handed the prompt first."""

        def __init__(self, told: Callable[[], None]) -> None:
            self.told, self.begun = told, False

        def put(self, value: Any) -> None:
            if self.begun:
                self.told()
            self.begun = True

        def end(self) -> None: ...

    def write(prompt: Ids, count: int, told: Callable[[], None]) -> Ids:
        return run([prompt], count, streamer=Told(told))[0]

    def serve(requests: Requests) -> list[Ids]:
        texts = run([prompt for prompt, _ in requests], max(wanted for _, wanted in requests))
        return [text[:wanted] for text, (_, wanted) in zip(texts, requests)]

    @torch.inference_mode()
    def losses(ids: Ids) -> list[float]:
        tokens = torch.tensor(ids)
        logits = model(tokens[None]).logits[0, :-1].float()
        return torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="none").tolist()

    return Decoder(write, serve, losses)


def ctranslate2(precision: str) -> Decoder:
    """Its batch reads the shortest prompt at once and the rest of the longer ones token by token,
    so how many prompts go together is searched for."""
    import ctranslate2 as package

    def make(folder: Path) -> None:
        converter = package.converters.TransformersConverter(str(inputs.gpt2()))
        converter.convert(str(folder), force=True)

    folder = str(inputs.made("gpt2-ctranslate2", make))
    generator = package.Generator(folder, compute_type=precision, intra_threads=threads())

    def run(prompts: list[Ids], count: int, **more: Any) -> list[Ids]:
        tokens = [[f"w{i}" for i in prompt] for prompt in prompts]
        how = dict(max_length=count, min_length=count, include_prompt_in_result=False)
        return [found.sequences_ids[0] for found in generator.generate_batch(tokens, **how, **more)]

    def write(prompt: Ids, count: int, told: Callable[[], None]) -> Ids:
        return run([prompt], count, callback=lambda step: told() or False)[0]

    best: dict[int, int] = {}  # by how many requests

    def serve(requests: Requests) -> list[Ids]:
        def batched(size: int) -> list[Ids]:
            left = [wanted for _, wanted in requests]

            def enough(step: Any) -> bool:
                left[step.batch_id] -= 1
                return left[step.batch_id] == 0

            most, prompts = max(left), [prompt for prompt, _ in requests]
            texts = run(prompts, most, max_batch_size=size, callback=enough)
            return [text[:wanted] for text, (_, wanted) in zip(texts, requests)]

        if len(requests) not in best:
            best[len(requests)] = fastest((1, 4, 8), batched)
        return batched(best[len(requests)])

    def losses(ids: Ids) -> list[float]:
        (found,) = generator.score_batch([[f"w{i}" for i in ids]])
        return [-value for value in found.log_probs]

    return Decoder(write, serve, losses)


def llama(precision: str) -> Decoder:
    """Texts side by side, in one memory or one each, whichever is quicker; ended ones leave."""
    import numpy as np
    from llama import Reader

    def run(reader: Reader, requests: Requests, told: Callable[[], None]) -> list[Ids]:
        reader.forget()
        written: list[Ids] = [[] for _ in requests]
        rows = [
            (token, place, text, place == len(prompt) - 1)
            for text, (prompt, _) in enumerate(requests)
            for place, token in enumerate(prompt)
        ]
        while rows:
            logits = reader.read(rows)
            ends, rows = [(place, text) for _, place, text, wanted in rows if wanted], []
            for (place, text), values in zip(ends, logits):
                written[text].append(int(np.argmax(values)))
                told()
                if len(written[text]) < requests[text][1]:
                    rows.append((written[text][-1], place + 1, text, True))
        return written

    alone = Reader(precision)
    best: dict[int, Reader] = {}  # by how many requests

    def write(prompt: Ids, count: int, told: Callable[[], None]) -> Ids:
        return run(alone, [(prompt, count)], told)[0]

    def serve(requests: Requests) -> list[Ids]:
        def by(reader: Reader) -> list[Ids]:
            return run(reader, requests, lambda: None)

        if len(requests) not in best:
            both = [Reader(precision, len(requests), unified) for unified in (False, True)]
            best[len(requests)] = fastest(both, by)
        return by(best[len(requests)])

    def losses(ids: Ids) -> list[float]:
        alone.forget()
        logits = alone.read([(token, i, 0, True) for i, token in enumerate(ids[:-1])])
        return [
            math.log(np.exp(row.astype(np.float64)).sum()) - float(row[token])
            for row, token in zip(logits, ids[1:])
        ]

    return Decoder(write, serve, losses)


# name of the side -> how, its environment, its precisions
DECODERS: dict[str, tuple[Callable[[str], Decoder], str, tuple[str, ...]]] = {
    "tercet": (tercet, "core", ("float32", "bfloat16", "int8", "int4")),
    "transformers": (transformers, "core", ("float32", "bfloat16")),
    "CTranslate2": (ctranslate2, "ctranslate2", ("float32", "int8")),
    "llama.cpp": (llama, "llama", ("float32", "bfloat16", "int8", "int4")),
}
PRECISIONS = ("float32", "bfloat16", "int8", "int4")

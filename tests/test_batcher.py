"""Requests that come, go and end at any moment are answered as each would be alone."""

from __future__ import annotations

import gc
import random
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.generate import Sampling, generate
from tercet.generate import batcher as batcher_module
from tercet.generate.batcher import Batcher
from tercet.generate.prompts import Finished
from tercet.kernels import library
from tercet.model import build

pytestmark = pytest.mark.skipif(library("tape") is None, reason="no C compiler")

DECODER = TransformerConfig(
    vocab_size=61,
    context_length=300,
    d_model=32,
    d_ff=64,
    n_heads=4,
    n_kv_heads=2,
    decoder_layers=2,
).replace(positions="rotary", eos_ids=(1,), init_std=0.4, window=70, local_layers=(1,))
NETWORK = build(DECODER, seed=1).eval()
MINUTES = 10
PAGE_BYTES = 2 * 2 * 2 * 64 * 8 * 4  # keys and values, layers, heads, tokens, width, float32


def drained(batcher: Batcher) -> dict:
    found = {}
    while batcher.busy:
        found |= {n: x for n, x in batcher.step().items() if isinstance(x, Finished)}
    return found


def test_each_is_written_as_it_would_be_alone():
    """Ragged prompts and lengths, greedy and sampled, in a store that holds a few of them."""
    draw = random.Random(4)
    asked = {}
    for name in range(30):
        prompt = [draw.randrange(2, 61) for _ in range(draw.choice([1, 3, 40, 90, 200]))]
        sampling = Sampling(temperature=draw.choice([0.0, 1.2]), top_k=20)
        how = {"max_new_tokens": draw.randint(1, 90), "sampling": sampling, "eos_ids": ()}
        asked[name] = (prompt, how)
    batcher = Batcher(NETWORK, memory=7 * PAGE_BYTES, texts=8)
    found, evicted = {}, 0
    for name, (prompt, how) in asked.items():
        batcher.submit(name, prompt, seed=name, **how)
        found |= {n: x for n, x in batcher.step().items() if isinstance(x, Finished)}
    while batcher.busy:
        found |= {n: x for n, x in batcher.step().items() if isinstance(x, Finished)}
        evicted += any(job.known > len(asked[job.name][0]) for job in batcher.scheduler.waiting)
    assert len(batcher.scheduler.free) == 7 and evicted and set(found) == set(asked)
    for name, (prompt, how) in asked.items():
        (alone,) = generate(NETWORK, [prompt], seed=name, **how)
        assert (found[name].ids, found[name].finish) == (alone.ids, alone.finish), name


def test_random_requests_leave_nothing_behind():
    """Lengths, stops and cancellations at random: everyone is answered, every page comes back."""
    draw = random.Random(7)
    batcher = Batcher(NETWORK, memory=12 * PAGE_BYTES, texts=10)
    wanted, answered, cancelled = set(), set(), set()
    for step in range(600):
        if len(batcher.requests) < 25 and step < 500:
            prompt = [draw.randrange(2, 61) for _ in range(draw.randint(1, 150))]
            limit = draw.randint(1, 60)
            ending = draw.choice([None, lambda ids, n=draw.randint(1, 60): len(ids) >= n])
            batcher.submit(step, prompt, max_new_tokens=limit, stopped=ending)
            wanted.add(step)
        if draw.random() < 0.1 and batcher.requests:
            name = draw.choice(list(batcher.requests))
            batcher.cancel(name)
            batcher.cancel(name)
            cancelled.add(name)
        answered |= {n for n, x in batcher.step().items() if isinstance(x, Finished)}
    answered |= set(drained(batcher))
    assert answered | cancelled == wanted and not answered & cancelled
    assert sorted(batcher.scheduler.free) == list(range(12)) and not batcher.scheduler.live


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc/self/statm")
def test_ten_minutes_of_requests_end_as_they_began():
    """Lengths, stops, cancellations, sampling: memory is flat from the second minute to the tenth,
    every request is answered, every page comes back."""
    draw, batcher = random.Random(11), Batcher(NETWORK, memory=40 * PAGE_BYTES, texts=20)
    submitted = finished = cancelled = 0
    began, held = time.monotonic(), []
    while (passed := time.monotonic() - began) < MINUTES * 60 or batcher.busy:
        if passed < MINUTES * 60 and len(batcher.requests) < 60:
            prompt = [draw.randrange(2, 61) for _ in range(draw.randint(1, 200))]
            sampling = Sampling(draw.choice([0.0, 0.9]), top_k=draw.choice([None, 20]))
            stop = draw.choice([None, lambda ids, n=draw.randint(1, 90): len(ids) >= n])
            how = {"max_new_tokens": draw.randint(1, 90), "sampling": sampling, "stopped": stop}
            batcher.submit(submitted, prompt, seed=submitted, **how)
            submitted += 1
        if draw.random() < 0.02:
            batcher.cancel(draw.choice(list(batcher.requests)))
            cancelled += 1
        finished += sum(isinstance(x, Finished) for x in batcher.step().values())
        if len(held) < passed // 60:
            gc.collect()
            held.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    assert finished + cancelled == submitted > 1000
    assert sorted(batcher.scheduler.free) == list(range(40)) and not batcher.scheduler.live
    assert max(held[1:]) < held[1] + (8 << 20), held  # bytes


def test_a_request_that_fails_fails_alone():
    batcher = Batcher(NETWORK, memory=12 * PAGE_BYTES)

    def broken(ids: list[int]) -> bool:
        raise ZeroDivisionError

    batcher.submit("good", [5, 6], max_new_tokens=5)
    batcher.submit("bad", [5, 6, 7], max_new_tokens=5, stopped=broken)
    batcher.submit("also good", [8], max_new_tokens=5)
    found: dict = {}
    while batcher.busy:
        found |= batcher.step()
    assert isinstance(found["bad"], ZeroDivisionError)
    for name, prompt in (("good", [5, 6]), ("also good", [8])):
        assert found[name].ids == generate(NETWORK, [prompt], max_new_tokens=5)[0].ids
    assert len(batcher.scheduler.free) == 12


@pytest.mark.parametrize("where", ["stopped", "sums"])
def test_a_step_that_is_interrupted_goes_on(where: str, monkeypatch) -> None:
    """Ctrl-C in a request's own function, or no memory for the sums: every text is as alone."""
    batcher, calls = Batcher(NETWORK, memory=12 * PAGE_BYTES), []

    def once(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt

    def stopped(ids: list[int]) -> bool:
        if where == "stopped":
            once()
        return False

    whole = batcher_module.log_sums
    if where == "sums":
        monkeypatch.setattr(batcher_module, "log_sums", lambda x: once() or whole(x))
    batcher.submit("short", [5], max_new_tokens=3)
    batcher.submit("a", [5, 6], max_new_tokens=6, stopped=stopped)
    batcher.submit("b", [5, 6, 7], max_new_tokens=6)
    found: dict = {}
    while batcher.busy:
        try:
            found |= batcher.step()
        except KeyboardInterrupt:
            continue
    for name, prompt, n in (("short", [5], 3), ("a", [5, 6], 6), ("b", [5, 6, 7], 6)):
        assert found[name].ids == generate(NETWORK, [prompt], max_new_tokens=n)[0].ids
    assert len(calls) > 3 and len(batcher.scheduler.free) == 12


def test_who_is_cancelled_while_a_token_is_chosen_gets_no_answer():
    """By another request's function, by its own, and a name that is taken again at once."""
    batcher = Batcher(NETWORK, memory=12 * PAGE_BYTES)
    told = []

    def cancels(ids: list[int]) -> bool:
        if not told:
            told.append(ids)
            batcher.cancel("other")
            batcher.cancel("again")
            batcher.submit("again", [9, 9], max_new_tokens=4)
        return False

    def cancels_itself(ids: list[int]) -> bool:
        batcher.cancel("itself")
        return len(ids) > 0

    batcher.submit("first", [5, 6], max_new_tokens=5, stopped=cancels)
    for name in ("other", "again"):
        batcher.submit(name, [7], max_new_tokens=5)
    batcher.submit("itself", [8], max_new_tokens=5, stopped=cancels_itself)
    found: dict = {}
    while batcher.busy:
        found |= batcher.step()
    assert set(found) == {"first", "again"}
    for name, prompt, n in (("first", [5, 6], 5), ("again", [9, 9], 4)):
        assert found[name].ids == generate(NETWORK, [prompt], max_new_tokens=n)[0].ids
    assert len(batcher.scheduler.free) == 12


def test_other_threads_may_cancel_at_any_moment():
    batcher, draw = Batcher(NETWORK, memory=30 * PAGE_BYTES, texts=20), random.Random(3)
    gone, over = set(), threading.Event()

    def cancel() -> None:
        while not over.is_set():
            name = draw.randrange(0, 120, 2)  # the odd ones stay
            batcher.cancel(name)
            gone.add(name)

    thread = threading.Thread(target=cancel)
    for name in range(120):
        batcher.submit(name, [2 + name % 50] * (1 + name % 90), max_new_tokens=1 + name % 20)
    thread.start()
    try:
        found = drained(batcher)
    finally:
        over.set()
        thread.join()
    assert set(range(1, 120, 2)) <= set(found) and set(range(120)) == set(found) | gone
    name = 91
    (alone,) = generate(NETWORK, [[2 + name % 50] * (1 + name % 90)], max_new_tokens=1 + name % 20)
    assert found[name].ids == alone.ids
    assert len(batcher.scheduler.free) == 30


def test_a_step_that_fails_is_taken_again(monkeypatch):
    batcher = Batcher(NETWORK, memory=12 * PAGE_BYTES)
    batcher.submit("a", [5] * 90, max_new_tokens=6)
    batcher.submit("b", [6, 7], max_new_tokens=6)
    draw, found = random.Random(5), {}

    def sometimes(work):
        def run(*inputs):
            done = work(*inputs)
            if draw.random() < 0.4:
                raise MemoryError
            return done

        return run

    for name in ("decode_pages", "logits"):
        monkeypatch.setattr(batcher.tape, name, sometimes(getattr(batcher.tape, name)))
    while batcher.busy:
        with suppress(MemoryError):
            found |= batcher.step()
    for name, prompt in (("a", [5] * 90), ("b", [6, 7])):
        assert found[name].ids == generate(NETWORK, [prompt], max_new_tokens=6)[0].ids


def test_dropout_stays_out_of_it():
    network = build(DECODER.replace(dropout=0.5), seed=1).train()
    batcher = Batcher(network, memory=4 * PAGE_BYTES)
    batcher.submit("a", [5, 6], max_new_tokens=8)
    found = drained(batcher)["a"].ids
    assert found == generate(NETWORK, [[5, 6]], max_new_tokens=8)[0].ids and network.training


def test_refusals():
    with pytest.raises(InputError, match="holds no page of 64 tokens"):
        Batcher(NETWORK, memory=PAGE_BYTES - 1)
    batcher = Batcher(NETWORK, memory=2 * PAGE_BYTES)
    with pytest.raises(InputError, match="does not fit into a memory for 128"):
        batcher.submit("a", [5] * 100, max_new_tokens=29)
    batcher.submit("a", [5] * 100, max_new_tokens=28)
    with pytest.raises(InputError, match="request 'a' is under way"):
        batcher.submit("a", [5])
    with pytest.raises(InputError, match="token id 61"):
        batcher.submit("b", [61])
    assert set(batcher.requests) == {"a"}
    assert batcher.step() == {} and batcher.step()  # 100 tokens in chunks of 64
    encoder = DECODER.replace(encoder_layers=1, decoder_layers=0, heads=("masked",), eos_ids=())
    with pytest.raises(InputError, match="for decoders"):
        Batcher(build(encoder, seed=0))
    with pytest.raises(InputError, match="for decoders"):
        Batcher(build(DECODER, seed=0).to(torch.float64))

"""Many requests at once, each with its own length, sampling and end: continuous batching.

A request may come and go at any moment; what is written for it depends on nothing but itself. For
decoders on a CPU that run as a tape.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.errors import InputError
from tercet.generate.prompts import Finished, Ids, Text, begin, checked
from tercet.generate.reader import Pick, ending, evaluating, grow, picker
from tercet.generate.sampling import GREEDY, NO_RULES, Sampling, TokenRules
from tercet.generate.scheduler import PAGE, Job, Scheduler
from tercet.model.tape import FEW, Pages, tape_of
from tercet.model.transformer import Transformer

MEMORY = 1 << 30  # bytes of keys and values


@dataclass
class _Request:
    text: Text
    pick: Pick
    ends: frozenset[int]
    stopped: Callable[[list[int]], bool] | None


class Batcher:
    """``memory``: bytes of keys and values at the most. Raises InputError for a network that is no
    decoder on a CPU, and for a memory that holds not even a page."""

    def __init__(self, network: Transformer, *, memory: int = MEMORY, texts: int = 48) -> None:
        tape = tape_of(network, network.decoder)
        if tape is None or network.encoder is not None:
            raise InputError(
                "continuous batching is for decoders in float32, bfloat16, int8 or int4 on a CPU "
                "with a C compiler"
            )
        self.network, self.tape = network, tape
        self.store = Pages(network, memory, PAGE)
        self.scheduler = Scheduler(self.store.n_pages, rows=FEW, texts=texts)
        self.requests: dict[Hashable, _Request] = {}

    def submit(
        self,
        name: Hashable,
        prompt: Ids,
        *,
        max_new_tokens: int | None = None,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        eos_ids: Ids | None = None,
        rules: TokenRules = NO_RULES,
        stopped: Callable[[list[int]], bool] | None = None,
    ) -> None:
        """A text to be written; arguments as in `generate`. Raises InputError as that does, for a
        name that is under way, and for a text that the memory could not hold alone."""
        if name in self.requests:
            raise InputError(f"request {name!r} is under way; choose another name")
        config = self.network.config
        checked(self.network, [prompt], None)
        sampling.check(config.vocab_size)
        (text,) = begin(self.network, [prompt], None, max_new_tokens=max_new_tokens)
        self.scheduler.add(name, len(text.window), text.limit)
        ends = frozenset(config.eos_ids if eos_ids is None else eos_ids)
        self.requests[name] = _Request(text, picker(sampling, seed, rules), ends, stopped)

    def cancel(self, name: Hashable) -> None:
        """Nobody wants it any more. A request that is not there (any more) is none to cancel."""
        self.scheduler.remove(name)
        self.requests.pop(name, None)

    @property
    def busy(self) -> bool:
        return bool(self.requests)

    @torch.no_grad()
    def step(self) -> dict[Hashable, int | Finished | Exception]:
        """One pass over the network: the tokens that were written, by request; where a text ended
        with its token, all of it; where its own choice failed, the error, which ends it alone."""
        turn = self.scheduler.turn()
        if not turn:
            return {}
        with evaluating(self.network):
            states = self._read(turn)
        sizes = torch.tensor([count for _, count in turn])
        due = [(job, int(at)) for (job, _), at in zip(turn, sizes.cumsum(0) - 1) if not job.unread]
        if not due:
            return {}
        logits = self.tape.logits(states[[at for _, at in due]])  # (B, V)
        return {job.name: self._grown(job, logits[i : i + 1]) for i, (job, _) in enumerate(due)}

    def _grown(self, job: Job, logits: Tensor) -> int | Finished | Exception:
        try:
            return self._grow(job, logits)
        except Exception as error:  # the others go on
            self.cancel(job.name)
            return error

    def _read(self, turn: list[tuple[Job, int]]) -> Tensor:
        """States of what is read now, text behind text; the scheduler counts it as read already."""
        ids, positions, places, pages = [], [], [], []
        for job, count in turn:
            start = job.read - count
            ids += self.requests[job.name].text.window[start : job.read]
            positions += range(start, job.read)
            places += [len(pages)] * count
            pages += job.pages
        tokens, position, text = torch.tensor([ids, positions, places])
        return self.tape.decode_pages(tokens, position, text, torch.tensor(pages), self.store)

    def _grow(self, job: Job, logits: Tensor) -> int | Finished:
        request = self.requests[job.name]
        text = request.text
        grow(text, logits, request.pick)
        stopped = request.stopped
        told = None if stopped is None else lambda index, ids: stopped(ids)
        text.finish = ending(text, request.ends, told)
        if text.finish is None:
            self.scheduler.wrote(job.name)
            return text.ids[-1]
        self.cancel(job.name)
        return text.finished()

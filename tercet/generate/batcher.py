"""Many requests at once, each with its own length, sampling and end: continuous batching.

A request may come and go at any moment; what is written for it depends on nothing but itself. For
decoders on a CPU that run as a tape.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tercet.errors import InputError
from tercet.generate.prompts import Finished, Form, Ids, Text, begin
from tercet.generate.reader import Pick, ending, grow, picker
from tercet.generate.sampling import GREEDY, NO_RULES, Sampling, TokenRules
from tercet.generate.scheduler import PAGE, Job, Scheduler
from tercet.kernels.best import log_sums
from tercet.model.borrowed import tape_of
from tercet.model.evaluating import evaluating
from tercet.model.tape import FEW, Pages
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
    decoder on a CPU, and for a memory that holds not even a page.

    Any thread may submit and cancel; it waits for a step that is under way."""

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
        self._ended: dict[Hashable, Any] = {}  # in a step that was interrupted: told in the next
        self._one = threading.RLock()  # what is asked while a token is chosen comes in by itself

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
        form: Callable[[], Form] | None = None,
    ) -> None:
        """A text to be written; arguments as in `generate`. Raises InputError as that does, for a
        name that is under way, and for a text that the memory could not hold alone."""
        config = self.network.config
        sampling.check(config.vocab_size)
        (text,) = begin(self.network, [prompt], None, max_new_tokens=max_new_tokens, form=form)
        ends = frozenset(config.eos_ids if eos_ids is None else eos_ids)
        with self._one:
            if name in self.requests:
                raise InputError(f"request {name!r} is under way; choose another name")
            self.scheduler.add(name, len(text.window), text.limit)
            self.requests[name] = _Request(text, picker(sampling, seed, rules), ends, stopped)

    def cancel(self, name: Hashable) -> None:
        """Nobody wants it any more: no answer comes. A request that is not there (any more) is none
        to cancel."""
        with self._one:
            self.scheduler.remove(name)
            self.requests.pop(name, None)

    @property
    def busy(self) -> bool:
        return bool(self.requests or self._ended)

    @torch.no_grad()
    def step(self) -> dict[Hashable, int | Finished | Exception]:
        """One pass over the network: the tokens that were written, by request; where a text ended
        with its token, all of it; where its own choice failed, the error, which ends it alone."""
        with self._one:
            turn = self.scheduler.turn()
            if not turn:
                ended, self._ended = self._ended, {}
                return ended
            try:
                with evaluating(self.network):
                    states = self._read(turn)
                sizes = torch.tensor([count for _, count in turn])
                ends = (sizes.cumsum(0) - 1).tolist()
                due = [(job, at) for (job, _), at in zip(turn, ends) if not job.unread]
                if not due:
                    return {}
                logits = self.tape.logits(states[[at for _, at in due]])  # (B, V)
                sums = log_sums(logits)  # (B,)
            except BaseException:
                self.scheduler.undo(turn)
                raise
            return self._written([job for job, _ in due], logits, sums)

    def _written(self, due: list[Job], logits: Tensor, sums: Tensor) -> dict[Hashable, Any]:
        """A token for each. What a request's own function cancels on the way gets no answer."""
        asked = {job.name: self.requests[job.name] for job in due}
        found, self._ended = self._ended, {}
        try:
            self._write(asked, logits, sums, found)
        except BaseException:  # Ctrl-C: who has no token yet reads its last one again
            self._ended = {name: x for name, x in found.items() if not isinstance(x, int)}
            self.scheduler.undo(
                [(job, 1) for job in due if job.name in self.requests and not job.unread]
            )
            raise
        # who got a token and was cancelled later in the same step is not told of it
        return {
            name: answer
            for name, answer in found.items()
            if not isinstance(answer, int) or self.requests.get(name) is asked[name]
        }

    def _write(
        self,
        asked: dict[Hashable, _Request],
        logits: Tensor,
        sums: Tensor,
        found: dict[Hashable, Any],
    ) -> None:
        rows = zip(asked.items(), logits.split(1), sums.split(1), strict=True)
        for (name, request), row, log_sum in rows:
            if self.requests.get(name) is not request:
                continue
            try:
                answer = self._grown(name, request, row, log_sum)
            except Exception as error:  # the others go on
                answer = error
            if self.requests.get(name) is not request:
                continue
            found[name] = answer
            if not isinstance(answer, int):
                self.cancel(name)

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

    def _grown(
        self, name: Hashable, request: _Request, logits: Tensor, log_sum: Tensor
    ) -> int | Finished:
        text, stopped = request.text, request.stopped
        grow(text, logits, request.pick, log_sum)
        told = None if stopped is None else lambda index, ids: stopped(ids)
        try:
            text.finish = ending(text, request.ends, told)
        except BaseException:
            text.take_back()
            raise
        if text.finish is not None:
            return text.finished()
        if self.requests.get(name) is request:
            self.scheduler.wrote(name)
        return text.ids[-1]

"""What reads and what chooses: a network behind a cache, and the choice of a step's tokens.

Knows ids, not text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tercet.errors import InputError
from tercet.generate.prompts import Ids, Text
from tercet.generate.sampling import (
    Sampling,
    TokenRules,
    choose,
    draw,
    log_probabilities,
    moved,
)
from tercet.model import Cache, Layout, Network, flatten
from tercet.model.borrowed import borrowed
from tercet.model.evaluating import evaluating
from tercet.model.recurrent import RecurrentCache
from tercet.model.tape import FEW, StackTape

AnyCache = Cache | RecurrentCache
Pick = Callable[[Tensor, list[Text]], Tensor]


def picker(sampling: Sampling, seed: int, rules: TokenRules) -> Pick:
    """The choice of a step: ids (B,) from logits (B, V) and the texts they continue."""

    free = TokenRules(rules.never)  # a grammar alone says how its text begins and ends

    def pick(logits: Tensor, texts: list[Text]) -> Tensor:
        n_new = len(texts[0].ids)
        seen, new = [text.window for text in texts], [text.ids for text in texts]
        scores = moved(logits, sampling, seen, new)
        own = rules if texts[0].form is None else free
        scores = own.apply(scores, n_new, [text.limit for text in texts])
        scores = _formed(scores, texts)
        if scores is not logits and (scores.amax(-1) == float("-inf")).any():
            raise InputError(
                "no token may follow: bias, the model's own rules and the grammar leave none"
            )
        if sampling.temperature == 0:
            return choose(scores, sampling)
        draws = [draw(seed, text.identity, n_new) for text in texts]
        exact = torch.tensor(draws, dtype=torch.float64, device=logits.device)
        return choose(scores, sampling, draws=exact)

    return pick


def grow(text: Text, logits: Tensor, pick: Pick, log_sum: Tensor | None = None) -> int:
    """One text by one token, chosen from logits (1, V). log_sum (1,): theirs, where it is known."""
    ids = pick(logits, [text])
    text.append(int(ids), log_probabilities(logits, ids, log_sum)[0])
    return text.ids[-1]


def ending(
    text: Text, ends: frozenset[int], stopped: Callable[[int, list[int]], bool] | None
) -> str | None:
    """Why a text that just grew is finished, or None."""
    if text.ids[-1] in ends or (stopped is not None and stopped(text.index, text.ids)):
        return "stop"
    if text.form is not None and text.form.complete(text.ids):
        return "stop"
    return "length" if len(text.ids) == text.limit else None


def _formed(scores: Tensor, texts: list[Text]) -> Tensor:
    """scores (B, V) without the tokens that would spoil what a text must become."""
    if all(text.form is None for text in texts):
        return scores
    allowed = torch.ones(scores.shape, dtype=torch.bool)
    for row, text in enumerate(texts):
        if text.form is not None:
            allowed[row] = torch.from_numpy(text.form.allowed(text.ids, scores.shape[1]))
    return scores.masked_fill(~allowed.to(scores.device), float("-inf"))


@contextmanager
def reading(network: Network) -> Iterator[Reader]:
    """A reader, while the network evaluates."""
    with evaluating(network), borrowed(network, getattr(network, "decoder", None)) as tape:
        yield Reader(network, tape)


class Reader:
    """Reads tokens behind a cache: few by the network's tape where it has one, many by itself."""

    def __init__(self, network: Network, tape: StackTape | None) -> None:
        self.network, self.tape = network, tape
        self.device = next(network.parameters()).device

    @torch.no_grad()
    def cache(self, sources: Sequence[Ids | None], *, reordered: int = 0) -> AnyCache:
        """An empty cache for as many texts; their sources (None: a decoder's have none) are
        encoded, and their keys computed, once. reordered: as of ``Transformer.new_cache``."""
        given = [list(source) for source in sources if source is not None]
        if not given:
            return self.network.new_cache(len(sources), reordered=reordered)
        tokens, layout = flatten(given, device=self.device)
        memory = self.network.encode(tokens, layout)  # (N, D)
        kept = {"memory": memory, "memory_layout": layout}
        return self.network.new_cache(len(sources), **kept, reordered=reordered)

    @torch.no_grad()
    def read(self, cache: AnyCache, unread: Sequence[Ids], *, behind: int | None = None) -> Tensor:
        """Logits (B, V) behind the last of each text's unread tokens, which the cache then holds;
        ``behind``: of a single text (behind, V), behind its last tokens."""
        ids = [token for text in unread for token in text]
        tokens = torch.tensor(ids, device=self.device)  # (N,)
        layout = Layout([len(text) for text in unread], past=cache.lengths, device=self.device)
        rows: Tensor | slice = slice(None)
        if behind is not None and behind < len(ids):
            rows = slice(len(ids) - behind, None)
        elif behind is None and len(ids) > len(unread):
            rows = layout.last
        if self.tape is not None and len(ids) <= FEW and isinstance(cache, Cache):
            if rows == slice(None):
                return self.tape.decode(tokens, layout, cache, logits=True)
            return self.tape.logits(self.tape.decode(tokens, layout, cache)[rows])
        # A network takes the cache that it made itself, which the two types cannot say.
        states = self.network.decode(tokens, layout, cache=cache)  # type: ignore[arg-type]
        return self.network.logits(states[rows])


class Kept:
    """What was read of a text, for another that begins alike: the next turn of a conversation."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.cache: AnyCache | None = None

    def read(self, reader: Reader, window: list[int]) -> tuple[AnyCache, Tensor]:
        """A cache that has read the window, and the logits (1, V) behind it. It is lent: what was
        not given back by `keep` is not known to be whole."""
        cache, self.cache = self.cache, None
        same = 0
        while same < min(len(self.ids), len(window) - 1) and self.ids[same] == window[same]:
            same += 1
        if cache is None or same == 0 or not isinstance(cache, Cache):
            cache, same = reader.cache([None]), 0
        cache.rewind([same])
        return cache, reader.read(cache, [window[same:]])

    def keep(self, cache: AnyCache, window: list[int]) -> None:
        """After a text: `window` begins with what the cache has read."""
        self.cache, self.ids = cache, window[: cache.lengths[0]]

"""Writing texts token by token: one prefill of ragged prompts, then one token a step for each.

`run` is the mechanism, a generator; what to choose and when to end are functions handed in.
A prefill, a step and a slid window differ only in how many tokens of a text are unread, so they
are one path. Finished texts leave the batch. Knows ids, not text: stop strings and decoding live
where the tokenizer is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tercet.generate.prompts import Finished, Ids, Text, begin, checked, groups
from tercet.generate.sampling import (
    GREEDY,
    NO_RULES,
    Sampling,
    TokenRules,
    choose,
    draw,
    log_probabilities,
    moved,
)
from tercet.model import Cache, Layout, Network, flatten
from tercet.model.recurrent import RecurrentCache
from tercet.model.tape import FEW, tape_of

AnyCache = Cache | RecurrentCache


def generate(
    network: Network,
    prompts: Sequence[Ids] | None,
    *,
    max_new_tokens: int | None = None,
    sampling: Sampling = GREEDY,
    eos_ids: Ids | None = None,
    seed: int = 0,
    sources: Sequence[Ids] | None = None,
    overflow: str = "error",
    rules: TokenRules = NO_RULES,
    on_token: Callable[[int, int], None] | None = None,
    stopped: Callable[[int, list[int]], bool] | None = None,
) -> list[Finished]:
    """Continues each prompt; with `sources`, writes an encoder–decoder's answer to each of them.

    prompts: token ids a text; None for an encoder–decoder: its start token.
    max_new_tokens: None runs to the edge of the context.
    eos_ids: ids that end a text; None: the configuration's; () never ends one.
    seed: with it and the prompt, a sampled text is decided: the batch does not matter.
    overflow: "error", or "slide": at the edge the oldest tokens are dropped (`Text.slide`).
    on_token(index, id): told of every token. stopped(index, ids) -> True: the text ends there.
    Raises InputError: an encoder, empty prompt, foreign id, no room, not a positive number of new
    tokens, prompt and new tokens beyond the context.
    """
    prompts, sources = checked(network, prompts, sources)
    sampling.check(network.config.vocab_size)
    texts = begin(network, prompts, sources, max_new_tokens=max_new_tokens, overflow=overflow)
    ends = frozenset(network.config.eos_ids if eos_ids is None else eos_ids)
    pick = picker(sampling, seed, rules)
    for together, their_sources in groups(texts, sources):
        for live in run(network, together, their_sources, pick):
            for text in live:
                if on_token is not None:
                    on_token(text.index, text.ids[-1])
                text.finish = _finish(text, ends, stopped)
    return [text.finished() for text in texts]


def stream(
    network: Network,
    prompt: Ids | None,
    *,
    max_new_tokens: int | None = None,
    sampling: Sampling = GREEDY,
    eos_ids: Ids | None = None,
    seed: int = 0,
    source: Ids | None = None,
    overflow: str = "error",
    rules: TokenRules = NO_RULES,
) -> Generator[int, None, Finished]:
    """The ids of `generate`, one by one as they are written; returns its Finished.

    Input is checked at the call, not at the first id. Closing the generator ends the text.
    """
    prompts, sources = checked(
        network, None if prompt is None else [prompt], None if source is None else [source]
    )
    sampling.check(network.config.vocab_size)
    texts = begin(network, prompts, sources, max_new_tokens=max_new_tokens, overflow=overflow)
    ends = frozenset(network.config.eos_ids if eos_ids is None else eos_ids)

    def write() -> Generator[int, None, Finished]:
        for (text,) in run(network, texts, sources, picker(sampling, seed, rules)):
            text.finish = _finish(text, ends, None)
            yield text.ids[-1]
        return texts[0].finished()

    return write()


def _finish(
    text: Text, ends: frozenset[int], stopped: Callable[[int, list[int]], bool] | None
) -> str | None:
    if text.ids[-1] in ends or (stopped is not None and stopped(text.index, text.ids)):
        return "stop"
    return "length" if len(text.ids) == text.limit else None


# the mechanism ---------------------------------------------------------------------------------

Pick = Callable[[Tensor, list[Text]], Tensor]


def picker(sampling: Sampling, seed: int, rules: TokenRules) -> Pick:
    """The choice of a step: ids (B,) from logits (B, V) and the texts they continue."""

    def pick(logits: Tensor, texts: list[Text]) -> Tensor:
        n_new = len(texts[0].ids)
        seen, new = [text.window for text in texts], [text.ids for text in texts]
        scores = moved(logits, sampling, seen, new)
        scores = rules.apply(scores, n_new, [text.limit for text in texts])
        if sampling.temperature == 0:
            return choose(scores, sampling)
        draws = [draw(seed, text.identity, n_new) for text in texts]
        exact = torch.tensor(draws, dtype=torch.float64, device=logits.device)
        return choose(scores, sampling, draws=exact)

    return pick


def run(
    network: Network, texts: list[Text], sources: Sequence[Ids] | None, pick: Pick
) -> Iterator[list[Text]]:
    """Yields the texts that just grew by a token; the caller sets `finish` on those that end."""
    context, bos_id = network.config.context_length, network.config.bos_id
    with reading(network) as reader:
        cache, logits = _begun(reader, texts, sources)  # (B, V)
        live = list(texts)
        while True:
            ids = pick(logits, live)  # (B,)
            for text, token, log_probability in zip(
                live, ids.tolist(), log_probabilities(logits, ids).tolist(), strict=True
            ):
                text.append(token, log_probability)
            yield live
            rows = [row for row, text in enumerate(live) if text.finish is None]
            if not rows:
                return
            if len(rows) < len(live):
                cache.reorder(torch.tensor(rows, device=logits.device))
            live = [live[row] for row in rows]
            for text in live:
                if len(text.window) >= context:
                    text.slide(context, bos_id)
            _read_again(cache, live)
            logits = reader.read(cache, [text.window[-text.unread :] for text in live])


def _begun(
    reader: Reader, texts: list[Text], sources: Sequence[Ids] | None
) -> tuple[AnyCache, Tensor]:
    """A cache that has read all windows, equal ones once, and the logits (B, V) behind them."""
    given = sources or [()] * len(texts)
    keys = [(tuple(text.window), tuple(source)) for text, source in zip(texts, given, strict=True)]
    different = list(dict.fromkeys(keys))
    own = None if sources is None else [source for _, source in different]
    cache = reader.cache(len(different), own)
    logits = reader.read(cache, [window for window, _ in different])
    for text in texts:
        text.slid = False
    if len(different) < len(keys):
        rows = torch.tensor([different.index(key) for key in keys], device=logits.device)
        cache.reorder(rows)
        logits = logits[rows]
    return cache, logits


def _read_again(cache: AnyCache, texts: list[Text]) -> None:
    """Empties the cache of texts whose window moved: positions of all their tokens changed."""
    if any(text.slid for text in texts):
        lengths = zip(texts, cache.lengths, strict=True)
        cache.rewind([0 if text.slid else length for text, length in lengths])
        for text in texts:
            text.slid = False


@contextmanager
def reading(network: Network) -> Iterator[Reader]:
    """Without dropout; a network that was training trains on afterwards."""
    training = network.training
    network.eval()
    try:
        yield Reader(network)
    finally:
        network.train(training)


class Reader:
    """Reads tokens behind a cache: few by the network's tape where it has one, many by itself."""

    def __init__(self, network: Network) -> None:
        self.network, self.tape = network, tape_of(network, getattr(network, "decoder", None))
        self.device = next(network.parameters()).device

    @torch.no_grad()
    def cache(self, n_texts: int, sources: Sequence[Ids] | None) -> AnyCache:
        """An empty cache for `n_texts`; sources are encoded, and their keys computed, once."""
        if sources is None:
            return self.network.new_cache(n_texts)
        tokens, layout = flatten([list(source) for source in sources], device=self.device)
        memory = self.network.encode(tokens, layout)  # (N, D)
        return self.network.new_cache(n_texts, memory=memory, memory_layout=layout)

    @torch.no_grad()
    def read(self, cache: AnyCache, unread: Sequence[Ids]) -> Tensor:
        """Logits (B, V) behind the last of each text's unread tokens, which the cache then
        holds."""
        ids = [token for text in unread for token in text]
        tokens = torch.tensor(ids, device=self.device)  # (N,)
        layout = Layout([len(text) for text in unread], past=cache.lengths, device=self.device)
        if self.tape is not None and len(ids) <= FEW and isinstance(cache, Cache):
            states = self.tape.decode(tokens, layout, cache)  # (N, D)
            return self.tape.logits(states[layout.last])
        # A network takes the cache that it made itself, which the two types cannot say.
        states = self.network.decode(tokens, layout, cache=cache)  # type: ignore[arg-type]
        return self.network.logits(states[layout.last])

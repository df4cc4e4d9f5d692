"""Writing texts token by token: one prefill of ragged prompts, then one token a step for each.

`run` is the mechanism, a generator; what to choose and when to end are functions handed in.
A prefill, a step and a slid window differ only in how many tokens of a text are unread, so they
are one path. Finished texts leave the batch. Knows ids, not text: stop strings and decoding live
where the tokenizer is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tercet.generate.prompts import Finished, Form, Ids, Text, begin, groups
from tercet.generate.reader import AnyCache, Kept, Pick, Reader, ending, picker, reading
from tercet.generate.sampling import GREEDY, NO_RULES, Sampling, TokenRules, log_probabilities
from tercet.generate.speculation import Draft, check_draft, speculate
from tercet.model import Network


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
    draft: Draft | None = None,
    form: Callable[[], Form] | None = None,
) -> list[Finished]:
    """Continues each prompt; with `sources`, writes an encoder–decoder's answer to each of them.

    prompts: token ids a text; None for an encoder–decoder: its start token.
    max_new_tokens: None runs to the edge of the context.
    eos_ids: ids that end a text; None: the configuration's; () never ends one.
    seed: with it and the prompt, a sampled text is decided: the batch does not matter.
    overflow: "error", or "slide": at the edge the oldest tokens are dropped (`Text.slide`).
    on_token(index, id): told of every token. stopped(index, ids) -> True: the text ends there.
    form: makes what a text must become (`grammar.Form`), for each anew.
    draft: guesses that are read many at a time, a text after the other; no text changes by it.
    Raises InputError: an encoder, empty prompt, foreign id, no room, not a positive number of new
    tokens, prompt and new tokens beyond the context.
    """
    sampling.check(network.config.vocab_size)
    if draft is not None:
        check_draft(network, draft)
    how: Any = {"max_new_tokens": max_new_tokens, "overflow": overflow, "form": form}
    texts = begin(network, prompts, sources, **how)
    ends = frozenset(network.config.eos_ids if eos_ids is None else eos_ids)
    for live in _written(network, texts, picker(sampling, seed, rules), draft):
        for text in live:
            if on_token is not None:
                on_token(text.index, text.ids[-1])
            text.finish = ending(text, ends, stopped)
    return [text.finished() for text in texts]


def _written(
    network: Network, texts: list[Text], pick: Pick, draft: Draft | None
) -> Iterator[list[Text]]:
    if draft is not None:
        for text in texts:
            yield from speculate(network, text, pick, draft)
        return
    for together in groups(texts, network.config.vocab_size):
        yield from run(network, together, pick)


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
    draft: Draft | None = None,
    form: Callable[[], Form] | None = None,
) -> Generator[int, None, Finished]:
    """The ids of `generate`, one by one as they are written; returns its Finished.

    Input is checked at the call, not at the first id. Closing the generator ends the text.
    """
    prompts, sources = (None if one is None else [one] for one in (prompt, source))
    sampling.check(network.config.vocab_size)
    if draft is not None:
        check_draft(network, draft)
    how: Any = {"max_new_tokens": max_new_tokens, "overflow": overflow, "form": form}
    texts = begin(network, prompts, sources, **how)
    ends = frozenset(network.config.eos_ids if eos_ids is None else eos_ids)

    def write() -> Generator[int, None, Finished]:
        for (text,) in _written(network, texts, picker(sampling, seed, rules), draft):
            text.finish = ending(text, ends, None)
            yield text.ids[-1]
        return texts[0].finished()

    return write()


# the mechanism ---------------------------------------------------------------------------------


def run(
    network: Network, texts: list[Text], pick: Pick, kept: Kept | None = None
) -> Generator[list[Text], None, None]:
    """Yields the texts that just grew by a token; the caller sets `finish` on those that end.
    kept: of a single text, what was read before and what is read now."""
    context, bos_id = network.config.context_length, network.config.bos_id
    with reading(network) as reader:
        if kept is None:
            cache, logits = _begun(reader, texts)  # (B, V)
        else:
            cache, logits = kept.read(reader, texts[0].window)  # (1, V)
        live = list(texts)
        while True:
            ids = pick(logits, live)  # (B,)
            for text, token, log_probability in zip(
                live, ids.tolist(), log_probabilities(logits, ids), strict=True
            ):
                text.append(token, log_probability)
            try:
                yield live
            except GeneratorExit:  # who reads it has left: Ctrl-C between two tokens
                if kept is not None:
                    kept.keep(cache, live[0].window)
                raise
            rows = [row for row, text in enumerate(live) if text.finish is None]
            if not rows:
                if kept is not None:
                    kept.keep(cache, live[0].window)
                return
            if len(rows) < len(live):
                cache.reorder(torch.tensor(rows, device=logits.device))
            live = [live[row] for row in rows]
            for text in live:
                if len(text.window) >= context:
                    text.slide(context, bos_id)
            _read_again(cache, live)
            logits = reader.read(cache, [text.window[-text.unread :] for text in live])


def _begun(reader: Reader, texts: list[Text]) -> tuple[AnyCache, Tensor]:
    """A cache that has read all windows, equal ones once, and the logits (B, V) behind them."""
    keys = [(tuple(text.window), tuple(text.source or ())) for text in texts]
    different = dict(zip(keys, texts))
    cache = reader.cache([text.source for text in different.values()])
    logits = reader.read(cache, [window for window, _ in different])
    for text in texts:
        text.slid = False
    if len(different) < len(keys):
        places = {key: place for place, key in enumerate(different)}
        rows = torch.tensor([places[key] for key in keys], device=logits.device)
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

"""Writing texts token by token: one prefill of ragged prompts, then one token a step for each.

`run` is the mechanism, a generator; what to choose and when to end are functions handed in.
A prefill, a step and a slid window differ only in how many tokens of a text are unread, so they
are one path. Finished texts leave the batch. Knows ids, not text: stop strings and decoding live
where the tokenizer is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tercet.errors import InputError
from tercet.generate.sampling import (
    GREEDY,
    NO_RULES,
    Sampling,
    TokenRules,
    choose,
    draw,
    identities,
    log_probabilities,
)
from tercet.model import Cache, Layout, Network, flatten
from tercet.model.recurrent import RecurrentCache

Ids = Sequence[int]
AnyCache = Cache | RecurrentCache


@dataclass(frozen=True)
class Finished:
    """A written text: the new ids alone, the end-of-text token included where one was written.

    finish: "stop" (an end-of-text token, or the caller's policy) or "length" (no room left).
    log_probabilities: of each id, the model's own (temperature 1, no filter, no rule).
    dropped: tokens at the beginning that slid out of the model's sight.
    """

    ids: list[int]
    finish: str
    log_probabilities: list[float]
    dropped: int = 0


@dataclass
class Text:
    """A text in the making. `window` is what the network sees of prompt and new tokens."""

    index: int
    identity: bytes
    window: list[int]
    limit: int  # new tokens allowed
    unread: int = 0  # tokens at the window's end that the cache does not hold yet
    slid: bool = False  # the window moved, so the cached keys belong to other positions
    dropped: int = 0
    ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    finish: str | None = None

    def append(self, token: int, log_probability: float) -> None:
        self.ids.append(token)
        self.log_probabilities.append(log_probability)
        self.window.append(token)
        self.unread = 1

    def slide(self, context: int, bos_id: int | None) -> None:
        """Keeps the newest half of the context, and a begin-of-text token that stood first.

        Half, so that a whole reading is paid once in context / 2 tokens. The first token stays
        because decoders rest much of their attention on it (Xiao et al. 2023, attention sinks).
        """
        sink = self.window[:1] if self.window[0] == bos_id and context >= 4 else []
        kept = sink + self.window[-max(1, context // 2 - len(sink)) :]
        self.dropped += len(self.window) - len(kept)
        self.window, self.unread, self.slid = kept, len(kept), True

    def finished(self) -> Finished:
        assert self.finish is not None
        return Finished(self.ids, self.finish, self.log_probabilities, self.dropped)


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
    texts = begin(network, prompts, sources, max_new_tokens=max_new_tokens, overflow=overflow)
    ends = frozenset(network.config.eos_ids if eos_ids is None else eos_ids)
    pick = picker(sampling, seed, rules)
    for live in run(network, texts, sources, pick):
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
        scores = rules.apply(logits, n_new, [text.limit for text in texts])
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
    with writing(network):
        cache = open_cache(network, len(texts), sources)
        live = list(texts)
        while live:
            _read_again(cache, live)
            logits = read(network, cache, [text.window[-text.unread :] for text in live])  # (B, V)
            ids = pick(logits, live)  # (B,)
            for text, token, log_probability in zip(
                live, ids.tolist(), log_probabilities(logits, ids).tolist(), strict=True
            ):
                text.append(token, log_probability)
            yield live
            rows = [row for row, text in enumerate(live) if text.finish is None]
            if 0 < len(rows) < len(live):
                cache.reorder(torch.tensor(rows, device=logits.device))
            live = [live[row] for row in rows]
            for text in live:
                if len(text.window) >= context:
                    text.slide(context, bos_id)


def _read_again(cache: AnyCache, texts: list[Text]) -> None:
    """Empties the cache of texts whose window moved: positions of all their tokens changed."""
    if any(text.slid for text in texts):
        lengths = zip(texts, cache.lengths, strict=True)
        cache.rewind([0 if text.slid else length for text, length in lengths])
        for text in texts:
            text.slid = False


@contextmanager
def writing(network: Network) -> Iterator[None]:
    """Without dropout; a network that was training trains on afterwards."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@torch.no_grad()
def open_cache(network: Network, n_texts: int, sources: Sequence[Ids] | None) -> AnyCache:
    """An empty cache for `n_texts`; sources are encoded, and their keys computed, once."""
    if sources is None:
        return network.new_cache(n_texts)
    tokens, layout = flatten([list(source) for source in sources], device=_device(network))
    memory = network.encode(tokens, layout)  # (N, D)
    return network.new_cache(n_texts, memory=memory, memory_layout=layout)


@torch.no_grad()
def read(network: Network, cache: AnyCache, unread: Sequence[Ids]) -> Tensor:
    """Logits (B, V) behind the last of each text's unread tokens, which the cache then holds."""
    tokens = torch.tensor(
        [token for ids in unread for token in ids], device=_device(network)
    )  # (N,)
    layout = Layout([len(ids) for ids in unread], past=cache.lengths, device=_device(network))
    # A network takes the cache that it made itself, which the two types cannot say.
    states = network.decode(tokens, layout, cache=cache)  # type: ignore[arg-type]  # (N, D)
    return network.logits(states[layout.last])


def _device(network: Network) -> torch.device:
    return next(network.parameters()).device


# what may be asked -----------------------------------------------------------------------------


def checked(
    network: Network, prompts: Sequence[Ids] | None, sources: Sequence[Ids] | None
) -> tuple[Sequence[Ids], Sequence[Ids] | None]:
    """Prompts and sources that fit the family and the vocabulary, start tokens filled in."""
    config = network.config
    if config.family == "encoder":
        raise InputError("an encoder does not generate text; load a decoder or an encoder-decoder")
    if config.family == "decoder" and sources is not None:
        raise InputError("a decoder takes prompts, no sources; put the text into the prompt")
    if config.family == "encoder-decoder" and sources is None:
        raise InputError("an encoder-decoder needs a source to answer; pass the text as the source")
    if prompts is None:
        assert config.start_id is not None, "a decoder that begins on nothing needs a start_id"
        prompts = [[config.start_id] for _ in sources or ()]
    if not prompts:
        raise InputError("the list is empty: pass one text or more")
    if sources is not None:
        if len(prompts) != len(sources):
            raise InputError(
                f"{len(prompts)} prompts for {len(sources)} sources; give one for each"
            )
        for index, ids in enumerate(sources):
            _check_ids(ids, config.vocab_size, _name("source", index, sources))
            if len(ids) > config.context_length:
                raise InputError(
                    f"{_name('source', index, sources)} has {len(ids)} tokens, more than the "
                    f"context of {config.context_length}; shorten it or choose an overflow policy"
                )
    for index, ids in enumerate(prompts):
        _check_ids(ids, config.vocab_size, _name("prompt", index, prompts))
    return prompts, sources


def _name(kind: str, index: int, among: Sequence[Ids]) -> str:
    return f"{kind} {index + 1}" if len(among) > 1 else f"the {kind}"


def _check_ids(ids: Ids, vocab_size: int, name: str) -> None:
    if not len(ids):
        raise InputError(f"{name} is empty: it has 0 tokens; give it one token or more")
    for token in ids:
        if not 0 <= token < vocab_size:
            raise InputError(
                f"{name}: token id {token} is outside the vocabulary of {vocab_size} (0 to "
                f"{vocab_size - 1}); use the tokenizer that belongs to the model"
            )


def begin(
    network: Network,
    prompts: Sequence[Ids],
    sources: Sequence[Ids] | None,
    *,
    max_new_tokens: int | None,
    overflow: str = "error",
) -> list[Text]:
    """The texts before their first new token, each with the number of tokens it may get."""
    context = network.config.context_length
    if max_new_tokens is not None and max_new_tokens < 1:
        raise InputError(f"max_new_tokens {max_new_tokens} must be 1 or more")
    if overflow not in ("error", "slide"):
        raise InputError(f"overflow {overflow!r} is not for generation; use 'error' or 'slide'")
    if overflow == "slide" and (sources is not None or max_new_tokens is None):
        raise InputError(
            "overflow 'slide' is for decoders, with a number of new tokens to stop at; "
            + ("use 'error'" if sources is not None else "state max_new_tokens")
        )
    keys = identities([(*p, -1, *s) for p, s in zip(prompts, sources or [()] * len(prompts))])
    texts = []
    for index, (prompt, key) in enumerate(zip(prompts, keys, strict=True)):
        room = context - len(prompt)
        if overflow != "slide":
            _check_room(_name("prompt", index, prompts), len(prompt), max_new_tokens, context)
        limit = room if max_new_tokens is None else max_new_tokens
        text = Text(index, key, list(prompt), limit, unread=len(prompt))
        if len(prompt) >= context:
            text.slide(context, network.config.bos_id)
        texts.append(text)
    return texts


def _check_room(name: str, n_prompt: int, max_new_tokens: int | None, context: int) -> None:
    if n_prompt >= context:
        raise InputError(
            f"{name} has {n_prompt} tokens and the context {context}: no room is left for new "
            "tokens; shorten it, or use overflow 'slide'"
        )
    if max_new_tokens is not None and n_prompt + max_new_tokens > context:
        raise InputError(
            f"{name} has {n_prompt} tokens; with {max_new_tokens} new ones that is "
            f"{n_prompt + max_new_tokens}, beyond the context of {context}; ask for at most "
            f"{context - n_prompt}, leave max_new_tokens out, or use overflow 'slide'"
        )

"""What a text is while it is written, and what may be asked: every refusal stands here.

Prompts and sources are lists of token ids. Nothing is computed and no tensor is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tercet.errors import InputError
from tercet.generate.sampling import identities
from tercet.model import Network, batches

Ids = Sequence[int]


class Form(Protocol):
    """How far a text has come in what it must be (`grammar.py`)."""

    def allowed(self, ids: Ids, vocab_size: int) -> Any:
        """(V,) of bool: the tokens that may stand behind ids."""
        ...

    def complete(self, ids: Ids) -> bool:
        """Whether nothing may follow."""
        ...


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


# The prompt again, in no more than so many tokens, or in as few as it can be.
Again = Callable[[int], list[int]]


@dataclass
class Text:
    """A text in the making. `window` is what the network sees of prompt and new tokens."""

    index: int
    identity: bytes
    window: list[int]
    limit: int  # new tokens allowed
    source: Ids | None = None  # what an encoder–decoder answers
    unread: int = 0  # tokens at the window's end that the cache does not hold yet
    slid: bool = False  # the window moved, so the cached keys belong to other positions
    dropped: int = 0
    ids: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    finish: str | None = None
    form: Form | None = None  # what it must become
    again: Again | None = None  # how its prompt becomes shorter at the edge of the context

    def append(self, token: int, log_probability: float) -> None:
        self.ids.append(token)
        self.log_probabilities.append(log_probability)
        self.window.append(token)
        self.unread = 1

    def take_back(self) -> None:
        """The last token, which nobody was told of."""
        for kept in (self.ids, self.log_probabilities, self.window):
            kept.pop()

    def slide(self, context: int, bos_id: int | None) -> None:
        """Keeps the newest half of the context, and a begin-of-text token that stood first.

        Half, so that a whole reading is paid once in context / 2 tokens. The first token stays
        because decoders rest much of their attention on it (Xiao et al. 2023, attention sinks).
        Where the prompt can be had shorter, it is read again whole, and an eighth of the context
        gets free: what must go beyond it is the new text's beginning.
        """
        if self.again is None:
            sink = self.window[:1] if self.window[0] == bos_id and context >= 4 else []
            kept = sink + self.window[-max(1, context // 2 - len(sink)) :]
        else:
            room = context - max(1, context // 8)
            prompt = self.again(room - len(self.ids))
            kept = prompt + self.ids[-max(1, room - len(prompt)) :]
            assert len(kept) < context, (len(prompt), context)
        self.dropped += len(self.window) - len(kept)
        self.window, self.unread, self.slid = kept, len(kept), True

    def finished(self) -> Finished:
        assert self.finish is not None
        return Finished(self.ids, self.finish, self.log_probabilities, self.dropped)


def _checked(
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
                    f"context of {config.context_length}; shorten it"
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


def check_options(max_new_tokens: int | None, overflow: str, *, slides: bool) -> None:
    """Raises InputError for what would be wrong with every text; ``slides``: a decoder can."""
    if max_new_tokens is not None and (type(max_new_tokens) is not int or max_new_tokens < 1):
        raise InputError(f"max_new_tokens {max_new_tokens} must be a whole number of 1 or more")
    if overflow not in ("error", "slide"):
        raise InputError(f"overflow {overflow!r} is not for generation; use 'error' or 'slide'")
    if overflow == "slide" and (max_new_tokens is None or not slides):
        raise InputError(
            "overflow 'slide' is for decoders, with a number of new tokens to stop at; "
            + ("state max_new_tokens" if slides else "use 'error'")
        )


def begin(
    network: Network,
    prompts: Sequence[Ids] | None,
    sources: Sequence[Ids] | None,
    *,
    max_new_tokens: int | None,
    overflow: str = "error",
    form: Callable[[], Form] | None = None,
) -> list[Text]:
    """The texts before their first new token, each with the number of tokens it may get. Raises
    InputError as ``engine.generate`` does."""
    prompts, sources = _checked(network, prompts, sources)
    check_options(max_new_tokens, overflow, slides=sources is None)
    context = network.config.context_length
    keys = identities([(*p, -1, *s) for p, s in zip(prompts, sources or [()] * len(prompts))])
    texts = []
    for index, (prompt, key) in enumerate(zip(prompts, keys, strict=True)):
        room = context - len(prompt)
        if overflow != "slide":
            _check_room(_name("prompt", index, prompts), len(prompt), max_new_tokens, context)
        limit = room if max_new_tokens is None else max_new_tokens
        source = None if sources is None else sources[index]
        text = Text(index, key, list(prompt), limit, source, unread=len(prompt))
        text.form = None if form is None else form()
        if len(prompt) >= context:
            text.slide(context, network.config.bos_id)
        texts.append(text)
    return texts


CACHED_TOKENS = 16_384  # held at once: of a model of 12 layers of 768 that is 1.2 GB in float32
LOGITS = 1 << 28  # numbers of a step: 1 GiB in float32


def groups(texts: list[Text], vocab_size: int, *, beams: int = 1) -> Iterator[list[Text]]:
    """Texts that are written together: any list in bounded memory."""
    least = vocab_size * CACHED_TOKENS // LOGITS  # a row of 250,000 logits counts as 15 tokens
    longest = [
        beams * max(least, len(text.window) + text.limit + len(text.source or ())) for text in texts
    ]
    for rows in batches(longest, CACHED_TOKENS):
        yield [texts[i] for i in rows]


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

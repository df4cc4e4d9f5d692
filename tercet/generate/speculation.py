"""Several tokens a pass: a cheap guess of how a text goes on, read by the network in one go.

A token is chosen from the network's own distribution by the draw that belongs to its place, as
without a guess, and a guessed token stands where it is that very one: so no text changes, greedy or
sampled (Leviathan et al. 2023 accept at random, and keep the distribution alone). One text at a
time: a pass over few tokens costs what the weights take to be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from tercet.errors import InputError
from tercet.generate.prompts import Text
from tercet.generate.reader import Pick, Reader, grow, reading
from tercet.model import Cache, Network
from tercet.model.borrowed import tape_of
from tercet.model.evaluating import evaluating

GUESSED = 8  # tokens a pass, at most


class Draft(Protocol):
    """Guesses at most ``count`` tokens behind the window of a text."""

    def guess(self, window: Sequence[int], count: int) -> list[int]: ...


class PromptLookup:
    """What followed the last time when the text ended in the same tokens (Saxena 2023)."""

    def __init__(self, longest: int = 3) -> None:
        self.longest = longest

    def guess(self, window: Sequence[int], count: int) -> list[int]:
        for n in range(min(self.longest, len(window) - 1), 0, -1):
            end = list(window[-n:])
            for at in range(len(window) - n - 1, -1, -1):
                if window[at : at + n] == end:
                    return list(window[at + n : at + n + count])
        return []


class DraftNetwork:
    """A smaller decoder's likeliest tokens. It keeps what it has read of one text."""

    def __init__(self, network: Network) -> None:
        tape = tape_of(network, getattr(network, "decoder", None))
        self.reader, self.network = Reader(network, tape), network
        self.read: list[int] = []
        self.cache: Cache | None = None

    def guess(self, window: Sequence[int], count: int) -> list[int]:
        count = min(count, self.network.config.context_length - len(window))
        if count < 1:
            return []
        same = 0
        while same < min(len(self.read), len(window) - 1) and self.read[same] == window[same]:
            same += 1
        if self.cache is None or same == 0:
            cache = self.reader.cache([None])
            assert isinstance(cache, Cache)
            self.cache, same = cache, 0
        self.cache.rewind([same])
        unread, found = list(window[same:]), []
        with evaluating(self.network):
            while len(found) < count:
                logits = self.reader.read(self.cache, [unread])
                found.append(int(logits.argmax(-1)))
                unread = found[-1:]
        self.read = [*window, *found[:-1]]
        return found


def check_draft(network: Network, draft: Draft) -> None:
    """Raises InputError for a draft that cannot guess this network's tokens."""
    if network.config.mixer != "attention":
        raise InputError(
            "a recurrent network cannot take back what it has read; leave the draft out"
        )
    if isinstance(draft, DraftNetwork):
        theirs, ours = draft.network.config, network.config
        if theirs.vocab_size != ours.vocab_size or theirs.family != "decoder":
            raise InputError(
                f"the draft is of the {theirs.family} family with {theirs.vocab_size:,} tokens and "
                f"the model has {ours.vocab_size:,}; a draft is a decoder with the same tokenizer"
            )
        if theirs.mixer != "attention":
            raise InputError("the draft is recurrent; choose a Transformer")


def speculate(network: Network, text: Text, pick: Pick, draft: Draft) -> Iterator[list[Text]]:
    """`engine.run` for one text: yields it as often as it grows by a token."""
    context, bos_id = network.config.context_length, network.config.bos_id
    with reading(network) as reader:
        cache = reader.cache([text.source])
        while True:
            if text.slid:
                cache.rewind([0])
                text.slid = False
            unread = text.window[-text.unread :]
            room = min(GUESSED, text.limit - len(text.ids) - 1, context - len(text.window) - 1)
            # not behind a prompt: it is to be read as it is without guesses, to the bit
            guessed = draft.guess(text.window, room) if room > 0 and text.unread == 1 else []
            logits = reader.read(cache, [[*unread, *guessed]], behind=len(guessed) + 1)
            held = cache.lengths[0] - len(guessed)
            for row, guess in enumerate([*guessed, None]):
                token = grow(text, logits[row : row + 1], pick)
                yield [text]
                if text.finish is not None:
                    return
                if len(text.window) >= context:
                    text.slide(context, bos_id)
                    break
                if token != guess:
                    break
                held += 1
            if not text.slid:
                cache.rewind([held])

"""Words, and questions with their context, as windows of tokens that fit a model.

A sentence that is given as words goes word by word to the tokenizer, as `transformers` does it with
``is_split_into_words``; a question stands before a stretch of its context. What is longer than the
model's context becomes overlapping windows, and each token counts in the one where it has the most
context. Knows no tags, no answers and no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from tercet.errors import InputError
from tercet.text.overflow import fit
from tercet.text.tokenizer import Tokenizer

LEAST_CONTEXT = 4  # a quarter of the model's context, beside a question


@dataclass(frozen=True)
class WordWindow:
    """ids: T tokens, special ones included. places: where in ``ids`` the first piece of each word
    stands that counts here. words: which of the sentence's words these are."""

    ids: list[int]
    places: list[int]
    words: range


@dataclass(frozen=True)
class ContextWindow:
    """ids: T tokens, question and special ones included. types: 0, and 1 for the context.
    context: the places in ``ids`` of the context's tokens. characters: (start, stop) of each of
    them in the context. counts: the places where an answer may begin, each token of the context in
    one window only."""

    ids: list[int]
    types: list[int]
    context: range
    characters: list[tuple[int, int]]
    counts: range


def pieces_of(tokenizer: Tokenizer, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """The ids of each word of each sentence, at least one a word: for a word of which the tokenizer
    keeps nothing, such as a lone control character, the token for unknown ones.

    Raises InputError for such a word where there is no such token.
    """
    space = " " if _wants_space(tokenizer) else ""
    spelled = [f"{space}{word}" for words in sentences for word in words]
    found = iter(tokenizer.encode_batch(spelled, special=False))
    unknown = [] if tokenizer.unk_id is None else [tokenizer.unk_id]
    pieces = [[next(found) or unknown for _ in words] for words in sentences]
    for number, (words, own) in enumerate(zip(sentences, pieces), 1):
        if [] in own:
            word = words[own.index([])]
            raise InputError(
                f"sentence {number}: of the word {word!r} no token is left; take it out"
            )
    return pieces


def _wants_space(tokenizer: Tokenizer) -> bool:
    """Whether a word has other pieces behind a space, which must then be said."""
    alone = tokenizer.encode("a", special=False)
    twice = tokenizer.encode("a a", special=False)
    return twice == alone + tokenizer.encode(" a", special=False) != alone + alone


def word_windows(
    pieces: Sequence[Sequence[int]], limit: int, around: tuple[Sequence[int], Sequence[int]]
) -> list[WordWindow]:
    """The windows of a sentence of at least one word, of at most ``limit`` tokens each.

    around: the special tokens before and after each. Every word counts in one window.
    """
    before, after = around
    ids = list(chain.from_iterable(pieces))
    firsts = [0, *accumulate(map(len, pieces))][:-1]
    windows = []
    done = 0  # words
    for stretch, counts in _stretches(len(ids), limit - len(before) - len(after)):
        words = range(done, done + sum(1 for place in firsts[done:] if place < counts.stop))
        done = words.stop
        if words:
            shift = len(before) - stretch.start
            own = [*before, *ids[stretch.start : stretch.stop], *after]
            windows.append(WordWindow(own, [firsts[word] + shift for word in words], words))
    return windows


def context_windows(
    tokenizer: Tokenizer, question: str, context: str, limit: int, *, name: str = "the question"
) -> list[ContextWindow]:
    """The windows of a question and its context, of at most ``limit`` tokens each.

    ``name`` stands in errors. Raises InputError for an empty question or context, and for a
    question that leaves the context less than a quarter of the model's.
    """
    asked = tokenizer.encode(question, special=False)
    read, characters = tokenizer.encode_places(context)
    for text, ids, what in ((question, asked, name), (context, read, f"the context of {name}")):
        if not text.strip() or not ids:
            raise InputError(f"{what} is empty; give at least one word")
    before, between, after, types = _frame(tokenizer)
    head = [*before, *asked, *between]
    room = limit - len(head) - len(after)
    if room < min(len(read), max(1, limit // LEAST_CONTEXT)):
        raise InputError(
            f"{name} has {len(asked):,} tokens, which leaves {max(0, room):,} of the model's "
            f"{limit:,} for the context; shorten it"
        )
    windows = []
    for stretch, counts in _stretches(len(read), room):
        shift = len(head) - stretch.start
        own = read[stretch.start : stretch.stop]
        windows.append(
            ContextWindow(
                [*head, *own, *after],
                [0] * len(head) + [types] * (len(own) + len(after)),
                range(len(head), len(head) + len(own)),
                characters[stretch.start : stretch.stop],
                range(counts.start + shift, counts.stop + shift),
            )
        )
    return windows


def _frame(tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int], int]:
    """The special tokens before, between and after two texts, and the second one's token type."""
    first, second = (tokenizer.encode(text, special=False) for text in ("a", "b"))
    ids, types = tokenizer.encode_pair("a", "b")
    start = next(i for i in range(len(ids)) if ids[i : i + len(first)] == first)
    stop = start + len(first)
    then = next(i for i in range(len(ids), stop - 1, -1) if ids[i : i + len(second)] == second)
    return ids[:start], ids[stop:then], ids[then + len(second) :], types[then]


def _stretches(length: int, room: int) -> list[tuple[range, range]]:
    """(stretch, counts): overlapping stretches of ``room`` tokens that start half a one after each
    other, and of each the tokens that have at least as much context there as in any other."""
    if room < 1:
        raise InputError(f"the model's context leaves {room} tokens for a text; take another model")
    windows = fit(range(length), room, "slide", stride=max(1, room // 2))
    found = [range(window.ids[0], window.ids[-1] + 1) for window in windows]
    middles = [(left.stop + right.start + 1) // 2 for left, right in zip(found, found[1:])]
    edges = [0, *middles, length]
    return [(stretch, range(*edge)) for stretch, edge in zip(found, zip(edges, edges[1:]))]

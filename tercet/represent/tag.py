"""What the words of a text are called, by a tagger's head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from tercet.answers import Tag
from tercet.errors import InputError
from tercet.model import Network, batches, flatten
from tercet.represent.texts import TextReader
from tercet.text.tags import chunks, is_bio, repaired
from tercet.text.windows import WordWindow, pieces_of, word_windows
from tercet.text.words import words_in

Named = list[tuple[int, float]]  # of each word: the number of its tag, and the probability of that


def tagged(reader: TextReader, labels: Sequence[str], given: Sequence[Any]) -> list[list[Tag]]:
    """Of texts the entities, where the labels name some, else the words; of sentences given as
    words a Tag for each word."""
    if not given:
        raise InputError("an empty list holds no text; give at least one")
    sentences = [_sentence(number, item) for number, item in enumerate(given, 1)]
    texts, places = [], []
    for number, sentence in enumerate(sentences, 1):
        text = sentence if isinstance(sentence, str) else " ".join(sentence)
        places.append(words_in(text) if isinstance(sentence, str) else _joined(sentence))
        if not places[-1]:
            raise InputError(f"text {number} is empty ({text!r}); give at least one word")
        texts.append(text)
    words = [[text[slice(*at)] for at in own] for text, own in zip(texts, places)]
    found = []
    for text, sentence, own, named in zip(texts, sentences, places, tag_words(reader, words)):
        tags = [labels[number] for number, _ in named]
        chances = [chance for _, chance in named]
        if not is_bio(labels):
            spans = [(tag, i, i + 1) for i, tag in enumerate(tags)]
        elif isinstance(sentence, str):
            spans = chunks(tags)
        else:
            spans = [(tag, i, i + 1) for i, tag in enumerate(repaired(tags)[0])]
        found.append(
            [
                Tag(text[start:end], kind, start, end, math.prod(chances[first:stop]))
                for kind, first, stop in spans
                for start, end in [(own[first][0], own[stop - 1][1])]
            ]
        )
    return found


def tag_words(reader: TextReader, sentences: Sequence[Sequence[str]]) -> list[Named]:
    """Of each word of each sentence the likeliest tag."""
    around = reader.tokenizer.around
    windows, owners = [], []
    for i, pieces in enumerate(pieces_of(reader.tokenizer, sentences)):
        own = word_windows(pieces, reader.limit, around)
        windows += own
        owners += [i] * len(own)
    found: list[Named] = [[(0, 0.0)] * len(words) for words in sentences]
    for owner, window, named in zip(owners, windows, named_in(reader.network, windows)):
        found[owner][window.words.start : window.words.stop] = named
    return found


@torch.inference_mode()
def named_in(network: Network, windows: Sequence[WordWindow]) -> list[Named]:
    """Of each word that counts in each window."""
    device = network.tokens.weight.device
    read = network.states if network.encoder is None else network.encode
    found: list[Named] = [[] for _ in windows]
    for rows in batches([len(window.ids) for window in windows]):
        tokens, layout = flatten([windows[i].ids for i in rows], device)
        select = torch.tensor(
            [s + at for i, s in zip(rows, layout.starts) for at in windows[i].places], device=device
        )
        logits = network.heads.tag(read(tokens, layout)[select])  # (words, labels)
        best = logits.float().softmax(-1).max(-1)
        pairs = iter(zip(best.indices.tolist(), best.values.tolist()))
        for i in rows:
            found[i] = [next(pairs) for _ in windows[i].places]
    return found


def _sentence(number: int, item: Any) -> str | list[str]:
    """A text, or a sentence as its words."""
    if isinstance(item, str):
        return item
    words = list(item) if isinstance(item, list | tuple) else [item]
    for word in words:
        if not isinstance(word, str):
            raise InputError(f"a text must be a string, not {word!r} ({type(word).__name__})")
    if not words or not all(word.strip() for word in words):
        raise InputError(f"sentence {number}: {words} holds no word or an empty one; mend it")
    return words


def _joined(words: Sequence[str]) -> list[tuple[int, int]]:
    """Where each word stands among them all, joined by single spaces."""
    places, at = [], 0
    for word in words:
        places.append((at, at + len(word)))
        at += len(word) + 1
    return places

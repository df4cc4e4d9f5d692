"""Instructions made by rules over the sentences of real text: kinds of question, each with the
answer that obeys it exactly. The same sentences and seed give the same rows."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tercet.text.passages import sentences

Rows = Iterator[dict[str, Any]]
WORD = re.compile(r"[A-Za-z][A-Za-z'-]*[A-Za-z]|[A-Za-z]")
NUMBER = re.compile(r"\d{1,3}(,\d{3})+|\d{1,4}")
SHORTEST, LONGEST = 4, 12  # words of a sentence
LISTED = (3, 5)  # words of a list
COUNTED = 8  # words of a sentence that are counted, at the most
TELLING = 5  # letters of a word that says what a sentence is about


class Sentence(NamedTuple):
    """text: with its end. words: without punctuation. before: the sentence that stands before it in
    the text, where that is one as well; other: one of another place."""

    text: str
    words: tuple[str, ...]
    before: Sentence | None = None
    other: Sentence | None = None


class Made(NamedTuple):
    """asked: what the question is about, below the instruction. word: what the instruction names
    in its {}."""

    asked: str
    answer: str
    word: str = ""


@dataclass(frozen=True)
class Kind:
    """wordings: of the instruction. make: a question from a sentence, None where it gives none."""

    wordings: tuple[str, ...]
    make: Callable[[Sentence, random.Random], Made | None]

    def row(self, sentence: Sentence, draw: random.Random) -> dict[str, Any] | None:
        made = self.make(sentence, draw)
        if made is None:
            return None
        instruction = draw.choice(self.wordings).format(made.word)
        return {"instruction": instruction, "input": made.asked, "output": made.answer}


def _repeat(sentence: Sentence, draw: random.Random) -> Made:
    return Made(sentence.text, sentence.text)


def _quote(sentence: Sentence, draw: random.Random) -> Made:
    return Made(sentence.text, f'"{sentence.text}"')


def _list(sentence: Sentence, draw: random.Random) -> Made:
    words = _some(sentence.words, draw.randint(*LISTED), draw)
    return Made(" ".join(words), ", ".join(words))


def _first(sentence: Sentence, draw: random.Random) -> Made:
    return Made(sentence.text, sentence.words[0])


def _last(sentence: Sentence, draw: random.Random) -> Made:
    return Made(sentence.text, sentence.words[-1])


def _after(sentence: Sentence, draw: random.Random) -> Made | None:
    words = sentence.words
    places = [i for i in range(len(words) - 1) if words.count(words[i]) == 1]
    if not places:
        return None
    place = draw.choice(places)
    return Made(sentence.text, words[place + 1], words[place])


def _number(sentence: Sentence, draw: random.Random) -> Made | None:
    found = [word for word in sentence.words if NUMBER.fullmatch(word)]
    return Made(sentence.text, found[0]) if len(found) == 1 else None


def _contains(sentence: Sentence, draw: random.Random) -> Made | None:
    words = [word for word in sentence.words if len(word) >= TELLING - 1]
    if draw.random() < 0.5:
        return Made(sentence.text, "Yes", draw.choice(words)) if words else None
    spelled = sentence.text.lower()
    other = [w for w in (sentence.other or sentence).words if len(w) >= TELLING - 1]
    other = [word for word in other if word.lower() not in spelled]
    return Made(sentence.text, "No", draw.choice(other)) if other else None


def _count(sentence: Sentence, draw: random.Random) -> Made | None:
    many = len(sentence.words)
    return Made(sentence.text, str(many)) if many <= COUNTED else None


def _capitals(sentence: Sentence, draw: random.Random) -> Made | None:
    words = [word for word in sentence.words if word.islower() and word.isalpha() and len(word) > 2]
    if len(words) < 2:
        return None
    words = _some(words, 2, draw)
    return Made(" ".join(words), " ".join(word.capitalize() for word in words))


def _passage(sentence: Sentence, draw: random.Random) -> Made | None:
    if sentence.before is None:
        return None
    both = (sentence.before, sentence)
    asked, other = both if draw.random() < 0.5 else both[::-1]
    spelled = other.text.lower()
    words = [w for w in asked.words if len(w) >= TELLING and w.lower() not in spelled]
    if not words:
        return None
    return Made(f"{both[0].text} {both[1].text}", asked.text, draw.choice(words))


def _some(words: Sequence[str], many: int, draw: random.Random) -> Sequence[str]:
    """So many words that stand side by side."""
    start = draw.randint(0, max(0, len(words) - many))
    return words[start : start + many]


KINDS = {
    "repeat": Kind(
        ("Repeat the sentence.", "Say this again, word for word.", "Copy the text."), _repeat
    ),
    "quote": Kind(
        ("Put the sentence in quotation marks.", "Quote this.", "Write quotation marks around it."),
        _quote,
    ),
    "list": Kind(
        ("Write the words with commas between them.", "Make a list with commas."),
        _list,
    ),
    "first word": Kind(
        ("What is the first word?", "With which word does the sentence begin?"), _first
    ),
    "last word": Kind(
        ("What is the last word?", "With which word does the sentence end?"),
        _last,
    ),
    "next word": Kind(
        ('Which word comes after "{}"?', 'What stands behind the word "{}"?'),
        _after,
    ),
    "extract": Kind(
        ("Which number does the text name?", "Find the number.", "Write down the number alone."),
        _number,
    ),
    "contains": Kind(
        ('Does the text contain the word "{}"?', 'Is the word "{}" in the sentence?'),
        _contains,
    ),
    "count": Kind(("How many words are there?", "Count the words."), _count),
    "capitals": Kind(
        ("Begin each word with a capital letter.", "Write the words with capitals."), _capitals
    ),
    "passage": Kind(
        ('What does the text say about "{}"?', 'Which sentence of the text is about "{}"?'),
        _passage,
    ),
}


def sentence_of(text: str, before: Sentence | None = None) -> Sentence | None:
    """A text as a sentence of plain words, of a moderate length, with at most a number; else
    None."""
    text = text.strip()
    parts = text[:-1].split(" ")
    words = [part[:-1] if part[-1:] in (",", ";", ":") else part for part in parts]
    plain = text[-1:] in (".", "!", "?") and text[:1].isupper()
    if not plain or not SHORTEST <= len(words) <= LONGEST or words[-1] != parts[-1]:
        return None
    numbers = sum(bool(NUMBER.fullmatch(word)) for word in words)
    if numbers > 1 or sum(bool(WORD.fullmatch(word)) for word in words) + numbers < len(words):
        return None
    return Sentence(text, tuple(words), before)


def found(paragraphs: Iterable[str]) -> Iterator[Sentence]:
    """The sentences of a text that stands in paragraphs, each once, with its neighbours."""
    known: set[str] = set()
    other = None
    for paragraph in paragraphs:
        before = None
        for part in sentences(paragraph):
            sentence = sentence_of(part, before)
            before = sentence and sentence._replace(before=None)
            if sentence is None or sentence.text in known:
                continue
            known.add(sentence.text)
            yield sentence._replace(other=other)
            other = before


def ruled(
    given: Sequence[Sentence], *, each: int, kinds: Sequence[str] = tuple(KINDS), seed: int = 0
) -> Rows:
    """Rows of some kinds, ``each`` of it at the most: a sentence becomes a question of the kind
    that has the fewest yet, of those that it serves."""
    counts = dict.fromkeys(kinds, 0)
    for number, sentence in enumerate(given):
        if min(counts.values()) >= each:
            return
        draw = random.Random(f"{seed} {number} {sentence.text}")
        for name in sorted(counts, key=counts.__getitem__):
            if counts[name] >= each:
                break
            row = KINDS[name].row(sentence, draw)
            if row is not None:
                counts[name] += 1
                yield {**row, "kind": name}
                break

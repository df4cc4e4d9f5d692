"""How well words were tagged: accuracy, and the F1 of what the tags name.

An entity counts as found only with its first word, its last word and its kind (Tjong Kim Sang and
De Meulder 2003, section 2.4): the figures of conlleval, and of seqeval by default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tercet.errors import InputError
from tercet.evaluate.classification import wilson
from tercet.text.tags import chunks, is_bio, repaired

Tags = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Found:
    """Of one kind, or of all: how many entities the text has, how many were said, how many of
    these are right. The shares of nothing are 0."""

    truth: int
    said: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.said if self.said else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.truth if self.truth else 0.0

    @property
    def f1(self) -> float:
        both = self.truth + self.said
        return 2 * self.right / both if both else 0.0


@dataclass(frozen=True)
class TagScores:
    """accuracy: the share of words with the right tag, and low and high of its 95 % interval
    (Wilson 1927). entities: None for tags that name no entities. kinds: the same of each kind.
    repaired: illegal tags among the guesses, each read as the beginning of an entity."""

    accuracy: float
    low: float
    high: float
    words: int
    entities: Found | None = None
    kinds: dict[str, Found] = field(default_factory=dict)
    repaired: int = 0

    def __str__(self) -> str:
        interval = f"{self.low:.2%} to {self.high:.2%}"
        accuracy = f"accuracy {self.accuracy:.2%} ({interval}; {self.words:,} words)"
        if self.entities is None:
            return accuracy
        found = self.entities
        return (
            f"F1 {found.f1:.2%} (precision {found.precision:.2%}, recall {found.recall:.2%}; "
            f"{found.truth:,} entities); {accuracy}"
        )


def tag_scores(truth: Tags, guesses: Tags, *, bio: bool | None = None) -> TagScores:
    """Of the guesses against the true tags, sentence by sentence.

    bio: whether the tags name entities; None: as they look, which is no where none is named.
    Raises InputError for other sentences or words than those of the truth, and for none.
    """
    if len(truth) != len(guesses):
        raise InputError(f"{len(guesses):,} guesses for {len(truth):,} sentences; give one of each")
    for number, (true, guess) in enumerate(zip(truth, guesses), 1):
        if len(true) != len(guess):
            raise InputError(
                f"sentence {number}: {len(guess)} tags were guessed for {len(true)} words; give one"
                " for each"
            )
    words = sum(map(len, truth))
    if not words:
        raise InputError("there is no word to score; give at least one sentence")
    right = sum(t == g for true, guess in zip(truth, guesses) for t, g in zip(true, guess))
    shares = (right / words, *wilson(right, words), words)
    if bio is None:
        bio = is_bio(tag for tags in (*truth, *guesses) for tag in tags)
    if not bio:
        return TagScores(*shares)
    kinds = _kinds(truth, guesses)
    whole = Found(
        sum(found.truth for found in kinds.values()),
        sum(found.said for found in kinds.values()),
        sum(found.right for found in kinds.values()),
    )
    return TagScores(*shares, whole, kinds, sum(repaired(guess)[1] for guess in guesses))


def _kinds(truth: Tags, guesses: Tags) -> dict[str, Found]:
    """What was found of each kind that was there or was said, by name."""
    counts = Counter(), Counter(), Counter()
    for true, guess in zip(truth, guesses):
        there, said = set(chunks(true)), set(chunks(guess))
        for count, found in zip(counts, (there, said, there & said)):
            count.update(chunk.kind for chunk in found)
    names = sorted({name for count in counts for name in count})
    return {name: Found(*(count[name] for count in counts)) for name in names}

"""How well questions were answered: exact match and F1, as SQuAD 1.1 counts them.

Rajpurkar et al. 2016, section 6.1: answers are compared in small letters, without punctuation,
without the articles a, an, the, and with single spaces; of several true answers the best counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tercet.errors import InputError

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class AnswerScores:
    """Means over the questions, shares of 1."""

    exact: float
    f1: float
    n: int

    def __str__(self) -> str:
        return f"exact match {self.exact:.2%}, F1 {self.f1:.2%} ({self.n:,} questions)"


def answer_scores(truth: Sequence[Sequence[str]], guesses: Sequence[str]) -> AnswerScores:
    """Of one guess a question against its true answers.

    Raises InputError for other numbers of questions, for none, and for one without an answer.
    """
    if len(truth) != len(guesses) or not truth:
        raise InputError(f"{len(guesses):,} guesses for {len(truth):,} questions; give one of each")
    unanswered = next((i for i, answers in enumerate(truth, 1) if not answers), None)
    if unanswered is not None:
        raise InputError(f"question {unanswered} has no true answer; leave it out")
    pairs = list(zip(guesses, truth))
    exact = sum(max(exact_match(guess, answer) for answer in answers) for guess, answers in pairs)
    shared = sum(max(f1(guess, answer) for answer in answers) for guess, answers in pairs)
    return AnswerScores(exact / len(pairs), shared / len(pairs), len(pairs))


def exact_match(guess: str, answer: str) -> bool:
    return plain(guess) == plain(answer)


def f1(guess: str, answer: str) -> float:
    """Of the words that the two share, each as often as both have it. 0 where they share none, two
    empty answers included, as in the published script."""
    said, true = plain(guess).split(), plain(answer).split()
    shared = (Counter(said) & Counter(true)).total()
    return 2 * shared / (len(said) + len(true)) if shared else 0.0


def plain(answer: str) -> str:
    """An answer without what is not compared."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())

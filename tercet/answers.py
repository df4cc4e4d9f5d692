"""What the methods of a LanguageModel return: plain data, no torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Generation:
    """What was written; ``str()`` is the text.

    ids: the new tokens, an end-of-text token included. finish: "stop" (an end-of-text token or a
    stop string), "length" (no room left), or "error" for an item of a list that could not be run,
    with the reason in ``error``. log_probabilities: of each id, the model's own, natural. dropped:
    tokens at the beginning that slid out of the model's sight.
    """

    text: str
    ids: list[int] = field(default_factory=list)
    finish: str = "error"
    log_probabilities: list[float] = field(default_factory=list)
    dropped: int = 0
    error: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Fill:
    """A token for a mask, its probability, and the text with it in place."""

    token: str
    probability: float
    text: str


@dataclass(frozen=True)
class Tag:
    """What a stretch of a text is called: a word, or an entity of several.

    start, end: its characters, ``text == whole[start:end]``; where words were given, of these
    joined by single spaces. probability: that all of its words have their tags.
    """

    text: str
    tag: str
    start: int
    end: int
    probability: float


@dataclass(frozen=True)
class Answer:
    """A stretch of a context: its characters, ``text == context[start:end]``, and its probability
    among all stretches that could be the answer."""

    text: str
    start: int
    end: int
    probability: float

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Score:
    """Log-probability (natural) of each token given those before it; None where nothing stands
    before.

    ``perplexity``: exp of minus their mean; lower is better, 1 is certainty.
    """

    ids: list[int]
    pieces: list[str]
    log_probabilities: list[float | None]

    @property
    def perplexity(self) -> float:
        known = [p for p in self.log_probabilities if p is not None]
        return math.exp(-sum(known) / len(known)) if known else math.nan


@dataclass(frozen=True)
class Ranked:
    """A text, how well it answers the query (0 to 1), and its place in the list that was given."""

    text: str
    score: float
    index: int


@dataclass(frozen=True)
class Attention:
    """weights: numpy (layers, heads, queries, keys) float32, each row a distribution over
    ``keys``.
    """

    queries: list[str]
    keys: list[str]
    weights: Any


@dataclass(frozen=True)
class Label:
    """The likeliest label of a text, and the probability of every one."""

    label: str
    probability: float
    probabilities: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class Labels:
    """The labels of a text, of a model that gives any number of them: those whose probability is at
    least a half; and the probability of every one by itself."""

    labels: list[str]
    probabilities: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(self.labels)


@dataclass(frozen=True)
class Value:
    """The number that a model of numbers gives a text."""

    value: float

    def __str__(self) -> str:
        return f"{self.value:.4g}"


class CutWarning(UserWarning):
    """Some texts were longer than the model's context; says how many lost how much."""


class SlowWarning(UserWarning):
    """What was asked for works here, and something else would be faster."""


class ChatWarning(UserWarning):
    """A model has no chat template; says which is taken."""


# Every call says it: Python would drop a sentence that a line has said before.
warnings.filterwarnings("always", category=CutWarning, append=True)


def slides(answers: Sequence[Generation]) -> str:
    """How many texts outgrew the context; empty when none did."""
    dropped = [answer.dropped for answer in answers if answer.dropped]
    if not dropped:
        return ""
    return (
        f"{len(dropped)} of {len(answers)} texts outgrew the context: {sum(dropped):,} tokens at "
        "their beginnings slid out of the model's sight (overflow 'slide')"
    )

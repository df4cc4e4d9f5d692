"""How well labels were guessed: accuracy with its interval, F1 of one class and the mean of all,
and how far probabilities are off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tercet.errors import InputError

Z95 = 1.959963984540054  # the standard normal's 97.5 % point
BINS = 15  # of probabilities


@dataclass(frozen=True)
class ClassScores:
    """Shares of 1. low and high: the 95 % interval of the accuracy (Wilson 1927)."""

    accuracy: float
    low: float
    high: float
    macro_f1: float
    n: int

    def __str__(self) -> str:
        return (
            f"{self.accuracy:.1%} ({self.low:.1%} to {self.high:.1%}; macro F1 {self.macro_f1:.3f};"
            f" {self.n:,} texts)"
        )


def class_scores(labels: Sequence[Any], guesses: Sequence[Any]) -> ClassScores:
    """Of the guesses against the true labels, which may be any names or numbers."""
    truth, guessed = np.asarray(labels), np.asarray(guesses)
    if truth.shape != guessed.shape or not len(truth):
        raise InputError(f"{len(guessed):,} guesses for {len(truth):,} labels; give one for each")
    right = int((truth == guessed).sum())
    return ClassScores(
        right / len(truth), *wilson(right, len(truth)), macro_f1(truth, guessed), len(truth)
    )


def binary_f1(labels: np.ndarray, guesses: np.ndarray) -> float:
    """Of the label that both hold as true: 0 where it is neither there nor guessed."""
    both = int((labels & guesses).sum())
    return 2 * both / max(1, int(labels.sum()) + int(guesses.sum()))


def macro_f1(labels: np.ndarray, guesses: np.ndarray) -> float:
    """The plain mean of the F1 of every class that occurs among labels or guesses."""
    scores = []
    for label in np.unique(np.concatenate([labels, guesses])):
        is_it, called_it = labels == label, guesses == label
        scores.append(2 * (is_it & called_it).sum() / (is_it.sum() + called_it.sum()))
    return float(np.mean(scores))


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share: which true ones would not be surprised by so many of ``n``."""
    share, square = right / n, Z95 * Z95 / n
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square * square / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Gain:
    """Of accuracy, from one classifier to another on the same texts, with its 95 % interval."""

    gain: float
    low: float
    high: float


def paired_gain(before: np.ndarray, after: np.ndarray) -> Gain:
    """before, after (B,): where each was right. Only the texts that one of them alone got right
    tell them apart, so the interval is that of the difference of paired shares, which is narrower
    than two intervals side by side: Wald's, after half a text is added to each of the four cells
    (Agresti and Min 2005), without which no disagreement would be certainty."""
    won, lost, n = int((after & ~before).sum()), int((before & ~after).sum()), len(before)
    middle = (won - lost) / (n + 2)
    half = Z95 * math.sqrt(won + lost + 1 - (won - lost) ** 2 / (n + 2)) / (n + 2)
    return Gain((won - lost) / n, middle - half, middle + half)


def calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    """How far the probabilities (B,) of guesses are from how often they were right (B,): the mean
    over 15 equal bins, weighted by texts (Naeini et al. 2015)."""
    place = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    gaps = [
        abs(probabilities[place == i].sum() - right[place == i].sum()) for i in np.unique(place)
    ]
    return float(sum(gaps) / len(right))

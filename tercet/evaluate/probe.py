"""What a frozen model's vectors know: logistic regression on them, and on TF-IDF to be beaten.

Both get the same search: every strength of regularisation, and for TF-IDF every kind of feature, is
tried on the validation texts; the test texts are looked at once, by the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tercet.errors import InputError, require
from tercet.evaluate.classification import ClassScores, class_scores
from tercet.evaluate.regression import fit_alone, standardiser
from tercet.language_model import LanguageModel

EXTRA = "learn"
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)  # C, the inverse of the regularisation
VARIANCE = 4.0  # of a logit before anything is learned, where C is not searched: C is that over D
WORDS_UP_TO = (1, 2)  # TF-IDF of words, and of words and pairs of words
WORD = r"\w+|[^\w\s]"  # punctuation tells moods apart, and must not hang on words
Labelled = tuple[Sequence[str], Sequence[Any]]  # texts and their labels
Vectors = tuple[Any, Sequence[Any]]  # an array (n, D), and the labels


@dataclass(frozen=True)
class Probed:
    """test: the scores. strength: the C, and features: what it read, that the validation chose."""

    test: ClassScores
    validation_accuracy: float
    strength: float
    features: str

    def __str__(self) -> str:
        return f"{self.test}, {self.features}, C {self.strength:g}"


def probe(
    model: LanguageModel,
    train: Labelled,
    validation: Labelled,
    test: Labelled,
    *,
    pool: str = "mean",
) -> Probed:
    """Logistic regression on ``model.embed(texts, pool=pool)``; the model itself learns nothing."""
    texts = [list(part[0]) for part in _checked(train, validation, test)]
    vectors = model.embed([text for part in texts for text in part], pool=pool)
    first, second = len(texts[0]), len(texts[0]) + len(texts[1])
    return probe_vectors(
        (vectors[:first], train[1]),
        (vectors[first:second], validation[1]),
        (vectors[second:], test[1]),
        name=f"vectors ({pool})",
    )


def probe_vectors(
    train: Vectors, validation: Vectors, test: Vectors, *, name: str = "vectors"
) -> Probed:
    """The same on vectors (n, D) that are there already."""
    scaler = standardiser(np.asarray(train[0]))
    parts = train, validation, test
    features = [(name, [scaler.transform(part[0]) for part in parts])]
    return _search(features, [part[1] for part in parts])


def tfidf_baseline(train: Labelled, validation: Labelled, test: Labelled) -> Probed:
    """Logistic regression on the TF-IDF of words, or of words and pairs, of the training texts."""
    extraction = require("sklearn.feature_extraction.text", EXTRA)
    texts = [list(part[0]) for part in _checked(train, validation, test)]

    def features() -> Iterable[tuple[str, list[Any]]]:
        for longest in WORDS_UP_TO:
            reader = extraction.TfidfVectorizer(
                ngram_range=(1, longest), sublinear_tf=True, token_pattern=WORD
            )
            reader.fit(texts[0])
            yield f"TF-IDF of 1 to {longest} words", [reader.transform(part) for part in texts]

    return _search(features(), [part[1] for part in (train, validation, test)])


def out_of_fold(vectors: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(B, labels) probabilities of logistic regression that learned from the other folds alone.

    vectors (B, D), labels (B,) from 0, folds (B,): the number of each row's fold. A row whose label
    stands in no other fold is NaN, since none could have said it.
    """
    regression = require("sklearn.linear_model", EXTRA).LogisticRegression
    found = np.zeros((len(labels), int(labels.max()) + 1), dtype=np.float32)
    for fold in np.unique(folds):
        held = folds == fold
        known = np.unique(labels[~held])
        if len(known) < 2:
            found[held] = np.nan
            continue
        scaler = standardiser(vectors[~held])
        fitted = regression(C=VARIANCE / vectors.shape[1], max_iter=200)
        fit_alone(fitted, scaler.transform(vectors[~held]), labels[~held].tolist())
        said = fitted.predict_proba(scaler.transform(vectors[held]))
        found[np.ix_(held, known)] = said
        found[held & ~np.isin(labels, known)] = np.nan
    return found


def _search(features: Iterable[tuple[str, list[Any]]], labels: Sequence[Sequence[Any]]) -> Probed:
    """The best on the validation texts; of equals the first, and so the most regularised."""
    regression = require("sklearn.linear_model", EXTRA).LogisticRegression
    tried: list[tuple[float, float, str, Any, Any]] = []
    for name, (train, validation, test) in features:
        for strength in STRENGTHS:
            fitted = regression(C=strength, max_iter=1_000)
            fit_alone(fitted, train, labels[0])
            accuracy = float(fitted.score(validation, labels[1]))
            tried.append((accuracy, strength, name, fitted, test))
    accuracy, strength, name, fitted, test = max(tried, key=lambda one: one[0])
    return Probed(class_scores(labels[2], fitted.predict(test)), accuracy, strength, name)


def _checked(*parts: Labelled) -> Sequence[Labelled]:
    for name, (texts, labels) in zip(("training", "validation", "test"), parts):
        if len(texts) != len(labels) or not len(texts):
            raise InputError(
                f"{len(texts):,} {name} texts with {len(labels):,} labels; give one for each"
            )
    if len(set(parts[0][1])) < 2:
        raise InputError(f"all training labels are {parts[0][1][0]!r}; give two classes or more")
    return parts

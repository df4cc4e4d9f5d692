"""Whether texts that people call alike have vectors that are alike, by Spearman over
cosines; and how evenly vectors lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tercet.errors import InputError, require
from tercet.language_model import LanguageModel


def similarity(
    model: LanguageModel,
    pairs: Sequence[tuple[str, str]],
    scores: Sequence[float],
    *,
    pool: str | None = None,
) -> float:
    """Spearman's correlation of the vectors' cosines with people's scores, -1 to 1.

    pool: first, mean or last; None: as the model's folder says, else mean. The published STS-B
    figures are this times 100.
    """
    texts = [text for pair in pairs for text in pair]
    vectors = model.embed(texts, pool=pool)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return spearman((vectors[::2] * vectors[1::2]).sum(1), scores)


def tfidf_similarity(
    pairs: Sequence[tuple[str, str]], scores: Sequence[float], texts: Sequence[str]
) -> float:
    """The same of the TF-IDF vectors of words: what a model has to beat. How rare words are is
    counted in ``texts``."""
    extraction = require("sklearn.feature_extraction.text", "learn")
    counter = extraction.TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+").fit(texts)
    first, second = (counter.transform([pair[side] for pair in pairs]) for side in (0, 1))
    return spearman(np.asarray(first.multiply(second).sum(1)).ravel(), scores)


def spearman(values: Sequence[float] | np.ndarray, scores: Sequence[float] | np.ndarray) -> float:
    """The correlation of the ranks; equal values share the mean of theirs."""
    if len(values) != len(scores):
        raise InputError(f"{len(values):,} values for {len(scores):,} scores; give one for each")
    ranks = _ranks(np.asarray(values)), _ranks(np.asarray(scores))
    if any(len(np.unique(rank)) < 2 for rank in ranks):
        raise InputError(f"{len(scores):,} pairs without two different values have no order")
    return float(np.corrcoef(*ranks)[0, 1])


def pearson(values: Sequence[float] | np.ndarray, scores: Sequence[float] | np.ndarray) -> float:
    """The correlation of the values themselves. Raises as ``spearman`` does."""
    spearman(values, scores)
    return float(np.corrcoef(values, scores)[0, 1])


def uniformity(vectors: np.ndarray) -> float:
    """How evenly vectors (n, D) cover the sphere: the logarithm of the mean over all pairs of
    exp(-2 times their squared distance), 0 where all are one, lower is better (Wang and Isola 2020,
    section 4.2). Raises InputError for fewer than two."""
    if len(vectors) < 2:
        raise InputError(f"{len(vectors)} vector has no distance to another; give two or more")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    total = 0.0
    for start in range(0, len(unit), 1024):
        near = unit[start : start + 1024] @ unit.T  # (b, n)
        total += float(np.exp(4.0 * near - 4.0, dtype=np.float64).sum())  # |a - b|^2 = 2 - 2 a b
    return math.log(max(total - len(unit), 1e-300) / (len(unit) * (len(unit) - 1)))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]

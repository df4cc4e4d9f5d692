"""Whether texts that people call alike have vectors that are alike: Spearman over cosines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tercet.errors import InputError
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


def spearman(values: Sequence[float] | np.ndarray, scores: Sequence[float]) -> float:
    """The correlation of the ranks; equal values share the mean of theirs."""
    if len(values) != len(scores):
        raise InputError(f"{len(values):,} values for {len(scores):,} scores; give one for each")
    ranks = _ranks(np.asarray(values)), _ranks(np.asarray(scores))
    if any(len(np.unique(rank)) < 2 for rank in ranks):
        raise InputError(f"{len(scores):,} pairs without two different values have no order")
    return float(np.corrcoef(*ranks)[0, 1])


def pearson(values: Sequence[float] | np.ndarray, scores: Sequence[float] | np.ndarray) -> float:
    """The correlation of the values themselves. Raises as ``spearman`` does."""
    spearman(values, scores)  # type: ignore[arg-type]
    return float(np.corrcoef(values, scores)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[place]

"""Logistic regression on vectors, as one linear layer.

Its standardisation is folded into weights and bias, so that the matrix product of a network's head
says the same, and a probe is a model like any other.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tercet.errors import require

EXTRA = "learn"
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)  # C, the inverse of the regularisation
FEW, FOLDS = 500, 5  # rows up to which C is chosen on all of them, out of so many folds
DEAD = 1e-6  # of the largest deviation of a column
NEVER = 30.0  # how far below the others the logit of a label without rows lies: 1e-13


@dataclass(frozen=True)
class Regression:
    """``softmax(logits(x))`` are the probabilities of the labels. strength: the chosen C."""

    weight: np.ndarray  # (labels, D)
    bias: np.ndarray  # (labels,)
    strength: float

    def logits(self, vectors: np.ndarray) -> np.ndarray:  # (B, D) -> (B, labels)
        return vectors @ self.weight.T + self.bias


def regression(
    vectors: np.ndarray,
    labels: np.ndarray,
    n_labels: int,
    *,
    weights: Sequence[float] | None = None,
    centred: bool = True,
) -> Regression:
    """Learned from vectors (B, D) and the numbers of their labels (B,).

    weights: what a row of each label counts. centred: whether there is a bias, and the vectors lose
    their mean. Of all strengths the one with the least log loss on rows left out is taken: of few
    rows, many strengths get the same number right.
    """
    known = np.unique(labels)
    if len(known) < 2:  # of a fold that has lost the only row of the other label
        base = np.full(n_labels, -NEVER)
        base[known] = 0.0
        return Regression(np.zeros((n_labels, vectors.shape[1])), base, 1.0)
    how = {"weights": weights, "centred": centred}
    parts, best, least = list(_parts(labels)), 1.0, np.inf
    for strength in STRENGTHS if parts else ():
        loss = 0.0
        for held in parts:
            learned = folded(*fitted(vectors[~held], labels[~held], strength, **how), n_labels)
            loss -= _log_softmax(learned.logits(vectors[held]))[
                np.arange(held.sum()), labels[held]
            ].sum()
        if loss > least:
            break  # the loss over C has one valley, and the weakest take the longest
        best, least = strength, loss
    return folded(*fitted(vectors, labels, best, **how), n_labels)


def fitted(
    vectors: np.ndarray,
    labels: np.ndarray,
    strength: float,
    *,
    weights: Sequence[float] | None = None,
    centred: bool = True,
) -> tuple[Any, Any]:
    """scikit-learn's StandardScaler and LogisticRegression."""
    scaler = standardiser(vectors, centred=centred)
    model = require("sklearn.linear_model", EXTRA).LogisticRegression(
        C=strength, max_iter=1_000, fit_intercept=centred
    )
    each = None if weights is None else np.asarray(weights)[labels]
    fit_alone(model, scaler.transform(vectors), labels, each)
    return scaler, model


def standardiser(vectors: np.ndarray, *, centred: bool = True) -> Any:
    """scikit-learn's StandardScaler, learned from vectors (B, D). A column that does not vary
    beside the others is left as it is: MiniLM has three whose deviations are 1e-32 to 1e-9, and a
    layer that divides by them has weights of 1e30, whose gradients are no numbers any more."""
    scaler = require("sklearn.preprocessing", EXTRA).StandardScaler(with_mean=centred)
    scaler.fit(vectors)
    scaler.scale_[scaler.scale_ < DEAD * scaler.scale_.max()] = 1.0
    return scaler


def fit_alone(model: Any, vectors: Any, labels: Any, weights: Any = None) -> None:
    """On one thread: on a busy machine two wait for each other over vectors this short: SST-2's
    search took 46 s instead of 1.5 (docs/LOG.md). weights: of each row."""
    alone = require("threadpoolctl", EXTRA).threadpool_limits
    with warnings.catch_warnings(), alone(1):
        warnings.simplefilter("ignore")  # the weakest regularisations end a little early
        model.fit(vectors, labels, sample_weight=weights)


def folded(scaler: Any, model: Any, n_labels: int) -> Regression:
    """Both as one layer: w (x - m) / s + b = (w / s) x + (b - w m / s). Of two labels scikit-learn
    keeps one row, z, whose sigmoid is the softmax of (-z / 2, z / 2)."""
    weight, bias = model.coef_ / scaler.scale_, np.atleast_1d(model.intercept_)
    if scaler.with_mean:
        bias = bias - weight @ scaler.mean_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    whole, base = np.zeros((n_labels, weight.shape[1])), np.full(n_labels, bias.min() - NEVER)
    whole[model.classes_], base[model.classes_] = weight, bias
    return Regression(whole, base, float(model.C))


def _parts(labels: np.ndarray) -> Iterator[np.ndarray]:
    """(B,) which rows are left out, each label spread evenly over the folds; of many rows one fold
    is enough to choose by."""
    order = np.random.default_rng(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    place = np.empty(len(labels), dtype=int)
    place[order] = np.arange(len(labels)) % FOLDS
    for fold in range(FOLDS if len(labels) <= FEW else 1):
        held = place == fold
        held &= np.isin(labels, labels[~held])  # of a label of no other fold no strength can say it
        if held.any() and len(np.unique(labels[~held])) > 1:
            yield held


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    peak = logits - logits.max(1, keepdims=True)
    return peak - np.log(np.exp(peak).sum(1, keepdims=True))

"""Which labels are likely wrong: confident learning on probabilities that were given out of fold.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels",
section 3.1. Knows numbers alone.
"""

from __future__ import annotations

import numpy as np


def label_errors(labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[int, int]]:
    """(row, the label that is likelier) of each row whose label is likely wrong, the surest first.

    labels (B,): numbers from 0. probabilities (B, labels): of a model that had not learned from the
    row; rows with a NaN are not judged. A row counts for the labels whose probability reaches that
    label's own mean over the rows that have it (their self-confidence), and of these for the
    likeliest: where that is another label than its own, it stands off the diagonal of the confident
    joint. Those are left out whose own label is the likelier one all the same. In order of the
    margin: the probability of its own label less that of the likelier one.
    """
    rows = np.flatnonzero(np.isfinite(probabilities).all(1))
    own, said = labels[rows], probabilities[rows].astype(np.float64)
    if not len(rows):
        return []
    n_labels, self_confidence = said.shape[1], said[np.arange(len(rows)), own]
    counts = np.bincount(own, minlength=n_labels)
    sums = np.bincount(own, self_confidence, minlength=n_labels)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reached = np.where(said >= thresholds, said, -1.0)
    likelier = reached.argmax(1)
    best = reached[np.arange(len(rows)), likelier]
    wrong = np.flatnonzero((best >= 0) & (likelier != own) & (best > self_confidence))
    order = wrong[np.argsort((self_confidence - best)[wrong], kind="stable")]
    return [(int(rows[i]), int(likelier[i])) for i in order]

"""Likely label errors: by hand, and planted ones among drawn vectors."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.evaluate.label_errors import label_errors
from tercet.evaluate.probe import out_of_fold


def test_the_confident_joint_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 0, 1])
    first = np.array([0.9, 0.8, 0.1, 0.2, 0.1, np.nan, 0.7])
    probabilities = np.stack([first, 1 - first], 1)
    # thresholds: 0.6 of label 0, the mean of 0.9, 0.8 and 0.1; 2 / 3 of label 1
    assert label_errors(labels, probabilities) == [(2, 1), (6, 0)]
    probabilities[6] = [0.55, 0.45]  # below the threshold of label 0 itself: nothing is said of it
    assert label_errors(labels, probabilities) == [(2, 1)]


def test_a_label_that_is_the_likelier_one_is_kept():
    """0.6 of its own is below its mean, 0.4 above the mean of a label that nothing is sure of."""
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.99, 0.01], [0.99, 0.01], [0.6, 0.4], [0.7, 0.3]])
    assert label_errors(labels, probabilities) == []
    assert label_errors(labels, np.full((4, 2), np.nan)) == []


@pytest.mark.parametrize("n_labels", [2, 6])
def test_planted_errors_are_found_and_a_clean_table_has_few(n_labels: int):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, n_labels, 600)
    vectors = rng.normal(size=(n_labels, 16))[truth] * 1.5 + rng.normal(size=(600, 16))
    folds = np.arange(600) % 5
    clean = label_errors(truth, out_of_fold(vectors, truth, folds))
    assert len(clean) <= 6
    labels, planted = truth.copy(), rng.choice(600, 40, replace=False)
    labels[planted] = (truth[planted] + rng.integers(1, n_labels, 40)) % n_labels
    found = label_errors(labels, out_of_fold(vectors, labels, folds))
    rows = [row for row, _ in found]
    assert len(set(rows) & set(planted)) >= max(20, 0.9 * len(rows))
    right = [truth[row] == likely for row, likely in found if row in planted]
    assert sum(right) >= 0.9 * len(right)


def test_out_of_fold_is_out_of_fold():
    """Labels that say nothing: a row that had learned itself would know its own."""
    rng = np.random.default_rng(1)
    vectors, labels, folds = rng.normal(size=(60, 50)), rng.integers(0, 2, 60), np.arange(60) % 3
    said = out_of_fold(vectors, labels, folds)
    assert said.sum(1) == pytest.approx(1, abs=1e-5)
    assert (said.argmax(1) == labels).mean() < 0.7
    changed = labels.copy()
    changed[folds == 0] = 1 - changed[folds == 0]
    again = out_of_fold(vectors, changed, folds)
    assert np.array_equal(again[folds == 0], said[folds == 0])
    assert not np.allclose(again[folds == 1], said[folds == 1])


def test_what_no_other_fold_has_is_not_judged():
    vectors, folds = np.eye(6), np.array([0, 0, 0, 1, 1, 1])
    said = out_of_fold(vectors, np.array([0, 1, 2, 0, 1, 1]), folds)
    assert np.isnan(said).all(1).tolist() == [False, False, True, False, False, False]
    assert said[3:].shape == (3, 3) and (said[0, 2], said[1, 2]) == (0, 0)
    one = out_of_fold(vectors, np.array([0, 1, 0, 0, 0, 0]), folds)
    assert np.isnan(one).all(1).tolist() == [True, True, True, False, False, False]

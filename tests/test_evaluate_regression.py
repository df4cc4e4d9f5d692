"""A regression folded into one layer says what scikit-learn's says, and gains are told from
chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tercet.evaluate.classification import paired_gain
from tercet.evaluate.regression import STRENGTHS, fitted, regression


def rows(n: int, n_labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (n, 6), of unlike spread and far from zero, around a middle for each label."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % n_labels
    middles = np.random.default_rng(9).normal(size=(n_labels, 6))
    return (middles[labels] + draw.normal(size=(n, 6))) * np.arange(1, 7) ** 2 + 3, labels


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


@pytest.mark.parametrize("n_labels", [2, 3, 5])
@pytest.mark.parametrize("centred", [True, False])
def test_folded_it_equals_scikit_learns(n_labels: int, centred: bool):
    vectors, labels = rows(120, n_labels)
    found = regression(vectors, labels, n_labels, centred=centred)
    theirs = make_pipeline(
        StandardScaler(with_mean=centred),
        LogisticRegression(C=found.strength, max_iter=1_000, fit_intercept=centred),
    ).fit(vectors, labels)
    new, _ = rows(50, n_labels, seed=1)
    assert np.allclose(softmax(found.logits(new)), theirs.predict_proba(new), atol=1e-5)
    assert centred or not found.bias.any()


def test_the_strength_is_that_of_least_loss_on_rows_left_out():
    """Labels that the vectors do not tell want the strongest regularisation; clear ones do not."""
    draw = np.random.default_rng(3)
    noise = draw.normal(size=(80, 6)), draw.integers(0, 2, 80)
    assert regression(*noise, 2).strength <= STRENGTHS[1]
    vectors, labels = rows(80, 2)
    clear = regression(vectors + 1_000 * labels[:, None], labels, 2)
    assert clear.strength > STRENGTHS[1]


def test_a_label_without_rows_is_never_said():
    vectors, labels = rows(60, 3)
    found = regression(vectors, np.where(labels == 2, 4, labels), 5)
    said = softmax(found.logits(vectors))
    assert said.shape == (60, 5) and said[:, [2, 3]].max() < 1e-9
    assert (said.argmax(1) == np.where(labels == 2, 4, labels)).mean() > 0.7


def test_weights_count_as_rows_that_come_again():
    vectors, labels = rows(90, 3)
    how = {"C": 1.0, "max_iter": 1_000}
    scaler, model = fitted(vectors, labels, 1.0, weights=(1.0, 2.0, 1.0))
    scaled = scaler.transform(vectors)
    twice = np.concatenate([np.arange(90), np.flatnonzero(labels == 1)])
    theirs = LogisticRegression(**how).fit(scaled[twice], labels[twice])
    assert np.allclose(model.predict_proba(scaled), theirs.predict_proba(scaled), atol=1e-4)


def test_paired_gains_are_told_from_chance():
    before = np.array([True] * 60 + [False] * 40)
    after = np.array([True] * 58 + [False] * 2 + [True] * 22 + [False] * 18)
    found = paired_gain(before, after)
    assert found.gain == pytest.approx(0.2)  # 22 won, 2 lost
    half = 1.959964 * math.sqrt(22.5 + 2.5 - 20**2 / 102) / 102
    assert (found.low, found.high) == pytest.approx((20 / 102 - half, 20 / 102 + half), abs=1e-6)
    back = paired_gain(after, before)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    same = paired_gain(before, before)
    assert same.gain == 0 and same.low < 0 < same.high  # not even agreement is certainty


def test_the_interval_holds_the_truth_as_often_as_it_says():
    draw, inside = np.random.default_rng(5), 0
    for _ in range(2_000):
        hard = draw.random(80)
        before, after = hard + 0.1 * draw.random(80) < 0.7, hard + 0.1 * draw.random(80) < 0.75
        found = paired_gain(before, after)
        inside += found.low <= 0.05 <= found.high
    assert 0.92 < inside / 2_000 < 0.98  # of so few rows that disagree, counts leap


def test_columns_that_hardly_vary_get_no_giant_weights():
    """A real encoder has some: their deviations are 1e-32."""
    vectors, labels = rows(60, 3)
    tiny = np.random.default_rng(2).normal(size=(60, 2)) * [1e-32, 1e-9]
    found = regression(np.concatenate([vectors, tiny], 1), labels, 3)
    assert np.abs(found.weight).max() < 1e3
    alone = regression(vectors, labels, 3)
    np.testing.assert_allclose(found.weight[:, :6], alone.weight, rtol=1e-3, atol=1e-5)

"""Scores of classes, probes on a real encoder, similarity: against scikit-learn and scipy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr
from sklearn.metrics import accuracy_score, f1_score

import tercet
from tercet.data.documents import records
from tercet.errors import InputError
from tercet.evaluate.classification import class_scores, wilson
from tercet.evaluate.probe import Labelled, probe, tfidf_baseline
from tercet.evaluate.similarity import similarity, spearman, uniformity

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"TERCET_DATA: no folder {DATA}")


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> tercet.LanguageModel:
    return tercet.load(minilm)


def rows(name: str) -> list[dict[str, str]]:
    return list(records(str(DATA / name)))


def trec(name: str, start: int, stop: int) -> Labelled:
    found = rows(f"trec/{name}")[start:stop]
    return [row["text"] for row in found], [row["coarse"] for row in found]


def test_class_scores_equal_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    for n_classes in (2, 5):
        labels, guesses = rng.integers(0, n_classes, 90), rng.integers(0, n_classes + 1, 90)
        found = class_scores(labels, guesses)
        assert found.accuracy == pytest.approx(accuracy_score(labels, guesses))
        f1 = f1_score(labels, guesses, average="macro", zero_division=0)
        assert found.macro_f1 == pytest.approx(f1)
    named = class_scores(["a", "b", "b"], ["a", "b", "a"])
    assert named.accuracy == 2 / 3 and named.n == 3 and "66.7%" in str(named)
    with pytest.raises(InputError, match="2 guesses for 3 labels"):
        class_scores([1, 2, 3], [1, 2])


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (1_700, 1_821)])
def test_wilson_equals_scipys(right: int, n: int):
    exact = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right, n) == pytest.approx((exact.low, exact.high))


def test_uniformity_by_hand():
    vectors = np.random.default_rng(0).normal(size=(30, 5)) * 3
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    far = [((unit[i] - unit[j]) ** 2).sum() for i in range(30) for j in range(30) if i != j]
    assert uniformity(vectors) == pytest.approx(np.log(np.exp(-2 * np.array(far)).mean()))
    assert uniformity(np.ones((4, 3))) == pytest.approx(0)
    with pytest.raises(InputError, match="1 vector has no distance"):
        uniformity(vectors[:1])


def test_spearman_equals_scipys():
    rng = np.random.default_rng(1)
    for values, scores in (
        (rng.normal(size=50), rng.normal(size=50)),
        (rng.integers(0, 5, 80), rng.integers(0, 4, 80)),  # many equals
    ):
        assert spearman(values, scores) == pytest.approx(spearmanr(values, scores).statistic)
    with pytest.raises(InputError, match="no order"):
        spearman([1, 1, 1], [1, 2, 3])
    with pytest.raises(InputError, match="2 values for 3 scores"):
        spearman([1, 2], [1, 2, 3])


@needs_data
def test_similarity_of_a_real_encoder(encoder: tercet.LanguageModel):
    found = rows("stsb/dev.tsv")[::15]  # 100 pairs
    pairs = [(row["sentence1"], row["sentence2"]) for row in found]
    scores = [float(row["score"]) for row in found]
    first, second = (encoder.embed(list(side)) for side in zip(*pairs))
    exact = spearmanr((first * second).sum(1), scores).statistic
    rank = similarity(encoder, pairs, scores)
    assert rank == pytest.approx(exact) and rank > 0.8
    assert similarity(encoder, pairs, scores, pool="first") < rank


@needs_data
def test_a_probe_beats_the_words_alone_where_texts_are_few(encoder: tercet.LanguageModel):
    parts = trec("train.tsv.gz", 0, 200), trec("train.tsv.gz", 200, 300), trec("test.tsv", 0, 200)
    probed, words = probe(encoder, *parts), tfidf_baseline(*parts)
    assert probed.test.accuracy > words.test.accuracy + 0.05
    assert 0.7 < probed.test.accuracy < 0.95 and 0.5 < words.test.accuracy < 0.85
    assert probed.test.low < probed.test.accuracy < probed.test.high and probed.test.n == 200
    assert "vectors (mean)" in str(probed) and "TF-IDF of" in str(words)
    assert 0.5 < probed.validation_accuracy < 0.9


@needs_data
def test_the_validation_texts_choose():
    """With validation labels that say the opposite, another strength is chosen."""
    train, test = trec("train.tsv.gz", 0, 200), trec("test.tsv", 0, 100)
    texts, labels = trec("train.tsv.gz", 200, 400)
    turned = [sorted(set(labels))[i % 3] for i in range(200)]
    right, wrong = (tfidf_baseline(train, (texts, kind), test) for kind in (labels, turned))
    assert right.strength != wrong.strength and right.test.accuracy > wrong.test.accuracy


def test_refusals():
    good = ["a", "b"], [0, 1]
    with pytest.raises(InputError, match="1 validation texts with 2 labels"):
        tfidf_baseline(good, (["a"], [0, 1]), good)
    with pytest.raises(InputError, match="all training labels are 0"):
        tfidf_baseline((["a", "b"], [0, 0]), good, good)
    with pytest.raises(InputError, match="0 test texts"):
        tfidf_baseline(good, good, ([], []))

"""Groups beside labels: scikit-learn's measures, samples, and the verb."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.cli import run
from tercet.errors import InputError
from tercet.evaluate.clustering import Sampling, by_k_means, clustering

pairs = st.lists(st.tuples(st.integers(-1, 4), st.sampled_from("abc")), min_size=1, max_size=40)


@given(pairs)
def test_as_scikit_learn_has_it_whatever_groups_are_called(rows: list[tuple[int, str]]):
    from sklearn import metrics

    groups, labels = [group for group, _ in rows], [label for _, label in rows]
    found = clustering(groups, labels)
    assert found.v_measure == pytest.approx(metrics.v_measure_score(labels, groups))
    assert found.ari == pytest.approx(metrics.adjusted_rand_score(labels, groups))
    assert found.nmi == pytest.approx(found.v_measure)
    other = clustering([7 - group if group >= 0 else -1 for group in groups], labels)
    assert other.v_measure == pytest.approx(found.v_measure)
    assert found.outliers == pytest.approx(groups.count(-1) / len(groups))
    inside = [row for row in rows if row[0] >= 0]
    if inside:
        kept = clustering(groups, labels, outliers=False)
        assert kept.n == len(inside) and kept.groups == len({group for group, _ in inside})
        assert kept.v_measure == pytest.approx(clustering(*zip(*inside)).v_measure)


def test_samples_are_the_same_each_time_and_without_repeats():
    one, two = (Sampling(3, 0.25, seed=1).rows(100) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two))
    assert [len(set(rows.tolist())) for rows in one] == [25] * 3
    assert not np.array_equal(one[0], one[1])


def test_k_means_finds_what_lies_apart():
    draw = np.random.default_rng(0)
    vectors = np.concatenate([draw.normal(size=(50, 8)) + 20 * np.eye(8)[i] for i in range(3)])
    labels = [label for label in "abc" for _ in range(50)]
    scores = by_k_means(vectors, labels, sampling=Sampling(2, 0.5))
    assert [score.v_measure for score in scores] == pytest.approx([1, 1]) and scores[0].n == 75


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: clustering([0], ["a", "b"]), "1 groups for 2 labels"),
        (lambda: clustering([-1], ["a"], outliers=False), "no text is in a group"),
        (lambda: clustering([], []), "no text is in a group"),
        (lambda: Sampling(0), "0 samples"),
        (
            lambda: by_k_means(np.eye(4), [*"abcd"], sampling=Sampling(1, 0.5)),
            "samples of 2 texts have no 4 groups",
        ),
    ],
)
def test_refusals(call, said: str):
    with pytest.raises(InputError, match=said):
        call()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [("bread and butter", "food", 0), ("flour and yeast", "food", 0)]
    rows += [("a star and a planet", "sky", 1), ("the moon and the sun", "sky", -1)]
    with open("rows.jsonl", "w") as file:
        for text, label, topic in rows:
            print(json.dumps({"text": text, "label": label, "topic": topic}), file=file)
    with open("labels.csv", "w") as file:
        file.write("kind\nfood\nfood\nsky\nsky\n")
    return tmp_path


def test_the_verb_reads_topics(place: Path, capsys):
    assert run(["evaluate", "clustering", "rows.jsonl"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("all texts: v-measure 0.8") and "25.0% in none" in said[0]
    assert said[1].startswith("those of a topic: v-measure 1.0000")
    command = ["evaluate", "clustering", "rows.jsonl", "--labels", "labels.csv", "--label", "kind"]
    assert run([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["those of a topic"]["n"] == 3 and told["all texts"]["groups"] == 2


def test_the_verb_reads_a_model(place: Path, minilm: Path, capsys):
    command = ["evaluate", "clustering", str(minilm), "rows.jsonl", "--share", "1"]
    assert run([*command, "--samples", "2", "--vectors", "vectors.npy"]) == 0
    said = capsys.readouterr().out
    assert "2 samples of 4 texts, 2 groups" in said and "v-measure 1.0000 ± 0.0000" in said
    assert np.load("vectors.npy").shape == (4, 384)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "name a table of TOPICS"),
        ("a b c", "name a table of TOPICS, or a MODEL and a FILE"),
        ("rows.jsonl --topic text", "'text' is no whole number"),
        ("rows.jsonl --topic tpic", "did you mean 'topic'?"),
        ("rows.jsonl --labels short.csv --label kind", "rows.jsonl has 4 rows and short.csv 1"),
    ],
)
def test_bad_commands(flags: str, said: str, place: Path, capsys):
    (place / "short.csv").write_text("kind\nfood\n")
    assert run(["evaluate", "clustering", *flags.split()]) == 2
    assert said in capsys.readouterr().err

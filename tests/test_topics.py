"""Topics: what is found, that it is found again, what is said of others, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tercet import Collection, InputError, Topics, TopicSettings, cluster, load
from tercet.cli import run
from tercet.represent.topics import folder as folders
from tercet.represent.topics import memory, vectors
from tercet.represent.topics.embedder import Embedder
from tercet.represent.topics.find import again
from tercet.represent.topics.group import grouped
from tercet.represent.topics.name import Words, words_of
from tercet.represent.topics.reduce import nearest
from tercet.represent.topics.vectors import Projection, Vectors

SUBJECTS = {
    "sea": "ship harbour sail captain anchor",
    "kitchen": "bread oven butter flour yeast",
    "sky": "star planet comet telescope orbit",
    "garden": "rose hedge spade compost tulip",
}


def blob(subject: int, count: int, seed: int = 0, width: int = 24) -> np.ndarray:
    """Vectors around a direction of the subject's own."""
    middle = np.random.default_rng(1000 + subject).normal(size=width)
    return (middle + np.random.default_rng(seed).normal(0, 0.25, (count, width))).astype("f4")


def pile(each: int = 75) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts of four subjects of which each has words of its own, and a few that are alone."""
    texts, parts, truth = [], [], []
    draw = np.random.default_rng(0)
    for number, words in enumerate(SUBJECTS.values()):
        chosen = [draw.choice(words.split(), 3, replace=False) for _ in range(each)]
        texts += [f"the {a} and the {b} of a {c}, {i}" for i, (a, b, c) in enumerate(chosen)]
        parts.append(blob(number, each, seed=number))
        truth += [number] * each
    alone = [f"nothing like number {i}" for i in range(2)]
    lone = draw.normal(size=(2, 24)).astype("f4") * 2
    return texts + alone, np.concatenate([*parts, lone]), np.array(truth + [-1] * 2)


TEXTS, VECTORS, TRUTH = pile()


@pytest.fixture(scope="module")
def found() -> Topics:
    return cluster(TEXTS, vectors=VECTORS, settings=TopicSettings(stability=2))


def same(one: Topics, other: Topics) -> None:
    assert np.array_equal(one.topics, other.topics)
    assert np.array_equal(one.probabilities, other.probabilities)
    assert np.array_equal(one.found.vectors, other.found.vectors)
    assert one.table == other.table and one.texts == other.texts


# what is found ------------------------------------------------------------------------------------


def test_subjects_are_found_named_and_scored(found: Topics):
    assert len(found.table) == 4 and found.topics.dtype == np.int32
    for topic in found.table:
        members = np.flatnonzero(found.topics == topic.number)
        (subject,) = {int(TRUTH[i]) for i in members if TRUTH[i] >= 0}
        assert topic.size == len(members) >= 70
        words = [*SUBJECTS.values()][subject].split()
        assert set(topic.words[:5]) == set(words) and topic.name == ", ".join(topic.words[:3])
        assert {TRUTH[TEXTS.index(text)] for text in topic.examples} == {subject}
        assert topic.stability is not None and topic.stability > 0.9
    assert [topic.size for topic in found.table] == sorted(
        (topic.size for topic in found.table), reverse=True
    )
    assert found.found.agreement > 0.95 and 0 < found.probabilities.min() + 1
    assert f"{found.table[0].size:8,}  {found.table[0].name}" in str(found)


def test_runs_are_the_same_in_any_order_of_the_texts():
    first = cluster(TEXTS, vectors=VECTORS)
    for turn in range(9):
        order = np.random.default_rng(turn).permutation(len(TEXTS))
        other = cluster([TEXTS[i] for i in order], vectors=VECTORS[order])
        assert np.array_equal(other.topics, first.topics[order])
        assert np.array_equal(other.probabilities, first.probabilities[order])
        assert other.table == first.table


def test_kmeans_makes_k_and_leaves_no_text_out():
    topics = cluster(TEXTS, vectors=VECTORS, settings=TopicSettings("kmeans", 4))
    assert len(topics.table) == 4 and topics.topics.min() == 0
    for number in range(4):
        assert len(set(topics.topics[TRUTH == number].tolist())) == 1
    assert topics.predict("far off", vectors=blob(99, 1)).topics.min() >= 0


def test_large_topics_are_whole_and_one_of_nearly_all_is_cut():
    texts, vectors = [f"text {i:04}" for i in range(2_100)], [blob(i, 700, i) for i in range(3)]
    topics = cluster(texts, vectors=np.concatenate(vectors))
    assert [topic.size for topic in topics.table] == [700] * 3
    # a text that stands 600 times among 2,100
    points = np.concatenate([blob(i, 500, i, width=5) for i in range(3)])
    counts = np.ones(1_500, int)
    counts[0] = 601
    assert grouped(points, counts, TopicSettings())[0] == 0
    # ten piles near each other and one far away: two groups are worth most to HDBSCAN
    middles = np.eye(10, dtype="f4").repeat(200, 0)
    around = np.random.default_rng(0).normal(0, 0.15, (2_100, 10)).astype("f4")
    crowd = around + np.concatenate([middles, np.full((100, 10), 9, "f4")])
    for some, wanted in ((crowd, 11), (crowd[200:], 2)):  # of 2,100, and of 1,900
        groups = grouped(some, np.ones(len(some), int), TopicSettings(min_size=90))
        assert groups.max() + 1 == wanted and (groups < 0).sum() < 20


def test_other_seeds_score_a_topic_by_what_they_find_of_it():
    topics, other = np.array([0, 0, 0, 1, 1, -1]), np.array([1, 1, 0, 0, -1, 0])
    counts = np.array([1, 1, 2, 1, 1, 5])
    assert again(topics, topics, counts).tolist() == [1, 1]
    # {a b c c} beside {a b} and {c c d f..}; {d e} beside {c c d f...}
    assert again(topics, other, counts).tolist() == pytest.approx([2 / 4, 1 / 9])


# what it says of texts ----------------------------------------------------------------------------


def test_it_says_of_its_texts_what_was_found_and_of_others_what_their_nearest_have(found: Topics):
    said = found.predict(TEXTS[::-1], vectors=np.zeros((len(TEXTS), 24)))
    assert np.array_equal(said.topics[::-1], found.topics)
    assert np.array_equal(said.probabilities[::-1], found.probabilities)
    for number in range(4):
        expected = found.topics[TRUTH == number].max()
        new = found.predict(["a", "b", TEXTS[0]], vectors=blob(number, 3, seed=9))
        assert new.topics.tolist() == [expected, expected, found.topics[0]]
        assert new.probabilities.min() > 0.5
    far = found.predict("of another world", vectors=blob(99, 1))
    assert far.topics.tolist() == [-1]


def test_outliers_are_assigned_on_request():
    lone = np.random.default_rng(0).normal(size=(8, 24))
    found = cluster(
        [f"text {i:02}" for i in range(46)],
        vectors=np.concatenate([blob(0, 20), blob(1, 18), lone]),
    )
    alone = found.topics < 0
    assert 4 <= alone.sum() <= 16 and len(found.table) == 2
    assigned = found.reassign()
    assert (assigned.topics >= 0).all() and (found.topics < 0).sum() == alone.sum()
    assert np.array_equal(assigned.topics[~alone], found.topics[~alone])
    assert sum(topic.size for topic in assigned.table) == 46
    assert [topic.name for topic in assigned.table] == [topic.name for topic in found.table]
    surest = assigned.probabilities[alone].max()
    some = found.reassign(at_least=float(surest))
    assert (some.topics[alone] >= 0).sum() == (assigned.probabilities[alone] == surest).sum()
    assert assigned.reassign() is assigned


def test_added_texts_join_topics_or_found_new_ones():
    topics = cluster(TEXTS, vectors=VECTORS)
    before, sizes = topics.topics.copy(), [topic.size for topic in topics.table]
    new = [f"cello and violin, {i}" for i in range(12)]
    more = ["one more sail", "and another anchor", TEXTS[0], *new]
    added = np.concatenate([blob(0, 2, seed=5), VECTORS[:1], blob(77, 12, seed=6)])
    growth = topics.add(more, vectors=added)
    sea = int(before[0])
    assert np.array_equal(topics.topics[: len(TEXTS)], before)
    assert topics.topics[len(TEXTS) :].tolist() == [sea] * 3 + [4] * 12
    assert [(topic.number, was) for topic, was in growth.grown] == [(sea, sizes[sea])]
    assert [topic.number for topic in growth.new] == [4] and "violin" in growth.new[0].words
    assert {topic.number for topic in growth.unchanged} == {0, 1, 2, 3} - {sea}
    assert str(growth).splitlines()[:2] == [
        "15 texts added",
        f"~ {sea} {topics.table[sea].name}: {sizes[sea]} + 3",
    ]
    assert f"+ 4 {topics.table[4].name}: 12" in str(growth)
    assert np.array_equal(topics.predict(topics.texts).topics, topics.topics)


few = st.integers(0, 1_000_000).map(np.random.default_rng)


@settings(max_examples=25)
@given(draw=few)
def test_laws_of_a_few_texts(draw: np.random.Generator, tmp_path_factory: Any):
    """Small enough to be grouped without a layout, with equal texts among them."""
    n = int(draw.integers(4, 45))
    texts = [f"text {i}" for i in draw.integers(0, n, n)]
    different = len(set(texts))
    _, of_text = np.unique(texts, return_inverse=True)
    given_ = (draw.normal(size=(n, 6)) + 5 * draw.integers(0, 2, (n, 1)))[of_text]
    if different < 2:
        return
    topics = cluster(texts, vectors=given_, settings=TopicSettings(min_size=3))
    assert len(topics.topics) == n and topics.topics.max() + 1 == len(topics.table)
    assert len({*zip(texts, topics.topics.tolist())}) == different  # equal texts, one topic
    assert np.array_equal(topics.predict(texts).topics, topics.topics)
    assert sum(topic.size for topic in topics.table) == (topics.topics >= 0).sum()
    place = tmp_path_factory.mktemp("topics")
    topics.save(place)
    same(Topics.load(place), topics)
    before = topics.topics.copy()
    topics.add(["text 0", "other"], vectors=draw.normal(size=(2, 6)))
    kept = before >= 0
    assert np.array_equal(topics.topics[:n][kept], before[kept])
    assert np.array_equal(topics.predict(topics.texts).topics, topics.topics)


# on disk ------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_was_found(found: Topics, tmp_path: Path):
    found.save(tmp_path / "new" / "topics")
    other = Topics.load(tmp_path / "new" / "topics")
    same(other, found)
    new = blob(2, 5, seed=8)
    for one, two in zip(*(t.predict([*"abcde"], vectors=new) for t in (found, other))):
        assert np.array_equal(one, two)
    assert np.array_equal(other.map_places(), found.map_places())
    names = sorted(path.name for path in (tmp_path / "new" / "topics").iterdir())
    assert names == ["texts.jsonl", "topics.json", "vectors.safetensors"]


def test_a_folder_that_was_altered_is_refused(found: Topics, tmp_path: Path):
    with pytest.raises(InputError, match="has no texts.jsonl and no topics.json"):
        Topics.load(tmp_path)
    found.save(tmp_path)
    texts, table, arrays = (
        tmp_path / name for name in (folders.TEXTS, folders.TABLE, folders.ARRAYS)
    )
    told, lines = json.loads(table.read_text()), texts.read_text().splitlines(keepends=True)
    first = json.loads(lines[0])

    def saved_so() -> None:
        sums = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (texts, arrays)
        }
        table.write_text(json.dumps(told | {"sums": sums}))

    # the first text is another one: vectors lie in the order of the texts
    texts.write_text("".join([json.dumps(first | {"text": "zzz"}) + "\n", *lines[1:]]))
    with pytest.raises(InputError, match="texts.jsonl: it is not the file .* save the topics anew"):
        Topics.load(tmp_path)
    for content, said in (
        ("".join(lines[1:]), "have other sizes"),
        ("", "there are no texts"),
        ("".join([*lines, '{"text": "a", "topic": 99, "probability": 1}\n']), "no topic 99"),
        ("".join([*lines, '{"text": "a", "topic": 0, "probability": NaN}\n']), "nan is no number"),
        ("".join([*lines, "{\n"]), "damaged"),
        ("".join([*lines, json.dumps(first | {"topic": -1}) + "\n"]), "equal texts have other"),
    ):
        texts.write_text(content)
        saved_so()
        with pytest.raises(InputError, match=said):
            Topics.load(tmp_path)
    texts.write_text("".join(lines))
    whole = load_file(arrays)
    for change, said in (
        ({"vectors": whole["vectors"][:-1]}, r"vectors is float32 of shape \(301, "),
        ({"vectors": whole["vectors"] * np.float32(np.nan)}, "vectors is float32 .* and finite"),
        ({"axes": np.ascontiguousarray(whole["axes"][:, :3])}, "vectors is float32 of shape"),
        ({"mean": whole["mean"].astype(float)}, "mean is float64"),
        ({"places": whole["mean"]}, "places is float32 of shape"),
    ):
        save_file({**whole, **change}, arrays)
        saved_so()
        with pytest.raises(InputError, match=said):
            Topics.load(tmp_path)
    save_file(whole, arrays)
    saved_so()
    same(Topics.load(tmp_path), found)
    sums = json.loads(table.read_text())["sums"]
    smaller = [*told["topics"][1:], told["topics"][0]]
    for change, said in (
        ({"format": 9}, "format 9"),
        ({"topics": [1]}, "damaged"),
        ({"topics": smaller}, "damaged"),
        ({"topics": told["topics"][:-1]}, "no topic 3"),
        ({"topics": [told["topics"][0] | {"size": 7}, *told["topics"][1:]]}, "have other sizes"),
        ({"contract": 5}, "damaged"),
        ({"reach": "far"}, "damaged"),
        ({"agreement": float("nan")}, "damaged"),
        ({"fitted": 1_000}, "have other sizes"),
        ({"sums": None}, "damaged"),
    ):
        table.write_text(json.dumps(told | {"sums": sums} | change))
        with pytest.raises(InputError, match=said):
            Topics.load(tmp_path)
    saved_so()
    arrays.write_bytes(arrays.read_bytes()[:100])
    saved_so()
    with pytest.raises(InputError, match="is damaged"):
        Topics.load(tmp_path)


def test_a_save_that_was_killed_between_two_files_is_refused(found: Topics, tmp_path: Path):
    other = [f"a {text}" for text in found.texts]
    found.save(tmp_path / "old")
    Topics(other, found.found, found.table, found.settings, None).save(tmp_path / "new")
    for name in (folders.TEXTS, folders.TABLE, folders.ARRAYS):  # in the order of the renames
        (tmp_path / "new" / name).replace(tmp_path / "old" / name)
        if name == folders.TEXTS:
            with pytest.raises(InputError, match="half written: save the topics anew"):
                Topics.load(tmp_path / "old")
    assert Topics.load(tmp_path / "old").texts == other


def test_a_model_that_was_moved_is_found_again(minilm: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here").symlink_to(minilm)
    topics = cluster(REAL, "here", settings=TopicSettings("kmeans", 3))
    topics.save("topics")
    told = json.loads(json.loads(Path("topics/topics.json").read_text())["contract"])
    assert Path(told["model"]).is_absolute() and Path(told["model"]).is_dir()
    assert topics.embedder is not None
    gone = replace(topics.embedder.contract, model=str(tmp_path / "gone"))
    Topics(topics.texts, topics.found, topics.table, topics.settings, Embedder(gone)).save("topics")
    with pytest.raises(InputError, match="model of the topics, .*gone.*if it was moved"):
        Topics.load("topics").predict("A cup of flour.")
    moved = Topics.load("topics", "here")
    assert moved.predict("A cup of flour.").topics == topics.predict("A cup of flour.").topics
    moved.save("topics")
    again_ = Topics.load("topics").embedder
    assert again_ is not None and Path(again_.contract.model).is_dir()


# what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "changes", "said"),
    [
        ([], {}, "there are no texts"),
        (["one"], {}, "one text has no topics"),
        (["same"] * 9, {}, "all 9 texts are equal"),
        (["a", " \n"], {}, r"text 2 is empty \(' \\n'\)"),
        (["a", 3], {}, r"text 2 is 3 \(int\)"),
        ("abc", {}, "give a list of strings"),
        (["a", "b", "a"], dict(settings=TopicSettings("kmeans", 3)), "k 3 and only 2 different"),
        (["a", "b"], dict(vectors=None), "give model or vectors"),
        (["a", "b"], dict(vectors=np.ones((3, 2))), r"shape \(3, 2\) for 2 texts"),
        (["a", "b"], dict(vectors=np.array([[1, 2], [np.nan, 1]])), "vector 2 holds what is no"),
        (["b", "a"], dict(vectors=np.array([[1, np.inf], [1, 1]])), "vector 1 holds what is no"),
        (["a", "b"], dict(vectors=np.array([[1e300, 1], [1, 1]])), "vector 1 .*too large"),
        (["a", "b"], dict(vectors=np.array([["x"], ["y"]])), "vectors of <U1; give numbers"),
        (["b", "a", "b"], dict(vectors=np.eye(3)), "texts 1 and 3 are equal, and their vectors"),
        (["a", "b\ud800"], {}, r"text 2 has half a character \('\\ud800', a lone surrogate\)"),
        (["a", "b"], dict(settings=TopicSettings(min_size=2)), "min_size 2 and only 2 texts"),
        (
            [*map(str, range(60))],
            dict(vectors=VECTORS[:60], settings=TopicSettings(dimensions=59)),
            "dimensions 59 are too many to lay out 60 .* 58 at the most",
        ),
        (["a", "b"], dict(max_ram="much"), "'much' is no size of memory"),
        (["a", "b"], dict(max_ram="100M"), "2 texts need about .*no number of texts would fit"),
    ],
)
def test_bad_input(texts: Any, changes: dict[str, Any], said: str):
    given_: dict[str, Any] = {"vectors": np.eye(len(texts), 4) if texts else None} | changes
    with pytest.raises(InputError, match=said):
        cluster(texts, **given_)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(method="ward"), "method 'ward' is unknown"),
        (dict(method="kmeans"), "kmeans needs k"),
        (dict(k=3), "k 3 belongs to kmeans"),
        (dict(method="kmeans", k=1), "k 1 must be a whole number from 2"),
        (dict(method="kmeans", k=3, min_size=5), "min_size 5 belongs to hdbscan"),
        (dict(min_size=1), "min_size 1 must be"),
        (dict(neighbours=1.5), "neighbours 1.5 must be"),
        (dict(seed=-1), "seed -1 must be"),
        (dict(seed=(1 << 32) - 1, stability=1), "seed 4294967295 and stability 1: the last"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        TopicSettings(**changes)


def test_two_texts_and_texts_without_a_topic_are_an_answer():
    topics = cluster(["a", "b"], vectors=np.eye(2))
    assert topics.topics.tolist() == [-1, -1] and topics.table == [] and topics.outliers == 1
    assert topics.predict(["a", "c"], vectors=np.eye(2)).topics.tolist() == [-1, -1]
    assert topics.reassign() is topics
    assert str(topics).splitlines()[0] == (
        "no topics; try a min_size smaller than 5, or method 'kmeans' with a k"
    )


def test_other_vectors_and_no_model(found: Topics, tmp_path: Path):
    for use in (found.predict, found.add):
        with pytest.raises(InputError, match="there are no texts; give at least one"):
            use([])
        with pytest.raises(InputError, match="vector 2 holds what is no number"):
            use(["new", "also"], vectors=np.array([[1.0] * 24, [np.nan] * 24]))
    with pytest.raises(InputError, match="at_least 7 must be a share of the votes, from 0 to 1"):
        found.reassign(at_least=7)
    found.save(tmp_path)
    with pytest.raises(InputError, match="made of vectors, without a model; leave it out"):
        Topics.load(tmp_path, "anywhere")
    with pytest.raises(InputError, match="the vectors have 3 numbers, and those of the topics 24"):
        found.predict("new", vectors=np.ones((1, 3)))
    with pytest.raises(InputError, match="made of vectors, without a model"):
        found.predict("new")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match=r"pip install 'tercet\[learn\]'"):
        cluster(TEXTS, vectors=VECTORS)


# the parts ----------------------------------------------------------------------------------------


def test_principal_components_are_scikit_learns(monkeypatch: pytest.MonkeyPatch):
    from sklearn.decomposition import PCA

    draw = np.random.default_rng(0)
    rows = (draw.normal(size=(500, 12)) * np.arange(1, 13) + 3).astype("f4")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    theirs = PCA(5, svd_solver="full").fit_transform(rows.astype(float))
    kept = Vectors([rows[:100], rows[100:]], 500)
    ours = Projection.of(kept, 5)(kept.blocks())
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours, theirs * signs, atol=1e-5)
    monkeypatch.setattr(vectors, "IN_MEMORY", 5_000)  # bytes: the rest lies in a file
    monkeypatch.setattr(vectors, "BLOCK", 100)
    filed = Vectors([rows[:100], rows[100:]], 500)
    assert filed._file is not None
    assert np.array_equal(np.concatenate([*filed.blocks()]), np.concatenate([*kept.blocks()]))


def test_neighbours_are_the_nearest(monkeypatch: pytest.MonkeyPatch):
    from sklearn.neighbors import NearestNeighbors

    from tercet.represent.topics import reduce

    monkeypatch.setattr(reduce, "ROOM", 3_000)  # ten rows at once
    draw = np.random.default_rng(0)
    rows, asked = draw.normal(size=(300, 7)).astype("f4"), draw.normal(size=(40, 7)).astype("f4")
    distances, places = NearestNeighbors(n_neighbors=6).fit(rows).kneighbors(asked)
    found = nearest(rows, asked, 6)
    assert np.array_equal(found[0], places)
    np.testing.assert_allclose(found[1], distances, atol=1e-5)
    own = nearest(rows, None, 6)
    assert np.array_equal(own[0][:, :5], NearestNeighbors(n_neighbors=5).fit(rows).kneighbors()[1])
    assert nearest(rows[:3], None, 6)[0].shape == (3, 2)


def test_names_hold_no_words_that_stand_anywhere():
    """Short texts, in which each such word is rare, and in some topic more frequent by chance."""
    draw, texts = np.random.default_rng(0), []
    anywhere = "no up more the on of about by why is still or any to in me my with what for".split()
    for topic in range(60):
        own = [f"{c}{chr(97 + topic // 26)}{chr(97 + topic % 26)}" for c in "wxyz"]
        texts += [" ".join([draw.choice(own), *draw.choice(anywhere, 2, False)]) for _ in range(8)]
    found = Words(texts).of_topics(np.repeat(np.arange(60), 8), 60)
    assert not {word for words in found for word in words[:3]} & {*anywhere}
    assert all(
        words and words[0] in " ".join(texts[8 * i : 8 * i + 8]) for i, words in enumerate(found)
    )
    # of one topic, and of a text that is all a topic has
    assert Words(["a cat", "a cat sat"]).of_topics(np.zeros(2, int), 1)[0][0] == "cat"
    assert "cat" in Words(["my cat", "some dog"]).of_topics(np.array([0, 1]), 2)[0]


def test_words_of_any_script():
    assert words_of("The Don't-know of R2D2 3 a_b, Größe") == [
        *("the", "don't", "know", "of", "r2d2", "größe"),
    ]
    assert words_of("日本語の本 book") == ["日本", "本語", "語の", "の本", "book"]


@pytest.mark.parametrize(
    ("said", "size"), [("4G", 4 << 30), ("512m", 512 << 20), ("1.5 GiB", 3 << 29), ("99", 99)]
)
def test_sizes_of_memory(said: str, size: int):
    assert memory.size_of(said) == size


def test_too_many_texts_are_refused_with_what_would_fit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "held", lambda: 1 << 30)
    plan = 2 << 30, TopicSettings()
    memory.check(*plan, memory.Load(10_000, 1_000_000, 384))
    with pytest.raises(
        InputError, match=r"5,000,000 texts need about .*G.* max_ram is 2.00G"
    ) as no:
        memory.check(*plan, memory.Load(5_000_000, 500_000_000, 384))
    fit = int(str(no.value).partition("max_ram is 2.00G; ")[2].partition(" of")[0].replace(",", ""))
    memory.check(*plan, memory.Load(fit - 1, 100 * (fit - 1), 384))
    for more in (memory.Load(fit + 1_000, 100 * fit, 384), memory.Load(fit, 100 * fit, 384, True)):
        with pytest.raises(InputError):
            memory.check(*plan, more)


# a real model: texts in, in this process and another; a collection; the map in a browser ----------

REAL = [
    *("How do I bake bread without yeast?", "The oven was too hot and the cake burned."),
    *("Knead the dough and let it rise overnight.", "Butter, flour and sugar for the biscuits."),
    *("Which flour is best for pizza dough?", "My sourdough bread does not rise."),
    *("A recipe for chocolate cake with almonds.", "Roll out the pastry and fill it with jam."),
    *("The moons of Jupiter seen through a telescope.", "A comet passes the sun next week."),
    *("How far is the nearest star?", "The rover landed on Mars this morning."),
    *("Astronomers found a planet that is like the Earth.", "The rocket reached its orbit."),
    *("Galaxies move away from each other.", "An eclipse of the moon tonight."),
    *("The striker scored twice in the final.", "Our goalkeeper was injured in the match."),
    *("They won the championship after extra time.", "The referee showed a red card."),
    *("The coach picked a young team for the cup.", "A penalty decided the football game."),
    *("Fans cheered when the midfielder scored.", "The league match ended in a draw."),
]


def test_a_collection_has_topics_that_know_its_model(minilm: Path, tmp_path: Path):
    collection = Collection.open(tmp_path / "collection", minilm)
    collection.add(REAL)
    topics = cluster(Collection.open(tmp_path / "collection"), settings=TopicSettings("kmeans", 3))
    assert [topic.size for topic in topics.table] == [8, 8, 8]
    topics.save(tmp_path / "topics")
    other = Topics.load(tmp_path / "topics")
    said = other.predict(["The team lost the game.", "Stars and planets.", REAL[0]])
    wanted = [topics.topics[topics.texts.index(text)] for text in (REAL[20], REAL[10], REAL[0])]
    assert said.topics.tolist() == wanted
    collection.add(["A cup of flour."])
    with pytest.raises(InputError, match="leave model and vectors out"):
        cluster(collection, minilm)
    with pytest.raises(InputError, match="made with precision 'float32', and the model given has"):
        assert other.embedder is not None
        other.embedder.take(load(minilm, precision="bfloat16"))


@pytest.fixture(scope="module")
def written(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command, in a process of its own."""
    place = tmp_path_factory.mktemp("command")
    (place / "texts.txt").write_text("\n".join(f"{text} {i}" for i in range(4) for text in REAL))
    flags = "--min-size 10 --out out --map map.html --picture map.png --max-ram 3G"
    command = [sys.executable, "-m", "tercet", "cluster", str(minilm), "texts.txt", *flags.split()]
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "120"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (place / "said").write_text(done.stdout + done.stderr)
    return place


def test_the_command_finds_what_this_process_finds(written: Path, minilm: Path):
    texts = (written / "texts.txt").read_text().splitlines()
    topics = cluster(texts, load(minilm), settings=TopicSettings(min_size=10))
    same(Topics.load(written / "out"), topics)
    assert len(topics.table) == 3
    said = (written / "said").read_text()
    assert "96 texts, 3 topics" in said and topics.table[0].words[0] in said
    rows = [json.loads(line) for line in (written / "out" / "texts.jsonl").open()]
    assert [row["text"] for row in rows] == texts
    assert (written / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def hand(written: Path, tmp_path: Path) -> Iterator[browser.Hand]:
    page = written / "map.html"
    with browser.opened(page, tmp_path / "profile", *browser.SOFTWARE_WEBGL) as driver:
        yield browser.Hand(driver)


@browser.driven
def test_the_real_map_is_hovered_searched_and_zoomed(hand: browser.Hand, written: Path):
    topics = Topics.load(written / "out")
    place = topics.texts.index(f"{REAL[3]} 2")
    hand.type("biscuits")
    found = hand.one(".map-found")
    hand.until(lambda: found.text == "4 of 96 texts")
    hand.one("input[type=search]").clear()
    hand.hover(place)
    hand.until(lambda: hand.one(".map-card").is_displayed())
    named = {f"{topic.number} {topic.name}" for topic in topics.table} | {"no topic"}
    assert hand.one(".map-card bdi").text in named
    assert hand.one(".map-card p").text in topics.texts
    before = hand.place(place)
    hand.one("[aria-label=Nearer]").click()
    hand.until(lambda: hand.js("return textMap.view.zoom") == pytest.approx(1.7))
    hand.until(lambda: not hand.js("return textMap.waiting"))
    assert hand.place(place) != before
    legend = [row.text for row in hand.driver.find_elements("css selector", "[data-topic] bdi")]
    assert legend[0].startswith("0 ")


# the verb's flags ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cluster", "name a COLLECTION, or a MODEL and FILES"),
        ("cluster nowhere", "nowhere is no collection; name FILES behind"),
        ("cluster MODEL texts.txt --k 3", "--method kmeans and --k N belong together"),
        ("cluster MODEL texts.txt --method kmeans --k 200", "k 200 and only 5 different texts"),
        ("cluster MODEL texts.txt --max-ram 50M", "no number of texts would fit"),
        ("cluster MODEL missing.txt", "missing.txt: no such file"),
        ("cluster MODEL texts.txt --map /proc/no/map.html", "cannot be written"),
    ],
)
def test_bad_commands(command: str, said: str, minilm: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(REAL[:5]))
    assert run([word.replace("MODEL", str(minilm)) for word in command.split()]) == 2
    assert said in capsys.readouterr().err


def test_the_verb_prints_json(minilm: Path, tmp_path: Path, capsys):
    (tmp_path / "rows.csv").write_text("subject\n" + "".join(f'"{text}"\n' for text in REAL))
    command = ["cluster", str(minilm), str(tmp_path / "rows.csv"), "--column", "subject", "--json"]
    assert run([*command, "--min-size", "5", "--outliers", "assign"]) == 0
    table = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(topic["size"] for topic in table) == len(REAL)
    assert set(table[0]) == {"number", "size", "name", "words", "examples", "stability"}


def test_votes_weigh_by_nearness_and_equal_texts_decide_alone(monkeypatch: pytest.MonkeyPatch):
    from tercet.represent.topics import vote

    topics = np.array([[0, 1, 1], [-1, -1, 2], [2, 1, 1]], np.int32)
    distances = np.array([[1, 3, 3], [1, 1, 1], [0, 1, 1]], np.float32)
    for room in (1 << 22, 1):  # all at once, row by row
        monkeypatch.setattr(vote, "ROOM", room)
        said, share = vote.votes(topics, distances, 3)
        assert said.tolist() == [0, -1, 2]
        assert share.tolist() == pytest.approx([3 / 5, 2 / 3, 1], abs=1e-3)
    standing = vote.share_of(np.array([1, -1, 2]), topics, distances)
    assert standing.tolist() == pytest.approx([2 / 5, 2 / 3, 1], abs=1e-3)

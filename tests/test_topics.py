"""Topics: what is found, that it is found again, what is said of others, and the parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_topics import SUBJECTS, TEXTS, TRUTH, VECTORS, blob, same

from tercet import InputError, Topics, TopicSettings, cluster
from tercet.represent.topics import memory, vectors
from tercet.represent.topics.find import again
from tercet.represent.topics.group import grouped
from tercet.represent.topics.name import Words, words_of
from tercet.represent.topics.reduce import nearest
from tercet.represent.topics.vectors import Projection, Vectors


@pytest.fixture(scope="module")
def found() -> Topics:
    return cluster(TEXTS, vectors=VECTORS, settings=TopicSettings(stability=2))


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

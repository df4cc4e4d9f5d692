"""Topics on disk, and input that is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_topics import REAL, TEXTS, VECTORS, blob, same

from tercet import InputError, Topics, TopicSettings, cluster
from tercet.represent.topics import folder as folders
from tercet.represent.topics.embedder import Embedder


@pytest.fixture(scope="module")
def found() -> Topics:
    return cluster(TEXTS, vectors=VECTORS, settings=TopicSettings(stability=2))


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

"""Retrieval folders, and negatives that are mined among vectors."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tercet.data.judgements import Judgements, is_retrieval_folder
from tercet.data.related import Related
from tercet.errors import InputError
from tercet.represent.mine import near_negatives


def written(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def folder(place: Path, *, packed: bool = False) -> Path:
    documents = [{"_id": f"d{i}", "title": "T" * (i % 2), "text": f"text {i}"} for i in range(4)]
    text = "".join(json.dumps(row) + "\n" for row in documents)
    if packed:
        (place / "corpus.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (place / "corpus.jsonl").write_text(text)
    queries = [{"_id": i, "text": f"query {i}"} for i in range(3)]
    (place / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    lines = ["query-id\tcorpus-id\tscore", "0\td1\t1", "0\td2\t2", "1\td1\t0", "2\td3\t1"]
    written(place / "qrels_train.tsv", *lines)
    return place


@pytest.mark.parametrize("packed", [False, True])
def test_a_retrieval_folder(tmp_path: Path, packed: bool):
    place = folder(tmp_path, packed=packed)
    assert is_retrieval_folder(place) and not is_retrieval_folder(place / "qrels_train.tsv")
    found = Judgements.read(place)
    assert found.documents == {"d0": "text 0", "d1": "T text 1", "d2": "text 2", "d3": "T text 3"}
    assert found.split("train") == {"0": {"d1": 1, "d2": 2}, "1": {"d1": 0}, "2": {"d3": 1}}
    assert found.pairs("train") == [
        Related(("query 0", "T text 1")),
        Related(("query 0", "text 2")),
        Related(("query 2", "T text 3")),
    ]
    with pytest.raises(InputError, match="no judgements 'tran'; did you mean 'train'"):
        found.split("tran")
    (place / "qrels").mkdir()
    written(place / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", "1\td0\t1")
    assert Judgements.read(place).split("test") == {"1": {"d0": 1}}


def test_a_damaged_retrieval_folder(tmp_path: Path):
    place = folder(tmp_path)
    qrels = place / "qrels_train.tsv"
    for line, said in (
        ("9\td1\t1", "row 1: the query '9' is not in the folder"),
        ("0\td9\t1", "row 1: the document 'd9' is not in the folder"),
        ("0\td1\tyes", "row 1: 'score' is 'yes', not a finite number"),
    ):
        written(qrels, "query-id\tcorpus-id\tscore", line)
        with pytest.raises(InputError, match=said):
            Judgements.read(place)
    written(qrels, "query-id\tcorpus-id\tscore")
    with pytest.raises(InputError, match="holds no judgement"):
        Judgements.read(place)
    qrels.unlink()
    with pytest.raises(InputError, match="has no judgements; qrels/train.tsv"):
        Judgements.read(place)
    (place / "queries.jsonl").unlink()
    with pytest.raises(InputError, match="has no queries.jsonl"):
        Judgements.read(place)
    with (place / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d0", "text": "again"}\n')
    with pytest.raises(InputError, match="row 5: the _id 'd0' stood there before"):
        Judgements.read(place)


def test_near_negatives_are_near_and_no_answers():
    draw = np.random.default_rng(0)
    queries, passages = draw.normal(size=(20, 8)), draw.normal(size=(300, 8))
    pairs = [(i % 20, int(p)) for i, p in enumerate(draw.permutation(300)[:40])]
    mined = near_negatives(queries, passages, pairs, count=3, among=10, margin=0.1, seed=1)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, passages)]
    cosines = unit[0] @ unit[1].T
    for (query, passage), negatives in zip(pairs, mined):
        answers = {p for q, p in pairs if q == query}
        may = [
            i
            for i in np.argsort(-cosines[query])
            if i not in answers and cosines[query, i] <= cosines[query, passage] - 0.1
        ]
        assert len(negatives) == min(3, len(may)) and set(negatives) <= set(may[:10])
    assert mined == near_negatives(queries, passages, pairs, count=3, among=10, margin=0.1, seed=1)
    assert mined != near_negatives(queries, passages, pairs, count=3, among=10, margin=0.1, seed=2)
    every = near_negatives(queries, passages, pairs, count=10, among=10, margin=0.1)
    assert [set(few) <= set(all_of) for few, all_of in zip(mined, every)] == [True] * 40


def test_a_passage_as_near_as_the_answer_is_left_alone():
    passages = np.array([[1.0, 0.0], [0.999, 0.04], [0.6, 0.8], [-1.0, 0.0]])
    assert near_negatives(passages[:1], passages, [(0, 0)], count=3) in ([[2, 3]], [[3, 2]])
    assert near_negatives(passages[3:], passages, [(0, 0)], count=3) == [[]]
    with pytest.raises(InputError, match="count 3 of the nearest 2"):
        near_negatives(passages, passages, [(0, 0)], count=3, among=2)
    with pytest.raises(InputError, match="margin -1"):
        near_negatives(passages, passages, [(0, 0)], margin=-1)

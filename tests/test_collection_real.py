"""Collections of real texts with a real encoder: what is found, beside what other programs find."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tercet import load
from tercet.data.documents import records
from tercet.data.judgements import Judgements
from tercet.evaluate.collections import searched
from tercet.represent.collection import Collection, Item
from tercet.text.passages import Passages

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"TERCET_DATA: no folder {DATA}")


def test_each_cards_question_finds_its_answer(minilm: Path, tmp_path: Path):
    from sentence_transformers import SentenceTransformer

    cards = list(records(str(DATA / "flashcards"), columns=("question", "answer")))
    answers = [card["answer"] for card in cards]
    collection = Collection.open(tmp_path / "cards", minilm, passages=Passages(None))
    collection.add(answers, documents=[str(i) for i in range(len(cards))])
    first = {
        mode: sum(
            collection.search(card["question"], k=1, mode=mode)[0].document == str(i)
            for i, card in enumerate(cards)
        )
        for mode in ("dense", "hybrid")
    }
    theirs = SentenceTransformer(str(minilm), device="cpu")
    texts, asked = (theirs.encode([c[side] for c in cards]) for side in ("answer", "question"))
    right = sum((texts @ vector).argmax() == i for i, vector in enumerate(asked))
    print(f"{len(cards)} cards: dense {first['dense']} ({right}), hybrid {first['hybrid']}")
    assert len(cards) == 21 and first["dense"] == right


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scifact", "cranfield"])
def test_judged_searches(name: str, minilm: Path, tmp_path: Path):
    read = Judgements.read(DATA / name)
    collection = Collection.open(tmp_path / name, load(minilm), passages=Passages(None))
    collection.feed(Item(text, key) for key, text in read.documents.items() if text)
    collection.tend()
    judged = read.split("test")
    ndcg = {
        mode: 100 * searched(collection, read.queries, judged, mode).near.ndcg
        for mode in ("dense", "bm25", "hybrid")
    }
    print(name, {mode: round(figure, 2) for mode, figure in ndcg.items()})
    if name == "scifact":
        assert ndcg["dense"] == pytest.approx(64.5, abs=0.3)
        assert ndcg["bm25"] >= 67.5 and ndcg["hybrid"] >= 71.0
    assert ndcg["hybrid"] > max(ndcg["dense"], ndcg["bm25"])

"""Retrieval metrics against ir-measures, on random rankings and judgements."""

from __future__ import annotations

import random

import ir_measures
import pytest
from ir_measures import AP, RR, R, nDCG

from tercet.errors import InputError
from tercet.evaluate.retrieval import retrieval


def drawn(seed: int) -> tuple[dict[str, list[str]], dict[str, dict[str, int]]]:
    """Graded judgements; a query nobody ranked, one nobody judged, one without a relevant text."""
    draw = random.Random(seed)
    documents = [f"d{i}" for i in range(40)]
    rankings = {f"q{i}": draw.sample(documents, draw.randint(1, 40)) for i in range(12)}
    judged = {
        f"q{i}": {d: draw.choice([0, 0, 1, 1, 2, 3]) for d in draw.sample(documents, 9)}
        for i in range(1, 12)
    }
    judged["q1"] = dict.fromkeys(judged["q1"], 0)
    judged["unranked"] = {"d1": 1}
    return rankings, judged


@pytest.mark.parametrize("at", [1, 5, 10, 100])
@pytest.mark.parametrize("seed", range(125))
def test_as_ir_measures(seed: int, at: int):
    rankings, judged = drawn(seed)
    run = [
        ir_measures.ScoredDoc(query, document, -place)
        for query, ranking in rankings.items()
        for place, document in enumerate(ranking)
    ]
    qrels = [
        ir_measures.Qrel(query, document, gain)
        for query, gains in judged.items()
        for document, gain in gains.items()
    ]
    theirs = ir_measures.calc_aggregate([nDCG @ at, R @ at, RR @ at, AP @ at], qrels, run)
    ours = retrieval(rankings, judged, at=at)
    assert ours.n == len(judged)
    assert ours.ndcg == pytest.approx(theirs[nDCG @ at], abs=1e-9)
    assert ours.recall == pytest.approx(theirs[R @ at], abs=1e-9)
    assert ours.mrr == pytest.approx(theirs[RR @ at], abs=1e-9)
    assert ours.map == pytest.approx(theirs[AP @ at], abs=1e-9)


def test_refusals():
    with pytest.raises(InputError, match="at 0"):
        retrieval({}, {"q": {"d": 1}}, at=0)
    with pytest.raises(InputError, match="no query is judged"):
        retrieval({"q": ["d"]}, {})
    with pytest.raises(InputError, match="query 'q': document 'a' stands twice"):
        retrieval({"q": ["b", "a", "a"]}, {"q": {"a": 1}})

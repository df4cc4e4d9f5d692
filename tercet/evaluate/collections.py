"""How good a collection's searches are, by what people judged of its documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tercet.errors import InputError
from tercet.evaluate.retrieval import Judged, RetrievalScores, retrieval
from tercet.language_model import LanguageModel
from tercet.represent.collection import Collection

AT, FAR = 10, 100  # documents that are looked at
MOST = 8  # passages of a document that may stand before another one


@dataclass(frozen=True)
class Searched:
    """What one way of searching came to: at 10 (nDCG and MRR are read there), and at 100 (recall
    and MAP)."""

    near: RetrievalScores
    far: RetrievalScores

    @property
    def figures(self) -> dict[str, float]:
        near, far = self.near, self.far
        return {
            "nDCG@10": near.ndcg,
            "MRR@10": near.mrr,
            "recall@100": far.recall,
            "MAP@100": far.map,
        }

    @property
    def values(self) -> dict[str, list[float]]:
        """The same of each query, in their order."""
        near, far = self.near.queries.values(), self.far.queries.values()
        return {
            "nDCG@10": [ndcg for ndcg, _, _, _ in near],
            "MRR@10": [mrr for _, _, mrr, _ in near],
            "recall@100": [recall for _, recall, _, _ in far],
            "MAP@100": [map for _, _, _, map in far],
        }


def rankings(
    collection: Collection,
    queries: Mapping[str, str],
    *,
    mode: str = "hybrid",
    k: int = FAR,
    rerank: LanguageModel | None = None,
    depth: int = 20,
) -> dict[str, list[str]]:
    """Documents by name for each query, best first: one stands where its best passage is."""
    found, several = {}, 1 if collection.contract.passages.tokens is None else MOST
    wanted = k * several if rerank is None else depth
    for name, text in queries.items():
        hits = collection.search(text, k=wanted, mode=mode, rerank=rerank, depth=depth)
        found[name] = list(dict.fromkeys(hit.document for hit in hits))[:k]
    return found


def searched(
    collection: Collection, queries: Mapping[str, str], judged: Judged, mode: str
) -> Searched:
    """Of the judged queries."""
    missing = next((query for query in judged if query not in queries), None)
    if missing is not None:
        raise InputError(f"the query {missing!r} is judged and has no text; give its text")
    found = rankings(collection, {query: queries[query] for query in judged}, mode=mode)
    return Searched(retrieval(found, judged, at=AT), retrieval(found, judged, at=FAR))

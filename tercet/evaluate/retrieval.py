"""How good an order of documents is, by what people judged of them. Texts and vectors stay out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tercet.errors import InputError
from tercet.evaluate.significance import Difference, paired

Judged = Mapping[str, Mapping[str, int]]  # query -> document -> how relevant, 0 for not at all


@dataclass(frozen=True)
class RetrievalScores:
    """Means over the judged queries, shares of 1.

    ndcg: the gain of the first ``at`` documents, each divided by log2(place + 1), over that of the
    best order (Järvelin and Kekäläinen 2002, with the judgement itself as the gain, as trec_eval
    has it). recall: of the relevant documents, those among the first ``at``. mrr: 1 over the place
    of the first relevant document among them. map: the share of relevant documents down to each
    relevant one among them, summed and divided by the number of all relevant ones.
    """

    ndcg: float
    recall: float
    mrr: float
    map: float
    at: int
    n: int
    queries: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)
    """ndcg, recall, mrr and map of each, of which the others are the means"""

    def __str__(self) -> str:
        return (
            f"nDCG@{self.at} {self.ndcg:.4f}, recall@{self.at} {self.recall:.4f}, "
            f"MRR@{self.at} {self.mrr:.4f}, MAP@{self.at} {self.map:.4f} ({self.n:,} queries)"
        )


def retrieval(
    rankings: Mapping[str, Sequence[str]], judged: Judged, *, at: int = 10
) -> RetrievalScores:
    """Of the documents of each query, best first. A query that is judged and has no ranking, or no
    relevant document, counts 0; one that nobody judged is left out.

    Raises InputError for an ``at`` below 1, for no judgements, and for a document twice.
    """
    if at < 1:
        raise InputError(f"at {at} must be 1 or more")
    if not judged:
        raise InputError("no query is judged; give judgements")
    found = {query: _one(rankings.get(query, ()), judged[query], at, query) for query in judged}
    ndcg, recall, mrr, map = (math.fsum(one) / len(found) for one in zip(*found.values()))
    return RetrievalScores(ndcg, recall, mrr, map, at, len(found), found)


def difference(
    before: Mapping[str, Sequence[str]],
    after: Mapping[str, Sequence[str]],
    judged: Judged,
) -> Difference:
    """Of nDCG@10, with its interval over the queries; see ``paired``."""
    pairs = [
        [retrieval(one, {query: gains}).ndcg for one in (before, after)]
        for query, gains in judged.items()
    ]
    return paired(np.diff(np.array(pairs), axis=1)[:, 0])


def _one(
    ranking: Sequence[str], gains: Mapping[str, int], at: int, query: str
) -> tuple[float, float, float, float]:
    if len(set(ranking)) < len(ranking):
        twice = next(document for i, document in enumerate(ranking) if document in ranking[:i])
        raise InputError(f"query {query!r}: document {twice!r} stands twice in its ranking")
    relevant = {document for document, gain in gains.items() if gain > 0}
    if not relevant:
        return 0.0, 0.0, 0.0, 0.0
    met = [max(0, gains.get(document, 0)) for document in ranking[:at]]
    best = sorted((gains[document] for document in relevant), reverse=True)[:at]
    places = [place for place, gain in enumerate(met, 1) if gain]
    first = places[0] if places else math.inf
    precision = math.fsum(hit / place for hit, place in enumerate(places, 1))
    n = len(relevant)
    return _discounted(met) / _discounted(best), len(places) / n, 1 / first, precision / n


def _discounted(gains: Sequence[int]) -> float:
    return math.fsum(gain / math.log2(place + 1) for place, gain in enumerate(gains, 1))

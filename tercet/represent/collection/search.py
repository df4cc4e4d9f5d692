"""What a query finds: by vectors, by words, or both, and why each text was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tercet.errors import InputError
from tercet.language_model import LanguageModel
from tercet.represent.collection.rows import OWN, Row, Rows

MODES = ("dense", "bm25", "hybrid")
FUSED = 60  # reciprocal rank fusion: 1 / (60 + rank) (Cormack, Clarke and Büttcher 2009)
DEPTH = 100  # rows of each part that are fused, or as many as are asked for
WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Part:
    """Where one way of searching put a text: its rank, from 1, and its score there."""

    rank: int
    score: float


@dataclass(frozen=True)
class Hit:
    """A passage that was found, and why.

    score: what the hits are in order of: the fused ranks, or the score of the one way that was
    asked, or of the reranker. dense, bm25: where each way put it, None where it did not find it
    among its best. matches: the words of the text that the query has too, as (start, stop).
    """

    text: str
    document: str
    place: int
    score: float
    dense: Part | None = None
    bm25: Part | None = None
    reranked: Part | None = None
    matches: tuple[tuple[int, int], ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)

    def marked(self, before: str = "**", after: str = "**") -> str:
        """The text with its matches between two marks."""
        parts, end = [], 0
        for start, stop in self.matches:
            parts += [self.text[end:start], before, self.text[start:stop], after]
            end = stop
        return "".join([*parts, self.text[end:]])


@dataclass(frozen=True)
class Asked:
    """One search."""

    query: str
    k: int = 10
    where: str | None = None
    mode: str = "hybrid"
    rerank: LanguageModel | None = None
    depth: int = 20  # hits that the reranker reads, at least k

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"mode {self.mode!r} is unknown; choose from {', '.join(MODES)}")

    def hits(self, rows: Rows, vector: np.ndarray | None) -> list[Hit]:
        """vector: of the query, None for words alone."""
        wanted = self.k if self.rerank is None else max(self.k, self.depth)
        depth = max(wanted, DEPTH) if self.mode == "hybrid" else wanted
        dense, words = list[Row](), list[Row]()
        if self.mode != "bm25":
            assert vector is not None
            dense = rows.nearest(vector, depth, self.where)
        if self.mode != "dense":
            words = rows.matching(self.query, depth, self.where)
        found = self._hits(dense, words)[:wanted]
        if self.rerank is not None and found:
            found = self._reranked(found, self.rerank)
        wanted = set(rows.stems(self.query))
        return [
            replace(hit, matches=common(hit.text, wanted, rows.stem)) for hit in found[: self.k]
        ]

    def _hits(self, dense: list[Row], words: list[Row]) -> list[Hit]:
        ranked = {"dense": ranks(dense), "bm25": ranks(words)}
        rows = {row["id"]: row for row in (*dense, *words)}
        hits = []
        for called, row in rows.items():
            parts = {name: one.get(called) for name, one in ranked.items()}
            if self.mode == "hybrid":
                score = sum(1 / (FUSED + part.rank) for part in parts.values() if part)
            else:
                score = row["score"]
            facts = {name: value for name, value in row.items() if name not in (*OWN, "score")}
            of = row["text"], row["document"], row["place"], score
            hits.append(Hit(*of, parts["dense"], parts["bm25"], metadata=facts))
        return sorted(hits, key=lambda hit: -hit.score)  # of equal ones the nearer first

    def _reranked(self, hits: list[Hit], model: LanguageModel) -> list[Hit]:
        order = model.rank(self.query, [hit.text for hit in hits])
        return [
            replace(hits[one.index], score=one.score, reranked=Part(rank, one.score))
            for rank, one in enumerate(order, 1)
        ]


def ranks(rows: Iterable[Row]) -> dict[str, Part]:
    return {row["id"]: Part(rank, row["score"]) for rank, row in enumerate(rows, 1)}


def common(text: str, wanted: set[str], stem: Callable[[str], str]) -> tuple[tuple[int, int], ...]:
    """Where words of the text stand whose stems are wanted."""
    return tuple(match.span() for match in WORD.finditer(text) if stem(match[0]) in wanted)

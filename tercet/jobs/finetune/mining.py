"""Related texts and a model: what it reads of them, hard negatives that it finds itself, and how
well it brings together what belongs together. Behind the tasks `embed` and `rank`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tercet.data.groups import Group
from tercet.data.related import Related
from tercet.errors import InputError
from tercet.evaluate.retrieval import Judged
from tercet.evaluate.similarity import similarity, spearman
from tercet.language_model import LanguageModel
from tercet.represent import classify as classifying
from tercet.represent.mine import near_negatives, unit
from tercet.text import CutReport

QUERIES = 512  # whose documents are read together: 25,600 pairs of the usual 50 each


@dataclass(frozen=True)
class Mining:
    """How many hard negatives a row gets before training; the rule is ``near_negatives``'s."""

    negatives: int
    among: int
    margin: float


def with_negatives(
    model: LanguageModel,
    rows: Sequence[Related],
    mining: Mining,
    *,
    passages: Iterable[str] = (),
    seed: int = 0,
) -> list[Related]:
    """The rows, each with texts behind its own that the model as it is finds near to its first and
    that are no partner of it: out of all partners, and of ``passages``."""
    if not mining.negatives:
        return list(rows)
    anchors = _numbered(row.texts[0] for row in rows)
    texts = _numbered([*(row.texts[1] for row in rows), *passages])
    known = list(texts)
    found = near_negatives(
        model.embed(list(anchors)),
        model.embed(known),
        [(anchors[row.texts[0]], texts[row.texts[1]]) for row in rows],
        count=mining.negatives,
        among=mining.among,
        margin=mining.margin,
        seed=seed,
    )
    return [
        Related((*row.texts, *(known[i] for i in places)), row.score)
        for row, places in zip(rows, found)
    ]


def _numbered(texts: Iterable[str]) -> dict[str, int]:
    """Each text once, in order, and its number."""
    return {text: number for number, text in enumerate(dict.fromkeys(texts))}


# what a model reads ------------------------------------------------------------------------------


def groups_of_texts(
    model: LanguageModel, rows: Sequence[Related], report: CutReport
) -> list[Group]:
    """Each text by itself, for vectors. What is cut is counted."""
    ids = iter(model.read([text for row in rows for text in row.texts], report))
    return [Group(tuple(next(ids) for _ in row.texts), row.score) for row in rows]


def groups_of_pairs(
    model: LanguageModel, rows: Sequence[Related], report: CutReport
) -> list[Group]:
    """The first text together with each of the others, for a cross-encoder."""
    found = []
    for row in rows:
        read = _together(model, row.texts[0], row.texts[1:], report)
        typed = model.config.token_types > 1
        types = tuple(one.types or [0] * len(one.ids) for one in read) if typed else ()
        found.append(Group(tuple(one.ids for one in read), row.score, types))
    return found


def _together(
    model: LanguageModel, query: str, texts: Sequence[str], report: CutReport
) -> list[classifying.Read]:
    pairs = [(query, text) for text in texts]
    return classifying.read(model.tokenizer, pairs, model.limit, "keep-start", report)


# how good it is ----------------------------------------------------------------------------------


def judged_rows(rows: Sequence[Related]) -> tuple[dict[str, str], dict[str, str], Judged]:
    """Pairs as a retrieval folder would have them: queries, documents, and who answers whom."""
    queries, documents = (_numbered(row.texts[side] for row in rows) for side in (0, 1))
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        judged[str(queries[row.texts[0]])][str(documents[row.texts[1]])] = 1
    named = ({str(number): text for text, number in side.items()} for side in (queries, documents))
    first, second = named
    return first, second, judged


def dense_order(
    model: LanguageModel,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    *,
    depth: int,
) -> dict[str, list[str]]:
    """The ``depth`` documents nearest to each query by the cosine of their vectors, best first."""
    if not queries or not documents:
        raise InputError(f"{len(queries)} queries, {len(documents)} documents: give some of both")
    names = list(documents)
    texts = unit(model.embed(list(documents.values())))  # (P, D)
    asked = unit(model.embed(list(queries.values())))  # (Q, D)
    return {
        query: [names[i] for i in np.argsort(-(texts @ vector), kind="stable")[:depth]]
        for query, vector in zip(queries, asked)
    }


def reranked(
    model: LanguageModel,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    rankings: Mapping[str, Sequence[str]],
) -> dict[str, list[str]]:
    """The documents of each ranking, as a cross-encoder orders them."""
    found, asked = {}, list(rankings.items())
    for start in range(0, len(asked), QUERIES):
        some = asked[start : start + QUERIES]
        pairs = [(queries[query], documents[name]) for query, names in some for name in names]
        logits = _logits(model, pairs).split([len(names) for _, names in some])
        for (query, names), own in zip(some, logits, strict=True):
            order = own.argsort(descending=True, stable=True).tolist()
            found[query] = [names[i] for i in order]
    return found


def agreement(model: LanguageModel, rows: Sequence[Related], *, together: bool) -> float:
    """Spearman's correlation of the rows' scores with a cross-encoder's (``together``), or with the
    cosines of vectors; 0 where all scores are one."""
    scores = [row.score for row in rows if row.score is not None]
    pairs = [(row.texts[0], row.texts[1]) for row in rows]
    if len(set(scores)) < 2:
        return 0.0
    if together:
        return spearman(_logits(model, pairs).numpy(), scores)
    return similarity(model, pairs, scores)


def _logits(model: LanguageModel, pairs: Sequence[tuple[str, str]]) -> Tensor:
    """(n,) of the only label, for each pair."""
    read = classifying.read(model.tokenizer, pairs, model.limit, "keep-start", CutReport())
    return classifying.logits(model.network, read)[:, 0]

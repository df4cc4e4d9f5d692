"""Texts to topics: vectors, their principal components, neighbours, a layout, groups, names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tercet.errors import InputError
from tercet.language_model import LanguageModel
from tercet.represent.collection import Collection
from tercet.represent.topics.embedder import Embedder
from tercet.represent.topics.group import WIDEST, grouped
from tercet.represent.topics.memory import Load, check, size_of
from tercet.represent.topics.name import Words, called, central
from tercet.represent.topics.reduce import FEW, layout, nearest
from tercet.represent.topics.settings import TopicSettings
from tercet.represent.topics.topics import (
    Found,
    Progress,
    Topic,
    Topics,
    check_vectors,
    checked,
    different,
)
from tercet.represent.topics.vectors import BLOCK, Projection, Vectors, sliced
from tercet.represent.topics.vote import share_of, votes

EXAMPLES = 3  # texts
PASSAGE = 400  # characters
EQUAL = 0.01  # of its length; vectors that are nearer differ by how they were computed
REACH = 0.95  # of the texts of a topic, those that are nearer to another one


def cluster(
    texts: Sequence[str] | Collection,
    model: LanguageModel | str | Path | None = None,
    *,
    vectors: np.ndarray | None = None,
    settings: TopicSettings = TopicSettings(),
    max_ram: str | int | None = None,
    progress: Progress | None = None,
) -> Topics:
    """The topics of texts, or of the passages of a collection.

    model: a LanguageModel that embeds, its folder or a name of the hub; a collection has its own.
    vectors: (n, D) that were made before; then the model is for other texts alone, and may be left
    out. max_ram: bytes, or "4G": refused at the start where the process would need more.

    Vectors of length 1 are reduced to their principal components, laid out by UMAP (McInnes et al.
    2018) and grouped by HDBSCAN (Campello et al. 2013) or k-means. Raises InputError for texts and
    vectors that do not fit each other, and for too few different texts.
    """
    limit = size_of(max_ram) if isinstance(max_ram, str) else max_ram
    if isinstance(texts, Collection):
        embedder, given, vectors = _of_collection(texts, model, vectors, limit, settings)
    else:
        given = checked(texts, "two")
        embedder = None if model is None else Embedder.of(model)
    if embedder is None and vectors is None:
        raise InputError("texts need a model that embeds them; give model or vectors")
    names, of_text = different(given)
    _check_enough(len(given), len(names), settings)
    if vectors is not None:
        vectors = check_vectors(vectors, len(given))
        _check_equal(vectors, of_text)
    if limit is not None:
        told = None if embedder is None else embedder.contract.width
        width = vectors.shape[1] if vectors is not None else told or 0
        check(limit, settings, Load(len(names), sum(map(len, given)), width))
    say = progress or (lambda stage, done, total: None)
    kept = Vectors(_blocks(names, of_text, vectors, embedder, say), len(names))
    return _found(given, kept, settings, embedder, say)


def _of_collection(
    collection: Collection,
    model: object,
    vectors: object,
    limit: int | None,
    settings: TopicSettings,
) -> tuple[Embedder, list[str], np.ndarray]:
    if model is not None or vectors is not None:
        raise InputError("a collection has its own model and vectors; leave model and vectors out")
    collection.rows.fresh()
    if not len(collection):
        raise InputError(f"{collection.store.place}: the collection is empty; add texts")
    embedder = Embedder(collection.contract, collection.loaded)
    n, width = len(collection), collection.contract.width
    if limit is not None:  # before they are read; how long they are is a guess
        check(limit, settings, Load(n, n * PASSAGE, width, whole=True))
    texts: list[str] = []
    found = np.empty((n, width), np.float32)
    for part, block in collection.rows.embedded():
        found[len(texts) : len(texts) + len(part)] = block
        texts += part
    return embedder, texts, found


def _check_enough(n: int, m: int, settings: TopicSettings) -> None:
    if n == 1:
        raise InputError("one text has no topics; give more")
    if m == 1:
        raise InputError(f"all {n:,} texts are equal: there is one topic, and nothing to find")
    if settings.k is not None and m < settings.k:
        raise InputError(f"k {settings.k} and only {m:,} different texts; ask for {m} at the most")
    if settings.min_size is not None and settings.min_size >= n:
        raise InputError(
            f"min_size {settings.min_size} and only {n:,} texts: none could be of a topic beside "
            "others; take a smaller one"
        )
    if m > FEW and settings.dimensions > m - 2:
        raise InputError(
            f"dimensions {settings.dimensions} are too many to lay out {m:,} different texts; take "
            f"{m - 2} at the most"
        )


def _check_equal(vectors: np.ndarray, of_text: np.ndarray) -> None:
    """Of equal texts the first one's vector is taken: others may have other last digits."""
    first = np.unique(of_text, return_index=True)[1][of_text]
    more = np.flatnonzero(first != np.arange(len(first)))
    for start in range(0, len(more), BLOCK):
        rows = more[start : start + BLOCK]
        ours, theirs = vectors[first[rows]].astype(float), vectors[rows].astype(float)
        apart = np.linalg.norm(ours - theirs, axis=1)
        wrong = np.flatnonzero(apart > EQUAL * np.linalg.norm(ours, axis=1))
        if wrong.size:
            row = rows[wrong[0]]
            raise InputError(
                f"texts {first[row] + 1} and {row + 1} are equal, and their vectors are not; give "
                "equal texts one vector, or leave one of them out"
            )


def _blocks(
    names: list[str],
    of_text: np.ndarray,
    vectors: np.ndarray | None,
    embedder: Embedder | None,
    say: Progress,
) -> Iterator[np.ndarray]:
    """Of each different text, in order."""
    if vectors is not None:
        _, first = np.unique(of_text, return_index=True)
        blocks: Iterable[np.ndarray] = sliced(vectors, first)
    else:
        assert embedder is not None
        blocks = embedder.blocks(names)
    done = 0
    for block in blocks:
        yield block
        done += len(block)
        say("embedding", done, len(names))


def _found(
    texts: list[str],
    kept: Vectors,
    settings: TopicSettings,
    embedder: Embedder | None,
    say: Progress,
) -> Topics:
    names, of_text = different(texts)
    counts = np.bincount(of_text)
    projection = Projection.of(kept, settings.components)
    vectors = projection(kept.blocks())
    del kept
    total = len(vectors)
    near = nearest(
        vectors, None, settings.neighbours, lambda done: say("finding neighbours", done, total)
    )
    say("laying out", 0, None)
    topics = grouped(points(vectors, near, settings), counts, settings)
    scores = _stability(vectors, near, counts, topics, settings, say)
    said, _ = votes(topics[near[0]], near[1], int(topics.max()) + 1)
    found = Found(
        vectors,
        topics,
        share_of(topics, topics[near[0]], near[1]).astype(np.float32),
        projection,
        _reach(topics, near[1][:, 0]) if settings.k is None else np.inf,
        float(np.average(said == topics, weights=counts)),
        len(texts),
    )
    say("naming", 0, None)
    table = named(names, found, counts, scores)
    return Topics(texts, found, table, settings, embedder)


def points(
    vectors: np.ndarray, near: tuple[np.ndarray, np.ndarray], settings: TopicSettings
) -> np.ndarray:
    """What is grouped, (m, P): the layout, or a few texts as they are."""
    if len(vectors) <= FEW:
        return vectors[:, :WIDEST]
    return layout(vectors, near, settings.dimensions, settings.seed)


def _reach(topics: np.ndarray, gaps: np.ndarray) -> float:
    inside = topics >= 0
    return float(np.quantile(gaps[inside if inside.any() else slice(None)], REACH))


def _stability(
    vectors: np.ndarray,
    near: tuple[np.ndarray, np.ndarray],
    counts: np.ndarray,
    topics: np.ndarray,
    settings: TopicSettings,
    say: Progress,
) -> list[float] | None:
    """Of each topic, the mean over other seeds of its Jaccard index with the topic there that has
    most of it (Hennig 2007 has it so, for samples)."""
    if not settings.stability:
        return None
    scores = np.zeros((settings.stability, int(topics.max()) + 1))
    for run in range(settings.stability):
        say("other seeds", run, settings.stability)
        other = replace(settings, seed=settings.seed + run + 1)
        scores[run] = again(topics, grouped(points(vectors, near, other), counts, other), counts)
    return scores.mean(0).tolist()


def again(topics: np.ndarray, other: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For each topic the best Jaccard index with one of the others; -1 is no topic."""
    rows, columns = int(topics.max()) + 1, int(other.max()) + 1
    both = np.zeros((rows, columns))
    inside = (topics >= 0) & (other >= 0)
    np.add.at(both, (topics[inside], other[inside]), counts[inside])
    mine = np.bincount(topics[topics >= 0], counts[topics >= 0], rows)
    theirs = np.bincount(other[other >= 0], counts[other >= 0], columns)
    return (both / (mine[:, None] + theirs - both)).max(1, initial=0.0)


def named(
    names: list[str], found: Found, counts: np.ndarray, scores: list[float] | None
) -> list[Topic]:
    """The table: names, words and examples of all topics."""
    total = int(found.topics.max()) + 1
    words = Words(names).of_topics(found.topics, total)
    table = []
    for number in range(total):
        members = np.flatnonzero(found.topics == number)
        examples = [names[i] for i in central(found.vectors, members, EXAMPLES)]
        size = int(counts[members].sum())
        name = called(words[number], number)
        score = None if scores is None else scores[number]
        table.append(Topic(number, size, name, words[number], examples, score))
    return table

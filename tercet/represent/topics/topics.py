"""Topics: which text is of which topic, what they are called, and what that says of other texts.

What ``predict`` says of a text that was clustered is what was found then, looked up; of another,
what its nearest known texts say. Equal texts have one topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tercet.errors import InputError
from tercet.language_model import LanguageModel
from tercet.report.map import TextMap
from tercet.represent.topics.embedder import Embedder
from tercet.represent.topics.reduce import layout, nearest
from tercet.represent.topics.settings import TopicSettings
from tercet.represent.topics.vectors import BLOCK, Projection, Vectors
from tercet.represent.topics.vote import votes

SCARCE = 10  # texts; fewer are no matter for UMAP
Progress = Callable[[str, int, int | None], None]  # what is done, how much of it, of how much


@dataclass(frozen=True)
class Topic:
    """words: the most telling first; its name are the first of them. examples: the texts in its
    middle. stability: of 1, how much of it other seeds find again; None: nobody asked."""

    number: int
    size: int
    name: str
    words: list[str]
    examples: list[str]
    stability: float | None = None


class Said(NamedTuple):
    """Of texts: the topic of each, -1 for none, and its share of the votes of their nearest known
    texts. (B,) int32 and float32."""

    topics: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Found:
    """Of the m different texts: reduced vectors (m, C), topics (m,), their share of the votes (m,).
    projection: how vectors were reduced. reach: a text that is farther from all known ones belongs
    to no topic. agreement: of the texts, those of which the votes of the others say what was
    found. fitted: so many texts, the first ones, were there then. places: (m, 2), where they lie on
    the map, once that was made."""

    vectors: np.ndarray
    topics: np.ndarray
    probabilities: np.ndarray
    projection: Projection
    reach: float
    agreement: float
    fitted: int
    places: np.ndarray | None = None


class Topics:
    """``table`` lists the topics; ``topics`` and ``probabilities`` have a number a text.

    Made by ``tercet.cluster``, or by ``load`` from a folder that ``save`` wrote.
    """

    def __init__(
        self,
        texts: Sequence[str],
        found: Found,
        table: Sequence[Topic],
        settings: TopicSettings,
        embedder: Embedder | None,
    ) -> None:
        self.settings, self.embedder = settings, embedder
        self.hold(texts, found, table)

    def hold(self, texts: Sequence[str], found: Found, table: Sequence[Topic]) -> None:
        """From now on these."""
        self.texts, self.found, self.table = list(texts), found, list(table)
        self.different, self.of_text = different(self.texts)
        assert len(self.different) == len(found.topics), "a vector for each different text"
        self._known = {text: place for place, text in enumerate(self.different)}

    @property
    def topics(self) -> np.ndarray:
        """(n,) int32: the topic of each text, -1 for none."""
        return self.found.topics[self.of_text]

    @property
    def probabilities(self) -> np.ndarray:
        """(n,) float32: of the votes of the nearest other texts, those for its topic."""
        return self.found.probabilities[self.of_text]

    @property
    def counts(self) -> np.ndarray:
        """(m,): how often each different text stands."""
        return np.bincount(self.of_text, minlength=len(self.different))

    @property
    def outliers(self) -> float:
        """The share of texts without a topic."""
        return float((self.topics < 0).mean())

    def __str__(self) -> str:
        rows = [f"{topic.number:4} {topic.size:8,}  {topic.name}" for topic in self.table]
        if not rows:
            least = self.settings.smallest(len(self.texts))
            smaller = f"a min_size smaller than {least}, or " if least > 2 else ""
            rows = [f"no topics; try {smaller}method 'kmeans' with a k"]
        alone = f"  -1 {int((self.topics < 0).sum()):8,}  (no topic)"
        return "\n".join([*rows, *([alone] if self.outliers else [])])

    # other texts ----------------------------------------------------------------------------------

    def predict(self, texts: str | Sequence[str], *, vectors: np.ndarray | None = None) -> Said:
        """The topics of texts. vectors: (B, D) of the model that made the others, where that is not
        to read the texts itself."""
        given = checked((texts,) if isinstance(texts, str) else texts)
        known = np.array([self._known.get(text, -1) for text in given])
        said = Said(self.found.topics[known], self.found.probabilities[known])  # of -1: overwritten
        new = np.flatnonzero(known < 0)
        if new.size:
            found = self.voted(self.reduced(given, new, vectors))
            for whole, part in zip(said, found):
                whole[new] = part
        return said

    def reduced(
        self, texts: Sequence[str], rows: np.ndarray, vectors: np.ndarray | None
    ) -> np.ndarray:
        """(rows, C) of some of the texts."""
        if vectors is not None:
            vectors = check_vectors(vectors, len(texts))
            width = len(self.found.projection.mean)
            if vectors.shape[1] != width:
                raise InputError(
                    f"the vectors have {vectors.shape[1]} numbers, and those of the topics "
                    f"{width}; use the same model"
                )
            blocks: Iterable[np.ndarray] = [vectors[rows]]
        elif self.embedder is not None:
            blocks = self.embedder.blocks([str(texts[i]) for i in rows])
        else:
            raise InputError(
                "the topics were made of vectors, without a model; give those of the texts too"
            )
        return self.found.projection(Vectors(blocks, len(rows)).blocks())

    def voted(self, reduced: np.ndarray) -> Said:
        """What the nearest known texts say of reduced vectors (q, C)."""
        places, distances = nearest(self.found.vectors, reduced, self.settings.neighbours)
        topics, shares = votes(self.found.topics[places], distances, len(self.table))
        far = distances[:, 0] > self.found.reach
        return Said(np.where(far, -1, topics).astype(np.int32), np.where(far, 1, shares))

    def reassign(self, *, at_least: float = 0.0) -> Topics:
        """These topics with the texts of none put into the one that most of their nearest texts
        with a topic have, where its share of those votes is ``at_least`` so much (0 to 1). Topics
        keep their numbers, so that the largest may not be the first any more."""
        if not 0 <= at_least <= 1:
            raise InputError(f"at_least {at_least!r} must be a share of the votes, from 0 to 1")
        alone = np.flatnonzero(self.found.topics < 0)
        inside = np.flatnonzero(self.found.topics >= 0)
        if not alone.size or not inside.size:
            return self
        vectors = self.found.vectors
        near = nearest(vectors[inside], vectors[alone], self.settings.neighbours)
        numbers, shares = votes(self.found.topics[inside][near[0]], near[1], len(self.table))
        sure = shares >= at_least
        topics, probabilities = self.found.topics.copy(), self.found.probabilities.copy()
        topics[alone[sure]], probabilities[alone[sure]] = numbers[sure], shares[sure]
        found = replace(self.found, topics=topics, probabilities=probabilities)
        return Topics(
            self.texts, found, self._resized(topics, self.counts), self.settings, self.embedder
        )

    def _resized(self, topics: np.ndarray, counts: np.ndarray) -> list[Topic]:
        sizes = np.bincount(topics + 1, counts, len(self.table) + 1)[1:]
        return [replace(topic, size=int(size)) for topic, size in zip(self.table, sizes)]

    # growing, keeping, showing --------------------------------------------------------------------

    def add(self, texts: Sequence[str], *, vectors: np.ndarray | None = None):  # type: ignore[no-untyped-def]
        """Takes texts in: see ``growth.add``. Topics keep their numbers."""
        from tercet.represent.topics.growth import add

        return add(self, texts, vectors)

    def save(self, folder: str | Path) -> None:
        """texts.jsonl, topics.json and vectors.safetensors; the old ones stay until all are whole.
        What was written is read again, and must say of every text what these topics say."""
        from tercet.represent.topics.folder import save

        save(self, folder)

    @classmethod
    def load(cls, folder: str | Path, model: LanguageModel | str | Path | None = None) -> Topics:
        """Raises InputError for a folder that ``save`` did not write, or that was altered. The
        model is loaded when a new text comes. model: where that is now, if it was moved."""
        from tercet.represent.topics.folder import load

        topics = load(folder)
        if model is not None:
            if topics.embedder is None:
                raise InputError(f"{folder}: was made of vectors, without a model; leave it out")
            topics.embedder.take(model)
        return topics

    def map(self, path: str | Path, *, title: str = "Topics") -> Path:
        """A page to walk through: every text a point, texts that mean the like near each other. One
        file that needs nothing else."""
        return self._map(title).write(path)

    def picture(self, path: str | Path, *, title: str = "Topics") -> Path:
        """The same as a PNG. Needs the extra `plot`."""
        return self._map(title).picture(path)

    def _map(self, title: str) -> TextMap:
        names = [f"{topic.number} {topic.name}" for topic in self.table]
        note = (
            f"{len(self.texts):,} texts, {len(names)} topics, {self.outliers:.1%} in none; laid "
            f"out by UMAP, seed {self.settings.seed}"
        )
        return TextMap(self.map_places(), self.texts, self.topics, names, title=title, note=note)

    def map_places(self) -> np.ndarray:
        """(n, 2): texts that mean the like lie near each other; the same each time."""
        if self.found.places is None:
            vectors = self.found.vectors
            if len(vectors) <= SCARCE:
                flat = np.zeros((len(vectors), 2), np.float32)
                flat[:, : vectors.shape[1]] = vectors[:, :2]
            else:
                near = nearest(vectors, None, self.settings.neighbours)
                flat = layout(vectors, near, 2, self.settings.seed)
            self.found = replace(self.found, places=flat)
        assert self.found.places is not None
        return self.found.places[self.of_text]


def different(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The different texts in the order of the alphabet, so that no order of theirs makes other
    topics, and which of them each text is: (n,) int32."""
    found = sorted(set(texts))
    places = {text: place for place, text in enumerate(found)}
    return found, np.fromiter((places[text] for text in texts), np.int32, len(texts))


def checked(texts: Sequence[str], least: str = "one") -> list[str]:
    """Raises InputError for what is no list of texts, and for a text of nothing."""
    if isinstance(texts, str):
        raise InputError(f"texts {texts!r}: give a list of strings")
    given = list(texts)
    for number, text in enumerate(given, 1):
        if not isinstance(text, str):
            raise InputError(f"text {number} is {text!r} ({type(text).__name__}), not a string")
        if not text.strip():
            raise InputError(f"text {number} is empty ({text!r}); leave it out")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"text {number} has half a character ({text[error.start]!a}, a lone surrogate) "
                f"at place {error.start}, which no file can hold; take it out"
            ) from None
    if not given:
        raise InputError(f"there are no texts; give at least {least}")
    return given


def check_vectors(vectors: np.ndarray, n_texts: int) -> np.ndarray:
    """Them, as an array. Raises InputError for what is no row of numbers for each text."""
    if getattr(vectors, "ndim", 0) != 2 or len(vectors) != n_texts or not vectors.shape[1]:
        shape = getattr(vectors, "shape", type(vectors).__name__)
        raise InputError(f"vectors of shape {shape} for {n_texts:,} texts; give a row a text")
    array = np.asarray(vectors)
    if array.dtype.kind not in "iuf":
        raise InputError(f"vectors of {array.dtype}; give numbers, such as float32")
    for start in range(0, n_texts, BLOCK):
        with np.errstate(over="ignore"):
            block = array[start : start + BLOCK].astype(np.float32)
        wrong = np.flatnonzero(~np.isfinite(block).all(1))
        if wrong.size:
            raise InputError(
                f"vector {start + wrong[0] + 1} holds what is no number (NaN, infinite, or too "
                "large for float32); check what made it"
            )
    return array

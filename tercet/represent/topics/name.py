"""What a topic is called: the words that set its texts apart, no two of them saying the same; and
the texts in its middle.

Words are weighed by class-based tf-idf (Grootendorst 2022, section 3.3) times the logarithm of how
much more frequent they are in the topic than elsewhere. Only words count that are so, that are not
frequent in most topics, and whose texts keep together more than chance would have it, which leaves
out "the" and "und" without a list of them, and "up" of short texts. Then they are chosen one by
one: weight against likeness to those before (maximal marginal relevance, Carbonell and
Goldstein 1998).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tercet.errors import require

WORDS, CANDIDATES, IN_NAME = 10, 40, 3
ALIKE = 0.5  # of the choice, the part that likeness decides
FREQUENT = 0.05  # of a topic's texts; a word that is so in most topics tells them not apart
LIFT = 2.0  # a word stands in so many times as large a share of the topic's texts as of all
TOGETHER = 0.05  # of 1, how much the texts of a word keep together
_UNSPACED = "\u2e80-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han and kana: no spaces
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W\d_{_UNSPACED}][^\W_{_UNSPACED}]+(?:['’]\w+)?")


def words_of(text: str) -> list[str]:
    """In lower case, from two letters on; of scripts without spaces each pair of neighbours."""
    found = []
    for match in _WORD.finditer(text.lower()):
        word = match[0]
        if "\u2e80" <= word[0] <= "\ufaff" and len(word) > 2:
            found += [word[i : i + 2] for i in range(len(word) - 1)]
        else:
            found.append(word)
    return found


class Words:
    """How often each text has each word: a sparse matrix, 12 bytes for each word of a text."""

    def __init__(self, texts: Iterable[str]) -> None:
        sparse: Any = require("scipy.sparse", "learn")
        self.numbers: dict[str, int] = {}
        columns, counts, ends = [], [], [0]
        for text in texts:
            found = Counter(
                self.numbers.setdefault(word, len(self.numbers)) for word in words_of(text)
            )
            columns.append(np.fromiter(found, np.int32, len(found)))
            counts.append(np.fromiter(found.values(), np.float32, len(found)))
            ends.append(ends[-1] + len(found))
        joined = [np.concatenate(parts or [np.zeros(0)]) for parts in (counts, columns)]
        shape = len(columns), max(1, len(self.numbers))
        self.table = sparse.csr_matrix((joined[0], joined[1], np.array(ends)), shape)
        self.words = [*self.numbers]

    def of_topics(self, topics: np.ndarray, n_topics: int) -> list[list[str]]:
        """The words of each topic, the most telling first. A text that stands often counts once: a
        topic is not called by what one of its texts says."""
        sparse: Any = require("scipy.sparse", "learn")
        inside = np.flatnonzero(topics >= 0)
        ones, shape = np.ones(len(topics), np.float32), (n_topics, len(topics))
        members = sparse.csr_matrix((ones[inside], (topics[inside], inside)), shape)
        held = self.table.copy()  # which text has which word
        held.data[:] = 1
        often = (members @ self.table).tocsr()  # (topics, words)
        texts = (members @ held).tocsr()  # (topics, words): in how many texts, of the same words
        often.sort_indices()
        texts.sort_indices()
        counts = np.bincount(topics[inside], minlength=n_topics)
        sizes = np.repeat(counts, np.diff(texts.indptr))
        share = texts.data / sizes
        lift = share / (held.T @ ones / len(topics))[texts.indices]
        in_topics = np.bincount(texts.indices[share >= FREQUENT], minlength=texts.shape[1])
        apart = (in_topics <= max(1, n_topics / 2)) & (_together(texts, counts) >= TOGETHER)
        several = texts.data >= np.minimum(2, sizes)
        total = np.asarray(often.sum(0)).ravel()
        weights = often.data * np.log1p(total.sum() / max(1, n_topics) / total[often.indices])
        weights *= np.log(np.maximum(lift, 1 + 1e-6))
        found = []
        for topic in range(n_topics):
            row = slice(*often.indptr[topic : topic + 2])
            enough = lift[row] >= min(LIFT, 0.5 * (1 + lift[row].max(initial=1)))
            says = enough & apart[texts.indices[row]]
            weight = np.where(says & several[row], weights[row], 0)
            weight = weight if weight.any() else np.where(says, weights[row], 0)
            weight = weight if weight.any() else weights[row]  # a name that says little
            here = held[np.flatnonzero(topics == topic)]
            found.append(self._chosen(often.indices[row], weight, here))
        return found

    def _chosen(self, columns: np.ndarray, weights: np.ndarray, held: Any) -> list[str]:
        """Of the heaviest words, those that say something new. held: which text has which word."""
        best = np.lexsort((columns, -weights))[:CANDIDATES]
        best = best[weights[best] > 0]
        if not best.size:
            return []
        names = [self.words[i] for i in columns[best]]
        part = held[:, columns[best]]
        both = np.asarray((part.T @ part).todense(), np.float64)
        alone = np.diag(both)
        # the Jaccard index of their texts; 1 is for forms of a word alone
        alike = 0.99 * both / np.maximum(alone[:, None] + alone - both, 1)
        for i, name in enumerate(names):
            for j, other in enumerate(names[:i]):
                if _same(name, other):
                    alike[i, j] = alike[j, i] = 1
        weight = weights[best] / weights[best].max()
        chosen = [0]
        while len(chosen) < min(WORDS, len(names)):
            gain = (1 - ALIKE) * weight - ALIKE * alike[:, chosen].max(1)
            gain[chosen] = -np.inf
            place = int(gain.argmax())
            if alike[place, chosen].max() == 1:  # forms of the same words are all that is left
                break
            chosen.append(place)
        return [names[i] for i in chosen]


def _together(texts: Any, sizes: np.ndarray) -> np.ndarray:
    """For each word how often two of its texts are of one topic, 0 by chance and 1 always: Cohen's
    correction (1960) of Simpson's index (1949), in which few texts are no advantage. A word of one
    text has 1. texts: (topics, words), how many of a topic have a word."""
    n = np.bincount(texts.indices, texts.data, texts.shape[1])
    pairs = np.bincount(texts.indices, texts.data * (texts.data - 1), texts.shape[1])
    chance = float(((sizes / max(1, sizes.sum())) ** 2).sum())
    if chance == 1:  # one topic: nothing to be told apart
        return np.ones(len(n))
    found = (pairs / np.maximum(n * (n - 1), 1) - chance) / (1 - chance)
    return np.where(n < 2, 1, found)


def _same(one: str, other: str) -> bool:
    """Forms of a word: "game" and "games", but not "god" and "godzilla"."""
    short, long = sorted((one, other), key=len)
    common = next((i for i, (a, b) in enumerate(zip(short, long)) if a != b), len(short))
    return common >= 3 and common >= len(short) - 1 and len(long) - common <= 2


def called(words: Sequence[str], number: int) -> str:
    return ", ".join(words[:IN_NAME]) or f"topic {number}"


def central(vectors: np.ndarray, members: np.ndarray, count: int) -> list[int]:
    """Of the rows ``members`` the ``count`` that are nearest to their mean."""
    part = vectors[members]
    away = np.linalg.norm(part - part.mean(0), axis=1)
    return [int(members[i]) for i in np.lexsort((members, away))[:count]]

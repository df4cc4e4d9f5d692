"""Points into groups, by HDBSCAN or k-means. Knows no text."""

from __future__ import annotations

import numpy as np

from tercet.errors import require
from tercet.represent.topics.reduce import alone
from tercet.represent.topics.settings import TopicSettings

WIDEST = 30  # dimensions in which fast_hdbscan compares exactly
# HDBSCAN may find no finer cut worth more than one topic of nearly all texts: of 100,000 sentences
# it made one of 93 %. Where a topic has more than MOSTLY of at least MANY texts it says little, and
# they are grouped again without topics of more than LARGEST. Below that a large topic may well be
# true: two in three texts of one subject are not rare.
MOSTLY, LARGEST, MANY = 0.75, 0.25, 2_000
DENSE = 5  # a place is as dense as its so many nearest texts are near


def grouped(points: np.ndarray, counts: np.ndarray, settings: TopicSettings) -> np.ndarray:
    """The group of each point (m, P), the largest group 0, and -1 for none: (m,) int32.

    counts: how many texts lie at each point. They count as so many points, all in one group.
    """
    if settings.method == "kmeans":
        found = _kmeans(points, counts, settings)
    else:
        found = _hdbscan(points, counts, settings.smallest(int(counts.sum())))
    return by_size(found, counts)


def _kmeans(points: np.ndarray, counts: np.ndarray, settings: TopicSettings) -> np.ndarray:
    cluster = require("sklearn.cluster", "learn")
    with alone():
        maker = cluster.KMeans(settings.k, n_init=10, random_state=settings.seed)
        return maker.fit_predict(points, sample_weight=counts)


def _hdbscan(points: np.ndarray, counts: np.ndarray, smallest: int) -> np.ndarray:
    total = int(counts.sum())
    if total <= smallest:
        return np.full(len(points), -1)
    every = points[np.repeat(np.arange(len(points)), counts), :WIDEST]  # of each text
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    found = _dense(every, smallest, np.inf)
    sizes = np.bincount(found[found >= 0], minlength=1)
    if total >= MANY and sizes.max() > MOSTLY * total:
        # a text that stands often is no reason to tear its topic apart
        most = int(counts.max())
        found = _dense(every, smallest, most + LARGEST * (total - most))
    return found[first]


def _dense(points: np.ndarray, smallest: int, largest: float) -> np.ndarray:
    """The group of each point, of so many points at the least and at the most, or -1."""
    hdbscan = require("fast_hdbscan", "learn")
    with alone():
        found, _ = hdbscan.fast_hdbscan(
            np.ascontiguousarray(points),
            min_cluster_size=smallest,
            min_samples=min(DENSE, smallest, len(points) - 1),
            max_cluster_size=largest,
            reproducible=True,
        )
    return np.asarray(found)


def by_size(found: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The same groups, numbered by how many texts they have; among equals by the first point."""
    names, first = np.unique(found, return_index=True)
    sizes = [int(counts[found == name].sum()) for name in names]
    order = sorted(range(len(names)), key=lambda i: (-sizes[i], first[i]))
    numbers = {names[i]: place for place, i in enumerate(i for i in order if names[i] >= 0)}
    return np.array([numbers.get(name, -1) for name in found.tolist()], np.int32)

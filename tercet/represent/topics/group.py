"""Points into groups, by HDBSCAN or k-means. Knows no text."""

from __future__ import annotations

import numpy as np

from tercet.errors import require
from tercet.represent.topics.reduce import alone
from tercet.represent.topics.settings import TopicSettings

WIDEST = 30  # dimensions in which fast_hdbscan compares exactly
# A pile of many texts is hardly ever mostly of one topic, but HDBSCAN may find no finer cut worth
# more: of 100,000 sentences it made one topic of 93 %.
LARGEST, MANY = 0.25, 2_000
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
    hdbscan = require("fast_hdbscan", "learn")
    if int(counts.sum()) <= smallest:
        return np.full(len(points), -1)
    every = np.repeat(np.arange(len(points)), counts)  # point of each text
    with alone():
        found, _ = hdbscan.fast_hdbscan(
            np.ascontiguousarray(points[every, :WIDEST]),
            min_cluster_size=smallest,
            min_samples=min(DENSE, smallest, len(every) - 1),
            max_cluster_size=len(every) * LARGEST if len(every) >= MANY else np.inf,
            reproducible=True,
        )
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.asarray(found)[first]


def by_size(found: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The same groups, numbered by how many texts they have; among equals by the first point."""
    names, first = np.unique(found, return_index=True)
    sizes = [int(counts[found == name].sum()) for name in names]
    order = sorted(range(len(names)), key=lambda i: (-sizes[i], first[i]))
    numbers = {names[i]: place for place, i in enumerate(i for i in order if names[i] >= 0)}
    return np.array([numbers.get(name, -1) for name in found.tolist()], np.int32)

"""How well groups that were found agree with labels that people gave: scikit-learn's measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tercet.errors import InputError, require


@dataclass(frozen=True)
class ClusteringScores:
    """Shares of 1; how the groups are called does not matter.

    v_measure: the harmonic mean of homogeneity (a group has one label) and completeness (a label
    has one group; Rosenberg and Hirschberg 2007). ari: of pairs of texts, adjusted for chance
    (Hubert and Arabie 1985), can be below 0. nmi: the information that both have in common, over
    the mean of what each has: the same number as v_measure. outliers: -1 as the group counts as
    one more group; this is its share of all.
    """

    v_measure: float
    homogeneity: float
    completeness: float
    ari: float
    nmi: float
    outliers: float
    groups: int
    n: int

    def __str__(self) -> str:
        return (
            f"v-measure {self.v_measure:.4f} (homogeneity {self.homogeneity:.4f}, completeness "
            f"{self.completeness:.4f}), ARI {self.ari:.4f}, NMI {self.nmi:.4f}; {self.groups:,} "
            f"groups of {self.n:,} texts, {self.outliers:.1%} in none"
        )


def clustering(
    groups: Sequence[int] | np.ndarray, labels: Sequence[object], *, outliers: bool = True
) -> ClusteringScores:
    """outliers: False leaves out the texts whose group is -1. Raises InputError where there are
    not as many groups as labels, and for none at all."""
    metrics = require("sklearn.metrics", "learn")
    found = np.asarray(groups)
    if found.shape != (len(labels),):
        raise InputError(f"{found.size:,} groups for {len(labels):,} labels; give one for each")
    _, given = np.unique(np.array([str(label) for label in labels]), return_inverse=True)
    inside = np.flatnonzero(found >= 0) if not outliers else np.arange(len(found))
    if not inside.size:
        raise InputError("no text is in a group; there is nothing to compare")
    parts = metrics.homogeneity_completeness_v_measure(given[inside], found[inside])
    homogeneity, completeness, v_measure = map(float, parts)
    return ClusteringScores(
        v_measure,
        homogeneity,
        completeness,
        float(metrics.adjusted_rand_score(given[inside], found[inside])),
        float(metrics.normalized_mutual_info_score(given[inside], found[inside])),
        float((found < 0).mean()),
        len(set(found[found >= 0].tolist())),
        int(inside.size),
    )


STARTS = 10  # of k-means, of which the best counts


@dataclass(frozen=True)
class Sampling:
    """Texts drawn without putting them back: so many times, each so large a share of all."""

    times: int = 10
    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.times < 1 or not 0 < self.share <= 1 or self.seed < 0:
            raise InputError(
                f"{self.times} samples of {self.share} with seed {self.seed}: give 1 or more, a "
                "share up to 1, and a seed from 0 on"
            )

    def rows(self, n: int) -> list[np.ndarray]:
        size = max(1, round(self.share * n))
        draws = [np.random.default_rng([self.seed, time]) for time in range(self.times)]
        return [np.sort(draw.choice(n, size, replace=False)) for draw in draws]


def by_k_means(
    vectors: np.ndarray, labels: Sequence[object], k: int | None = None, *, sampling: Sampling
) -> list[ClusteringScores]:
    """How k-means groups samples of vectors (n, D): what a model's vectors are worth for that.
    MTEB's clustering tasks (Muennighoff et al. 2023) ask the same with mini-batches, which find
    less. k: None for as many as labels."""
    cluster, pools = require("sklearn.cluster", "learn"), require("threadpoolctl", "learn")
    wanted = k or len({str(label) for label in labels})
    found = []
    for time, rows in enumerate(sampling.rows(len(labels))):
        if len(rows) < wanted:
            raise InputError(f"samples of {len(rows):,} texts have no {wanted} groups; draw more")
        maker = cluster.KMeans(wanted, n_init=STARTS, random_state=sampling.seed + time)
        with pools.threadpool_limits(1):  # several threads add up in any order
            groups = maker.fit_predict(vectors[rows])
        found.append(clustering(groups, [labels[row] for row in rows]))
    return found

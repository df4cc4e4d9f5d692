"""The nearest neighbours of each text, exactly, and the layouts that UMAP makes of them.

Neighbours are found once, and serve the layout for clusters, the one for the map, those of other
seeds, and what is said of new texts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from tercet.errors import require

ROOM = 1 << 24  # distances at once: 64 MiB
FEW = 50  # texts; fewer are not laid out but clustered as they are


def nearest(
    vectors: np.ndarray,
    queries: np.ndarray | None,
    k: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest rows of ``vectors`` (m, C) for each query (q, C), and their Euclidean
    distances, the nearest first: (q, k) int32 and float32. queries: None for the rows themselves,
    none of which is its own neighbour."""
    rows = torch.from_numpy(np.ascontiguousarray(vectors))  # (m, C)
    squares = (rows * rows).sum(1)
    asked = rows if queries is None else torch.from_numpy(np.ascontiguousarray(queries))
    k = min(k, len(rows) - (queries is None))
    places = np.empty((len(asked), k), np.int32)
    distances = np.empty((len(asked), k), np.float32)
    step = max(1, ROOM // max(1, len(rows), k * rows.shape[1]))
    for start in range(0, len(asked), step):
        block = asked[start : start + step]
        # |a - b|^2 but for |b|^2, which does not change the order
        apart = torch.addmm(squares, block, rows.T, alpha=-2)  # (b, m)
        if queries is None:
            apart[torch.arange(len(block)), torch.arange(start, start + len(block))] = torch.inf
        best = apart.topk(k, largest=False, sorted=False).indices
        # again without the cancellation of large squares
        exact = (block[:, None] - rows[best]).square().sum(2).sqrt()
        best, exact = best.numpy(), exact.numpy()
        order = np.lexsort((best, exact), axis=1)
        places[start : start + step] = np.take_along_axis(best, order, 1)
        distances[start : start + step] = np.take_along_axis(exact, order, 1)
        if progress is not None:
            progress(start + len(block))
    return places, distances


def layout(
    vectors: np.ndarray, near: tuple[np.ndarray, np.ndarray], dimensions: int, seed: int
) -> np.ndarray:
    """(m, C) -> (m, dimensions) by UMAP (McInnes et al. 2018) over these neighbours."""
    umap = _quietly("umap")
    # UMAP counts a point among its own neighbours.
    places = np.hstack([np.arange(len(vectors), dtype=np.int32)[:, None], near[0]])
    distances = np.hstack([np.zeros((len(vectors), 1), np.float32), near[1]])
    with alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # its own transform is never asked for, which is all that it warns of
        maker = umap.UMAP(
            n_components=dimensions,
            n_neighbors=places.shape[1],
            min_dist=0.0 if dimensions > 2 else 0.1,
            metric="euclidean",
            precomputed_knn=(places, distances),
            force_approximation_algorithm=True,
            random_state=seed,
            n_jobs=1,
        )
        return np.ascontiguousarray(maker.fit_transform(vectors), np.float32)


@contextmanager
def alone() -> Iterator[None]:
    """One thread for numba and for scikit-learn: several would add up in any order, and other
    last digits are other topics in the end. torch keeps its own: numba, when it
    begins, tells the OpenMP of both to take all cores."""
    threads = torch.get_num_threads()
    numba, pools = require("numba", "learn"), require("threadpoolctl", "learn")
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with pools.threadpool_limits(1):
            yield
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(threads)


def _quietly(module: str):  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it could use beside
        return require(module, "learn")

"""Hard negatives: passages that a model finds near to a query and that are no answer to it.

Vectors in, places out; whose they are and what is learned from them is not known here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tercet.errors import InputError

ROWS = 1 << 24  # cosines held at once: 64 MiB


def near_negatives(
    queries: np.ndarray,
    passages: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    *,
    count: int = 1,
    among: int = 30,
    margin: float = 0.05,
    seed: int = 0,
) -> list[list[int]]:
    """For each pair (query, its passage), as places in queries (Q, D) and passages (P, D), up to
    ``count`` other passages, drawn by ``seed`` out of the nearest ``among`` that may be negatives.

    A passage may be a negative when it belongs to no pair of the query and its cosine is at least
    ``margin`` below that of the pair's own passage: what is nearer may be an answer that nobody
    wrote down (after Moreira et al. 2024, NV-Retriever, section 4.1). A pair whose own passage is
    far gets few negatives, or none.
    """
    if count < 1 or among < count:
        raise InputError(
            f"count {count} of the nearest {among}: give 1 or more of at least as many"
        )
    if not margin >= 0:
        raise InputError(f"margin {margin} must be at least 0, such as 0.05")
    queries, passages = unit(queries), unit(passages)
    answers: dict[int, set[int]] = defaultdict(set)
    for query, passage in pairs:
        answers[query].add(passage)
    draw = np.random.default_rng(seed)
    found: list[list[int]] = []
    size = max(1, ROWS // max(1, len(passages)))
    for start in range(0, len(pairs), size):
        block = pairs[start : start + size]
        near = queries[[query for query, _ in block]] @ passages.T  # (b, P)
        for cosines, (query, passage) in zip(near, block):
            highest = cosines[passage] - margin
            cosines[list(answers[query])] = -np.inf
            cosines[cosines > highest] = -np.inf
            nearest = np.argsort(-cosines, kind="stable")[:among]
            may = nearest[np.isfinite(cosines[nearest])]
            found.append(draw.permutation(may)[:count].tolist())
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, D) of length 1, so that their products are cosines."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

"""What the nearest known texts say of a text: its topic, and how sure they are."""

from __future__ import annotations

import numpy as np

CLOSE = 1e-4  # nearer than that is equal
ROOM = 1 << 22  # shares at once


def votes(
    topics: np.ndarray, distances: np.ndarray, n_topics: int
) -> tuple[np.ndarray, np.ndarray]:
    """(q, k) topics of the neighbours and their distances -> the topic with the largest share of
    the votes, and that share: (q,) int32 and float32. A vote weighs 1 over its distance (Dudani
    1976 has it so), so that an equal text decides alone."""
    best, share = np.empty(len(topics), np.int32), np.empty(len(topics), np.float32)
    step = max(1, ROOM // (n_topics + 1))
    for start in range(0, len(topics), step):
        block = slice(start, start + step)
        columns = topics[block] + 1  # -1 has the first
        weights = 1 / np.maximum(distances[block], CLOSE)  # (b, k)
        shares = np.zeros((len(columns), n_topics + 1), np.float32)
        rows = np.repeat(np.arange(len(columns)), columns.shape[1])
        np.add.at(shares, (rows, columns.ravel()), weights.ravel())
        shares /= shares.sum(1, keepdims=True)
        won = shares.argmax(1)
        best[block], share[block] = won - 1, shares[np.arange(len(won)), won]
    return best, share


def share_of(answers: np.ndarray, topics: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """(q,) float32: of the votes, those for the answers (q,) that stand."""
    weights = 1 / np.maximum(distances, CLOSE)
    return ((topics == answers[:, None]) * weights).sum(1) / weights.sum(1)

"""Vectors of any number of texts in bounded memory: a stream of blocks, kept in an array while it
is small and in a file beyond, and its principal components.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

BLOCK = 4_096  # rows
IN_MEMORY = 1 << 27  # bytes of vectors; more lie in a file without a name


class Vectors:
    """(n, D) float32 of length 1, to be read again and again, block by block.

    Their length says nothing about their meaning: what is compared is the angle.
    """

    def __init__(self, blocks: Iterable[np.ndarray], n: int) -> None:
        self.n, self.width = 0, 0
        self._parts: list[np.ndarray] = []
        self._file: IO[bytes] | None = None
        for block in blocks:
            self._append(_of_length_1(block))
        assert self.n == n, f"{self.n} vectors for {n} texts"

    def _append(self, block: np.ndarray) -> None:
        self.n, self.width = self.n + len(block), block.shape[1]
        if self._file is None:
            self._parts.append(block)
            if self.n * self.width * 4 > IN_MEMORY:
                self._file = tempfile.TemporaryFile()
                for part in self._parts:
                    self._file.write(part.tobytes())
                self._parts = []
        else:
            self._file.write(block.tobytes())

    def blocks(self) -> Iterator[np.ndarray]:
        if self._file is None:
            yield from self._parts
            return
        self._file.seek(0)
        while data := self._file.read(BLOCK * self.width * 4):
            yield np.frombuffer(data, np.float32).reshape(-1, self.width)


def _of_length_1(block: np.ndarray) -> np.ndarray:
    block = np.asarray(block, np.float32)
    lengths = np.linalg.norm(block, axis=1, keepdims=True)
    return block / np.where(lengths > 0, lengths, 1)


def sliced(vectors: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows of an array (also one that is mapped from a file), block by block."""
    for start in range(0, len(rows), BLOCK):
        yield vectors[rows[start : start + BLOCK]]


@dataclass(frozen=True)
class Projection:
    """Onto the principal components: (b, D) to (b, C)."""

    mean: np.ndarray  # (D,) float32
    axes: np.ndarray  # (D, C) float32

    @classmethod
    def of(cls, vectors: Vectors, components: int) -> Projection:
        """The axes of the largest variance, as scikit-learn's PCA has them, from the covariance,
        which is summed up block by block in double precision: all it holds is (D, D)."""
        total = np.zeros(vectors.width)
        products = np.zeros((vectors.width, vectors.width))
        for block in vectors.blocks():
            wide = block.astype(np.float64)
            total += wide.sum(0)
            products += wide.T @ wide
        mean = total / vectors.n
        values, axes = np.linalg.eigh(products / vectors.n - np.outer(mean, mean))
        axes = axes[:, ::-1][:, : min(components, vectors.width, max(1, vectors.n - 1))]
        largest = axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])]
        return cls(mean.astype(np.float32), (axes * np.sign(largest)).astype(np.float32))

    def __call__(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """(n, C) float32 of blocks whose rows have length 1."""
        parts = [(block - self.mean) @ self.axes for block in blocks]
        return np.concatenate(parts) if parts else np.zeros((0, self.axes.shape[1]), np.float32)

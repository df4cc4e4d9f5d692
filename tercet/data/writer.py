"""Writing one split's shards and index so that a killed process loses nothing that was committed.

The files grow at their ends only. `commit` puts them on the disk and says how far they are; a new
writer that is given those numbers cuts the files back to them and goes on. Knows no text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import FileIO
from itertools import chain
from pathlib import Path

import numpy as np

from tercet.data.manifest import Shard, sealed
from tercet.data.shards import INDEX
from tercet.errors import InputError

SHARD_TOKENS = 1 << 26  # 128 MiB of two-byte tokens
Origin = tuple[int, int]  # number of the file, number of the document in it


@dataclass
class Written:
    """How far a split is. The numbers are those of `SplitFacts`."""

    documents: int = 0
    tokens: int = 0
    characters: int = 0
    bytes: int = 0
    unknown: int = 0


class Writer:
    """`name` begins the names of the files: "novels.train" -> novels.train.index,
    novels.train.00000.tokens ..."""

    def __init__(self, folder: Path, name: str, kind: np.dtype, written: Written) -> None:
        self.folder, self.name, self.kind, self.written = folder, name, kind, written
        with refusals(folder):
            self._cut_back()
            self._index = self._opened(self.index_path)
            self._shard = self._opened(self.shard_path(written.tokens // SHARD_TOKENS))

    @property
    def index_path(self) -> Path:
        return self.folder / f"{self.name}.index"

    def shard_path(self, number: int) -> Path:
        return self.folder / f"{self.name}.{number:05d}.tokens"

    def add(self, ids: Sequence[Sequence[int]], origins: Sequence[Origin | None]) -> None:
        """Texts at the end: their ids, and where those came from that begin a document; the others
        go on with the one before."""
        ends = np.cumsum([0, *map(len, ids)], dtype=np.int64) + self.written.tokens
        rows = [(start, *origin) for start, origin in zip(ends.tolist(), origins) if origin]
        flat = np.fromiter(chain.from_iterable(ids), self.kind, int(ends[-1] - ends[0]))
        self.written.documents += len(rows)
        with refusals(self.folder):
            _write(self._index, np.array(rows, INDEX))
            while len(flat):
                room = SHARD_TOKENS - self.written.tokens % SHARD_TOKENS
                _write(self._shard, flat[:room])
                self.written.tokens += len(flat[:room])
                flat = flat[room:]
                if self.written.tokens % SHARD_TOKENS == 0:
                    os.fsync(self._shard.fileno())
                    self._shard.close()
                    number = self.written.tokens // SHARD_TOKENS
                    self._shard = self._opened(self.shard_path(number))

    def commit(self) -> dict[str, int]:
        """All of it to the disk; the numbers to go on from."""
        with refusals(self.folder):
            for file in (self._index, self._shard):
                os.fsync(file.fileno())
        return asdict(self.written)

    def close(self) -> None:
        self._index.close()
        self._shard.close()

    def seal(self) -> tuple[Shard, tuple[Shard, ...]]:
        """The index and the shards with their checksums; an empty last file is removed."""
        total = self.written.tokens
        sizes = [min(SHARD_TOKENS, total - start) for start in range(0, total, SHARD_TOKENS)]
        self.shard_path(len(sizes)).unlink(missing_ok=True)
        shards = tuple(sealed(self.shard_path(i), size) for i, size in enumerate(sizes))
        return sealed(self.index_path, self.written.documents), shards

    def _cut_back(self) -> None:
        """The files as they were when these numbers were committed."""
        full, rest = divmod(self.written.tokens, SHARD_TOKENS)
        sizes = {self.index_path: self.written.documents * INDEX.itemsize}
        sizes |= {self.shard_path(i): SHARD_TOKENS * self.kind.itemsize for i in range(full)}
        if rest:
            sizes[self.shard_path(full)] = rest * self.kind.itemsize
        for path in self.folder.glob(f"{self.name}.[0-9]*.tokens"):
            if path not in sizes:
                path.unlink()
        for path, size in sizes.items():
            path.touch()
            if path.stat().st_size < size:
                raise InputError(
                    f"{path}: shorter than when this preparation was interrupted; remove"
                    f" {self.folder} and start anew"
                )
            os.truncate(path, size)

    def _opened(self, path: Path) -> FileIO:
        return path.open("ab", buffering=0)  # what a full disk refuses must not wait in a buffer


def _write(file: FileIO, numbers: np.ndarray) -> None:
    """All of it, in however many pieces the system takes it."""
    rest = memoryview(numbers.tobytes())
    while len(rest):
        rest = rest[file.write(rest) :]


@contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """What the system refuses, as an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror or error}); free some space and run the"
            " same again: it goes on from where it was"
        ) from error

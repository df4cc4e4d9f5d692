"""Tokens: one split's documents as a flat stream of ids, in memory or memory-mapped over shards.

A shard is a file of plain little-endian numbers, uint16 where the vocabulary fits and else uint32;
all shards but the last are equally long, and a document may go on in the next one. Beside them
lies an index with a row a document. Knows neither tokenizers nor where the ids come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tercet.errors import InputError

INDEX = np.dtype([("start", "<i8"), ("file", "<u4"), ("number", "<u4")])  # a row a document


def token_type(vocab_size: int) -> np.dtype:
    """The type of the numbers in a shard: two bytes up to 65,536 ids, four beyond."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class Tokens:
    """A stream of documents' ids. len() is the number of documents.

    With a separator (the tokenizer's end-of-text id) each document is [separator, d1 .. dn], and
    one more separator stands behind the last: stream[start + 1 : stop + 1] are the targets of
    stream[start:stop] for every document, its end is among them, and its first token has
    something before it. Without one the documents stand end to end.

    n_tokens    ids in the stream, separators included
    separator   the id before every document, or None
    starts      (n,) int64: where each document begins, its separator included
    """

    def __init__(
        self, shards: Sequence[np.ndarray], starts: np.ndarray, *, separator: int | None = None
    ) -> None:
        assert all(len(shard) == len(shards[0]) for shard in shards[:-1])
        self._shards = list(shards)
        self._shard_tokens = max(1, len(shards[0])) if shards else 1
        self.starts = starts
        self.separator = separator
        self.n_tokens = sum(map(len, shards))

    @classmethod
    def of(cls, documents: Sequence[Sequence[int]], separator: int | None) -> Tokens:
        """In memory, from lists of ids (none of them has the separator)."""
        before = [] if separator is None else [separator]
        stream = [token for document in documents for token in (*before, *document)]
        lengths = [len(before) + len(document) for document in documents]
        starts = np.cumsum([0, *lengths], dtype=np.int64)[:-1]
        shard = np.array([*stream, *(before if documents else [])], np.int64)
        return cls([shard], starts, separator=separator)

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(n,) int64: ids of each document, its separator included."""
        behind = 0 if self.separator is None else 1  # the one more behind the last document
        return np.diff(self.starts, append=max(0, self.n_tokens - behind))

    def take(self, start: int, stop: int) -> Tensor:
        """(stop - start,) int64: a copy of a stretch of the stream, whatever shards it lies in."""
        assert 0 <= start <= stop <= self.n_tokens, (start, stop, self.n_tokens)
        size = self._shard_tokens
        parts = [
            self._shards[number][max(0, start - number * size) : stop - number * size]
            for number in range(start // size, (max(start, stop - 1)) // size + 1)
            if number < len(self._shards)
        ]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, np.int64)])
        return torch.from_numpy(joined.astype(np.int64))

    def document(self, number: int) -> Tensor:
        """(length,) int64: one document's ids without its separator."""
        assert 0 <= number < len(self), (number, len(self))
        start = int(self.starts[number])
        before = 0 if self.separator is None else 1
        return self.take(start + before, start + int(self.lengths[number]))


def mapped(path: Path, kind: np.dtype, count: int) -> np.ndarray:
    """A file of `count` numbers, memory-mapped. Raises InputError where its size differs."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); prepare the data anew"
        ) from error
    if size != count * kind.itemsize:
        raise InputError(
            f"{path}: has {size:,} bytes where the manifest says {count * kind.itemsize:,}; it was "
            "cut short or altered: copy it anew, or prepare the data anew"
        )
    return np.memmap(path, kind, "r", shape=(count,)) if count else np.empty(0, kind)

"""Layout: where each sequence of a flat token stream begins, and how attention may tile it.

A batch is all the tokens of all the sequences, end to end, as (N, ...). Packed documents are simply
more sequences: nothing looks across a boundary. This file knows lengths and positions; no network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tercet.errors import InputError

BATCH_TOKENS = 4_096  # of texts that are read together
SHORT = 64  # tokens of which Python lists tell the places in less time than torch takes to begin


class Layout:
    """The lengths of B sequences that lie end to end in one stream of N tokens.

    ``lengths``: tokens of each sequence in the stream (each at least 1). ``past``: tokens of each
    sequence that came in earlier calls and lie in a cache; positions go on from there.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        past: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.lengths = tuple(int(n) for n in lengths)
        self.past = tuple(int(n) for n in past) if past is not None else (0,) * len(self.lengths)
        self.device = torch.device(device)
        if not self.lengths:
            raise InputError("a batch of 0 sequences cannot be run; give at least one")
        if min(self.lengths) < 1:
            raise InputError(
                f"sequence {self.lengths.index(min(self.lengths))} is empty; give at least one "
                f"token"
            )
        assert len(self.past) == len(self.lengths), (len(self.past), len(self.lengths))
        self.n_sequences = len(self.lengths)
        self.n_tokens = sum(self.lengths)
        self.totals = tuple(p + n for p, n in zip(self.past, self.lengths, strict=True))
        self.equal = min(self.lengths) == max(self.lengths)
        self.n_fillers = 0  # of the sequences, at the end: nobody's

    @cached_property
    def sequence(self) -> Tensor:
        """(N,) the sequence of each token."""
        if self.n_tokens <= SHORT:
            numbers = [i for i, n in enumerate(self.lengths) for _ in range(n)]
            return torch.tensor(numbers, device=self.device)
        return torch.repeat_interleave(
            torch.arange(self.n_sequences), torch.tensor(self.lengths)
        ).to(self.device)

    @cached_property
    def positions(self) -> Tensor:
        """(N,) the place of each token in its own sequence, cached tokens counted."""
        if self.n_tokens <= SHORT:
            ends = zip(self.past, self.totals, strict=True)
            return torch.tensor(
                [i for past, end in ends for i in range(past, end)], device=self.device
            )
        if self.equal:
            steps = torch.arange(self.lengths[0]).repeat(self.n_sequences)
        else:
            steps = torch.cat([torch.arange(n) for n in self.lengths])
        past = torch.repeat_interleave(torch.tensor(self.past), torch.tensor(self.lengths))
        return (steps + past).to(self.device)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The row at which each sequence begins."""
        rows, at = [], 0
        for n in self.lengths:
            rows.append(at)
            at += n
        return tuple(rows)

    @cached_property
    def bounds(self) -> Tensor:
        """(B + 1,) the row at which each sequence begins, and the row behind the last."""
        return torch.tensor([*self.starts, self.n_tokens], device=self.device)

    @cached_property
    def first(self) -> Tensor:
        """(B,) the row of each sequence's first token."""
        return torch.tensor(self.starts, device=self.device)

    @cached_property
    def last(self) -> Tensor:
        """(B,) the row of each sequence's last token."""
        return torch.tensor(
            [s + n - 1 for s, n in zip(self.starts, self.lengths, strict=True)], device=self.device
        )

    def filled(self, more: int) -> Layout:
        """With so many tokens more, in ``n_fillers`` sequences that are none longer than these."""
        longest = max(self.lengths)
        fillers = [min(longest, more - at) for at in range(0, more, longest)]
        past = [*self.past, *[0] * len(fillers)]
        whole = Layout([*self.lengths, *fillers], past, self.device)
        whole.n_fillers = len(fillers)
        return whole

    def split(self, x: Tensor) -> list[Tensor]:
        """(N, ...) -> the rows of each sequence."""
        return list(x.split(self.lengths))

    def __repr__(self) -> str:
        return f"Layout(lengths={self.lengths}, past={self.past})"


def flatten(
    sequences: Sequence[Sequence[int]], device: torch.device | str = "cpu"
) -> tuple[Tensor, Layout]:
    """Lists of token ids -> the stream (N,) and its layout."""
    layout = Layout([len(ids) for ids in sequences], device=device)
    return torch.tensor([token for ids in sequences for token in ids], device=device), layout


Listener = Callable[[int, int], None]  # tokens that are read, and of how many
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """While it lasts the listener is told how far ``batches`` are: at their beginning, and behind
    each. So long work can be seen by a person, without a parameter in all that reads texts."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def batches(lengths: Sequence[int], budget: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices of texts, longest first, so many at a time as hold at most ``budget`` tokens.

    Longest first, because a budget that is too large for the memory then fails at once.
    """
    tell, total, done = _listener.get() or (lambda done, total: None), sum(lengths), 0
    tell(done, total)
    batch: list[int] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and tokens + lengths[i] > budget:
            yield batch
            tell(done := done + tokens, total)
            batch, tokens = [], 0
        batch.append(i)
        tokens += lengths[i]
    if batch:
        yield batch
        tell(total, total)


@dataclass(frozen=True)
class Tile:
    """A rectangle of attention: some sequences, padded to T queries and S keys."""

    sequences: tuple[int, ...]
    queries: int  # T
    keys: int  # S
    exact: bool  # nothing is padded


class Tiling:
    """Cuts a ragged pair of layouts into rectangles of near-equal size, and finds each row's place
    there.

    Lengths are rounded up to a grid of four steps an octave (65 ... 80 share a tile), so at most a
    quarter of a side is padding. Equal lengths give one exact tile and no copy.
    """

    def __init__(self, queries: Layout, keys: Layout, *, single: bool = False) -> None:
        """``single``: the keys are one rectangle already (a cache), so the queries become one
        too.
        """
        shapes: dict[tuple[int, int], list[int]] = {}
        for i, (t, s) in enumerate(zip(queries.lengths, keys.lengths, strict=True)):
            shape = (0, 0) if single or (queries.equal and keys.equal) else (_grid(t), _grid(s))
            shapes.setdefault(shape, []).append(i)
        self.tiles = [self._tile(rows, queries, keys) for rows in shapes.values()]
        free = len(self.tiles) == 1 and queries.equal
        self.query_rows = (
            None if free else self._rows(queries, [tile.queries for tile in self.tiles])
        )
        free = len(self.tiles) == 1 and keys.equal
        self.key_rows = (
            None if free or single else self._rows(keys, [tile.keys for tile in self.tiles])
        )

    @staticmethod
    def _tile(rows: list[int], queries: Layout, keys: Layout) -> Tile:
        t, s = [queries.lengths[i] for i in rows], [keys.lengths[i] for i in rows]
        return Tile(tuple(rows), max(t), max(s), min(t) == max(t) and min(s) == max(s))

    def _rows(self, layout: Layout, widths: list[int]) -> Tensor:
        """(N,) the row of each token in the padded tiles, laid end to end."""
        start, begins = 0, [0] * layout.n_sequences
        for tile, width in zip(self.tiles, widths, strict=True):
            for place, i in enumerate(tile.sequences):
                begins[i] = start + place * width
            start += len(tile.sequences) * width
        begin = torch.repeat_interleave(torch.tensor(begins), torch.tensor(layout.lengths))
        steps = torch.arange(layout.n_tokens) - torch.repeat_interleave(
            torch.tensor(layout.starts), torch.tensor(layout.lengths)
        )
        return (begin + steps).to(layout.device)


def _grid(n: int) -> int:
    step = max(1, 1 << max(0, n.bit_length() - 3))
    return -(-n // step) * step

"""Keys and values of tokens already read: append, reorder (beams, finished sequences), rewind
(speculation).

Sharing a prefix is ``reorder`` with a repeated row. Rows of a rectangle are copied then; where rows
are reordered at every step, keys stay in the places where they were written and each sequence has
a list of its own. The cache holds tensors and lengths; it knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.kernels.tape import Scope
from tercet.model.layout import Layout


class LayerCache:
    """One layer's keys and values (B, G, capacity, K); rows are filled from the left."""

    def __init__(self) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def append(self, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """New (N, G, K) in; out what attention reads: (B, G, S, K), or the stream itself in a
        first call.
        """
        longest = max(layout.totals)
        self.k = _written(_grown(self.k, k, layout.n_sequences, longest), k, layout)
        self.v = _written(_grown(self.v, v, layout.n_sequences, longest), v, layout)
        if not any(layout.past):
            return k, v
        return self.k[:, :, :longest], self.v[:, :, :longest]

    def pages(self, layout: Layout, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (pages, G, page, K) with room for the tokens of ``layout``, of the type
        of ``like`` (..., G, K): a page for each sequence."""
        longest = max(layout.totals)
        self.k = _grown(self.k, like, layout.n_sequences, longest)
        self.v = _grown(self.v, like, layout.n_sequences, longest)
        return self.k, self.v

    def reorder(self, rows: Tensor) -> None:
        if self.k is not None and self.v is not None:
            self.k, self.v = self.k.index_select(0, rows), self.v.index_select(0, rows)

    def copy(self) -> LayerCache:
        other = LayerCache()
        other.k = None if self.k is None else self.k.clone()
        other.v = None if self.v is None else self.v.clone()
        return other


class Places:
    """Where the tokens of each sequence lie: ``table`` (B, n) int64. Every pass takes new places,
    as many as it has tokens."""

    def __init__(self, n_sequences: int, room: int) -> None:
        """room: tokens that will be read, as far as is known."""
        self.room = room
        self.table = torch.empty(n_sequences, 0, dtype=torch.int64)
        self.taken = 0
        self._last: tuple[Layout | None, int] = (None, 0)

    def take(self, layout: Layout) -> int:
        """The first place of this pass, the same for all layers."""
        if self._last[0] is not layout:
            self._last = layout, self.taken
            self.taken += layout.n_tokens
            more = max(layout.totals) - self.table.shape[1]
            self.table = torch.nn.functional.pad(self.table, (0, max(0, more)))
            new = torch.arange(self._last[1], self.taken)
            self.table[layout.sequence, layout.positions] = new
        return self._last[1]

    def reorder(self, rows: Tensor) -> None:
        self.table = self.table[rows]

    def scope(self, layout: Layout, window: int | None) -> Scope:
        """What the tokens of ``layout`` see: those before them in their sequence, themselves too,
        as far as a window reaches."""
        last = layout.positions + 1
        first = torch.zeros_like(last) if window is None else (last - window).clamp_(min=0)
        return Scope(*self.pages(layout), first, last)

    def pages(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """All places, and for each token of ``layout`` where those of its sequence begin."""
        return self.table.flatten(), layout.sequence * self.table.shape[1]


@dataclass(frozen=True)
class Scattered:
    """Keys or values (places, G, K), and where each sequence has its own."""

    x: Tensor
    places: Places


class ScatteredLayer:
    """One layer's keys and values in the places that ``Places`` gives."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.k: Tensor | None = None  # (capacity, G, K)
        self.v: Tensor | None = None

    def append(
        self, k: Tensor, v: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor] | tuple[Scattered, Scattered]:
        """New (N, G, K) in; out what attention reads: the stream itself in a first call."""
        start = self.places.take(layout)
        keys, values = (x.squeeze(2) for x in self.pages(layout, k))
        keys[start : self.places.taken], values[start : self.places.taken] = k, v
        if not any(layout.past):
            return k, v
        return Scattered(keys, self.places), Scattered(values, self.places)

    def pages(self, layout: Layout, like: Tensor) -> tuple[Tensor, Tensor]:
        """As of ``LayerCache``, a page for each place."""
        self.places.take(layout)
        self.k, self.v = self._room(self.k, like), self._room(self.v, like)
        return self.k.unsqueeze(2), self.v.unsqueeze(2)

    def _room(self, kept: Tensor | None, like: Tensor) -> Tensor:
        """All that is known to come, else capacity doubles; no zeros: memory is taken when it is
        first written to."""
        held = 0 if kept is None else len(kept)
        if kept is not None and held >= self.places.taken:
            return kept
        wanted = max(self.places.taken, 2 * held, self.places.room)
        room = like.new_empty(wanted, *like.shape[-2:])
        if kept is not None:
            room[:held] = kept
        return room

    def reorder(self, rows: Tensor) -> None:
        """Nothing moves."""


def _kept(x: Tensor, rows: Tensor, longest: int) -> Tensor:
    """Some sources of (sources, G, S, K), no longer than they must be, in one piece."""
    return x.index_select(0, rows)[:, :, :longest].contiguous()


def _grown(kept: Tensor | None, new: Tensor, n_sequences: int, longest: int) -> Tensor:
    """Room for ``longest`` tokens a sequence. Capacity doubles, so n steps copy O(n) and not O(n
    squared).
    """
    held = 0 if kept is None else kept.shape[2]
    if kept is not None and longest <= held:
        return kept
    capacity = longest if held == 0 else max(longest, 2 * held, 64)
    room = new.new_zeros(n_sequences, new.shape[1], capacity, new.shape[2])
    if kept is not None:
        room[:, :, :held] = kept
    return room


def _written(room: Tensor, new: Tensor, layout: Layout) -> Tensor:
    if layout.equal and len(set(layout.past)) == 1:
        at, n = layout.past[0], layout.lengths[0]
        room[:, :, at : at + n] = new.unflatten(0, (-1, n)).transpose(1, 2)
    else:
        room[layout.sequence, :, layout.positions] = new
    return room


class Cache:
    """What a decoder keeps between calls. ``lengths``: tokens held of each sequence.

    ``cross``: for each layer the keys and values of the encoder's states, (sources, G, S, K);
    ``memory_layout`` their lengths; ``owners``: the source that each sequence answers. Sequences of
    one source stand together, and share its keys. A pass over a cache is for inference: it writes
    in place and takes no gradients.
    """

    def __init__(self, n_sequences: int, n_layers: int, *, scattered: int = 0) -> None:
        """scattered: for rows that are reordered often, where ``kernels.tape.attends`` can: how
        many tokens will be read."""
        self.lengths: tuple[int, ...] = (0,) * n_sequences
        self.places = Places(n_sequences, scattered) if scattered else None
        self.layers: list[LayerCache] | list[ScatteredLayer]
        if self.places is None:
            self.layers = [LayerCache() for _ in range(n_layers)]
        else:
            self.layers = [ScatteredLayer(self.places) for _ in range(n_layers)]
        self.cross: list[tuple[Tensor, Tensor]] = []
        self.memory_layout: Layout | None = None
        self.owners = tuple(range(n_sequences))

    def remember(self, keys: list[tuple[Tensor, Tensor]], layout: Layout) -> None:
        """Keep the (N_S, G, K) keys and values of each layer's cross-attention, as rectangles."""
        longest = max(layout.lengths)
        self.cross = [
            (
                _written(_grown(None, k, layout.n_sequences, longest), k, layout),
                _written(_grown(None, v, layout.n_sequences, longest), v, layout),
            )
            for k, v in keys
        ]
        self.memory_layout = layout

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row ``rows[i]`` was; rows may repeat (beams, shared prefixes) or drop
        out.
        """
        kept = rows.tolist()
        if kept == list(range(len(self.lengths))):
            return
        self.lengths = tuple(self.lengths[i] for i in kept)
        self.owners = tuple(self.owners[i] for i in kept)
        if self.places is not None:
            self.places.reorder(rows)
        for layer in self.layers:
            layer.reorder(rows)
        self._share()

    def pages(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """The pages of all sequences, and for each token of ``layout`` where those of its sequence
        begin."""
        if self.places is None:
            return torch.arange(layout.n_sequences), layout.sequence
        self.places.take(layout)
        return self.places.pages(layout)

    def _share(self) -> None:
        """Drops the sources that nobody answers; sequences that do not stand together get a copy
        each."""
        if self.memory_layout is None:
            return
        sources = list(dict.fromkeys(self.owners))
        if list(self.owners) != sorted(self.owners):
            sources = list(self.owners)
            self.owners = tuple(range(len(sources)))
        elif len(sources) == self.memory_layout.n_sequences:
            return
        else:
            self.owners = tuple(sources.index(owner) for owner in self.owners)
        lengths = [self.memory_layout.lengths[i] for i in sources]
        longest, rows = max(lengths), torch.tensor(sources, device=self.memory_layout.device)
        self.cross = [(_kept(k, rows, longest), _kept(v, rows, longest)) for k, v in self.cross]
        self.memory_layout = Layout(lengths, device=self.memory_layout.device)

    def queries(self, layout: Layout) -> Layout:
        """The tokens of ``layout`` by the source that they look at: to it, sequences of one source
        are one."""
        assert self.memory_layout is not None
        counts = [0] * self.memory_layout.n_sequences
        for owner, n in zip(self.owners, layout.lengths, strict=True):
            counts[owner] += n
        return Layout(counts, device=layout.device)

    def rewind(self, lengths: tuple[int, ...] | list[int]) -> None:
        """Forget what lies beyond ``lengths``; the rows are overwritten by the next append."""
        assert all(0 <= n <= held for n, held in zip(lengths, self.lengths, strict=True)), (
            lengths,
            self.lengths,
        )
        self.lengths = tuple(lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of all the tensors held, spare capacity included."""
        held = [t for layer in self.layers for t in (layer.k, layer.v) if t is not None]
        return sum(t.nbytes for t in [*held, *(t for pair in self.cross for t in pair)])

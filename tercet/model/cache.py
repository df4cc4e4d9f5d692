"""Keys and values of tokens already read: append, reorder (beams, finished sequences), rewind
(speculation).

Sharing a prefix is ``reorder`` with a repeated row. The cache holds tensors and lengths; it knows
no network.
"""

from __future__ import annotations

import torch
from torch import Tensor

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

    def reserve(self, n_sequences: int, heads: int, width: int, longest: int, like: Tensor) -> None:
        """Room for ``longest`` tokens of each sequence, of the type of ``like``."""
        row = like.new_empty(0, heads, width)
        self.k = _grown(self.k, row, n_sequences, longest)
        self.v = _grown(self.v, row, n_sequences, longest)

    def reorder(self, rows: Tensor) -> None:
        if self.k is not None and self.v is not None:
            self.k, self.v = self.k.index_select(0, rows), self.v.index_select(0, rows)

    def copy(self) -> LayerCache:
        other = LayerCache()
        other.k = None if self.k is None else self.k.clone()
        other.v = None if self.v is None else self.v.clone()
        return other


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

    def __init__(self, n_sequences: int, n_layers: int) -> None:
        self.lengths: tuple[int, ...] = (0,) * n_sequences
        self.layers = [LayerCache() for _ in range(n_layers)]
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
        for layer in self.layers:
            layer.reorder(rows)
        self._share()

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

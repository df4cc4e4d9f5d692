"""What a network is asked to do at once: the sequences that it reads, in which type, for how many
targets.

Lengths become the two numbers that every formula needs: rows (tokens, what all but attention costs)
and pairs (query times key, as the kernels compute them: whole rectangles, whatever a mask hides).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.model.layout import Layout, Tile, Tiling

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Extent:
    """One side of a network at work: an encoder or a decoder, on its sequences."""

    side: str  # "encoder" or "decoder"
    layers: int
    causal: bool
    layout: Layout
    memory: Layout | None  # what a decoder looks across at

    @property
    def tiling(self) -> Tiling:
        return Tiling(self.layout, self.layout)

    @property
    def across(self) -> Tiling:
        assert self.memory is not None
        return Tiling(self.layout, self.memory)


@dataclass(frozen=True)
class Workload:
    """Sequences for one network, checked against it."""

    config: TransformerConfig
    layout: Layout  # of the last stack
    source: Layout | None  # of an encoder-decoder's encoder
    n_targets: int  # rows that become logits
    dtype: str
    fused: bool  # attention in one kernel where torch's CPU has one

    @property
    def itemsize(self) -> int:
        return BYTES[self.dtype]

    @property
    def accurate(self) -> int:
        """Bytes a number where torch keeps at least 32 bits: root mean squares, open softmaxes."""
        return max(4, self.itemsize)

    @property
    def extents(self) -> list[Extent]:
        config, found = self.config, []
        if config.encoder_layers:
            read = self.source or self.layout
            found.append(Extent("encoder", config.encoder_layers, False, read, None))
        if config.decoder_layers:
            found.append(Extent("decoder", config.decoder_layers, True, self.layout, self.source))
        return found


def workload(
    config: TransformerConfig,
    lengths: Sequence[int] | None,
    source_lengths: Sequence[int] | None,
    targets: int | None,
    dtype: str,
    fused: bool,
) -> Workload:
    """The settings of ``plan``, checked; see there."""
    if dtype not in BYTES:
        raise InputError(f"dtype {dtype!r} is unknown; use one of {', '.join(BYTES)}")
    both = config.family == "encoder-decoder"
    if source_lengths is not None and not both:
        raise InputError(
            f"source_lengths {tuple(source_lengths)} are for an encoder-decoder, and this model "
            f"is of the {config.family} family; give lengths alone"
        )
    layout = _layout(config, lengths if lengths is not None else (config.context_length,))
    source = None
    if both:
        source = layout if source_lengths is None else _layout(config, source_lengths)
        if source.n_sequences != layout.n_sequences:
            raise InputError(
                f"{layout.n_sequences} targets cannot have {source.n_sequences} sources; "
                "give a source length for each length"
            )
    n_targets = layout.n_tokens if targets is None else targets
    if not 0 <= n_targets <= layout.n_tokens:
        raise InputError(f"{n_targets} targets do not fit in {layout.n_tokens} tokens; give fewer")
    return Workload(config, layout, source, n_targets, dtype, fused)


def _layout(config: TransformerConfig, lengths: Sequence[int]) -> Layout:
    layout = Layout(lengths)
    if config.positions == "learned" and max(layout.lengths) > config.context_length:
        raise InputError(
            f"a sequence of {max(layout.lengths)} tokens is longer than the context of "
            f"{config.context_length}; give shorter lengths"
        )
    return layout


def query_rows(tiles: list[Tile]) -> int:
    """Rows of the queries' rectangles, filler included."""
    return sum(len(tile.sequences) * tile.queries for tile in tiles)


def key_rows(tiles: list[Tile]) -> int:
    return sum(len(tile.sequences) * tile.keys for tile in tiles)


def pairs(tiles: list[Tile]) -> int:
    """Scores that a head computes: query times key, summed over the rectangles."""
    return sum(len(tile.sequences) * tile.queries * tile.keys for tile in tiles)

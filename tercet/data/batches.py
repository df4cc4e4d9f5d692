"""Batches over the flat token stream: rows of text for the next token or for masks, and pairs.

Each source is called with a step and answers with that step's micro-batches; the same step gives
the same batches, whoever asks and whenever. What a batch is cut into (``micro_batch``) changes no
sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.data.order import generator, sample_order
from tercet.errors import InputError
from tercet.model.layout import Layout, flatten


@dataclass(frozen=True)
class Batch:
    """What an objective sees. ``select``: the rows of the stream that ``targets`` belong to;
    None: all.

    ``source`` and its layout are what the encoder of an encoder-decoder reads.
    """

    tokens: Tensor  # (N,)
    layout: Layout
    targets: Tensor  # (n_targets,)
    select: Tensor | None = None  # (n_targets,)
    source: Tensor | None = None  # (M,)
    source_layout: Layout | None = None

    @property
    def n_targets(self) -> int:
        return self.targets.numel()

    @property
    def n_tokens(self) -> int:
        """Tokens read, on both sides: what tokens per second counts."""
        return self.tokens.numel() + (0 if self.source is None else self.source.numel())


@dataclass(frozen=True)
class Rows:
    """Text cut into equal rows. Every epoch starts at another token, so that it cuts elsewhere."""

    text: Tensor  # (N,) documents end to end, each behind a separator
    length: int  # T, tokens a row
    rows: int  # a step
    micro_batch: int  # rows
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise InputError(
                f"the text has {len(self.text)} tokens, too few for one row of {self.length}; "
                "give more text or shorten the rows"
            )

    @property
    def n_samples(self) -> int:
        """Rows an epoch: the start moves by up to a row, and a target stands behind each token."""
        return len(self.text) // self.length - 1

    def samples(self, step: int) -> list[list[Tensor]]:
        """The step's rows with one token more, (T + 1,) each, in micro-batches."""
        drawn = sample_order(self.seed, step * self.rows, self.rows, self.n_samples)
        rows = [self._row(epoch, sample) for epoch, sample in drawn]
        return [rows[i : i + self.micro_batch] for i in range(0, len(rows), self.micro_batch)]

    def _row(self, epoch: int, sample: int) -> Tensor:
        offset = keyed_offset(self.seed, epoch, self.length)
        start = offset + sample * self.length
        return self.text[start : start + self.length + 1]


def keyed_offset(seed: int, epoch: int, length: int) -> int:
    """Where an epoch's first row starts: 0 to ``length`` - 1."""
    return int(torch.randint(length, (1,), generator=generator("offset", seed, epoch)))


@dataclass(frozen=True)
class CausalText:
    """The next token at every place of every row."""

    rows: Rows

    def __call__(self, step: int) -> list[Batch]:
        return [self._batch(torch.stack(rows)) for rows in self.rows.samples(step)]

    def _batch(self, rows: Tensor) -> Batch:  # (B, T + 1)
        layout = Layout([rows.shape[1] - 1] * len(rows))
        return Batch(rows[:, :-1].reshape(-1), layout, rows[:, 1:].reshape(-1))


@dataclass(frozen=True)
class Masking:
    """BERT's masking (Devlin et al. 2019, section 3.1), token by token.

    Of all tokens, ``rate`` are targets; of those ``replaced`` read as the mask token,
    ``shuffled`` as a random one, and the rest as themselves. ``protected`` ids are never targets.
    """

    mask_id: int
    vocab_size: int
    rate: float = 0.15
    replaced: float = 0.8
    shuffled: float = 0.1
    protected: tuple[int, ...] = ()

    def __call__(self, row: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """(T,) a row -> what is read (T,), and which places are targets (T,) bool."""
        chosen = torch.rand(row.shape, generator=draw) < self.rate
        for token in self.protected:
            chosen &= row != token
        how = torch.rand(row.shape, generator=draw)
        other = torch.randint(self.vocab_size, row.shape, generator=draw)
        read = torch.where(chosen & (how < self.replaced), self.mask_id, row)
        swapped = chosen & (how >= self.replaced) & (how < self.replaced + self.shuffled)
        return torch.where(swapped, other, read), chosen


@dataclass(frozen=True)
class MaskedText:
    """Rows with some tokens hidden, the only targets. Masks follow (seed, step)."""

    rows: Rows
    masking: Masking

    def __call__(self, step: int) -> list[Batch]:
        batches, sample = [], 0
        for rows in self.rows.samples(step):
            batches.append(self._batch(rows, step, sample))
            sample += len(rows)
        return batches

    def _batch(self, rows: list[Tensor], step: int, first: int) -> Batch:
        whole, read, chosen = [], [], []
        for sample, row in enumerate(rows, first):
            seen, places = self.masking(row[:-1], generator("mask", self.rows.seed, step, sample))
            whole.append(row[:-1])
            read.append(seen)
            chosen.append(places)
        select = torch.cat(chosen).nonzero().flatten()
        layout = Layout([self.rows.length] * len(rows))
        return Batch(torch.cat(read), layout, torch.cat(whole)[select], select)


@dataclass(frozen=True)
class Pairs:
    """Source and target id lists for an encoder-decoder; lengths differ, nothing is padded.

    The decoder reads ``start_id`` and the target, and should say the target and ``end_id``. Sources
    end with ``end_id`` too.
    """

    pairs: Sequence[tuple[list[int], list[int]]]
    start_id: int
    end_id: int
    rows: int  # pairs a step
    micro_batch: int
    seed: int = 0

    def __call__(self, step: int) -> list[Batch]:
        drawn = sample_order(self.seed, step * self.rows, self.rows, len(self.pairs))
        pairs = [self.pairs[sample] for _, sample in drawn]
        return [
            self._batch(pairs[i : i + self.micro_batch])
            for i in range(0, len(pairs), self.micro_batch)
        ]

    def _batch(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Batch:
        source, source_layout = flatten([[*source, self.end_id] for source, _ in pairs])
        tokens, layout = flatten([[self.start_id, *target] for _, target in pairs])
        targets, _ = flatten([[*target, self.end_id] for _, target in pairs])
        return Batch(tokens, layout, targets, source=source, source_layout=source_layout)

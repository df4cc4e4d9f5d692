"""What the Transformer is measured against: an LSTM language model and an LSTM encoder-decoder with
additive attention, behind the same call signatures. A state at a time: no position waits for
nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.model.heads import Heads
from tercet.model.layers import Dropout
from tercet.model.layout import Layout
from tercet.model.pick import Table

State = tuple[Tensor, Tensor]  # hidden and cell, each (layers, B, D)


class Recurrence(nn.Module):
    """A stack of LSTM layers (Hochreiter & Schmidhuber 1997) over a flat stream."""

    def __init__(self, config: TransformerConfig, n_layers: int, *, both_ways: bool) -> None:
        super().__init__()
        if both_ways and config.d_model % 2:
            raise InputError(
                f"a two-way LSTM halves d_model; {config.d_model} is odd, use {config.d_model + 1}"
            )
        width = config.d_model // 2 if both_ways else config.d_model
        dropout = config.dropout if n_layers > 1 else 0.0
        self.lstm = nn.LSTM(
            config.d_model,
            width,
            n_layers,
            batch_first=True,
            dropout=dropout,
            bidirectional=both_ways,
        )
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Tensor, layout: Layout, state: State | None = None
    ) -> tuple[Tensor, State]:
        """(N, D) -> (N, D) and the state after each sequence's last token."""
        padded = pad_sequence(layout.split(self.dropout(x)), batch_first=True)  # (B, T, D)
        packed = pack_padded_sequence(
            padded, torch.tensor(layout.lengths), batch_first=True, enforce_sorted=False
        )
        out, after = self.lstm(packed, state)
        padded, _ = pad_packed_sequence(out, batch_first=True)  # (B, T, D)
        steps = layout.positions - torch.tensor(layout.past, device=layout.device)[layout.sequence]
        return self.dropout(padded[layout.sequence, steps]), after  # (N, D)


class AdditiveAttention(nn.Module):
    """v' tanh(W q + U k) over the encoder's states (Bahdanau et al. 2015, section 3.1)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.d_model, config.d_model, bias=False)
        self.key = nn.Linear(config.d_model, config.d_model, bias=False)
        self.score = nn.Linear(config.d_model, 1, bias=False)
        self.mix = nn.Linear(2 * config.d_model, config.d_model)

    def forward(self, x: Tensor, layout: Layout, memory: Tensor, memory_layout: Layout) -> Tensor:
        mixed = []
        keys = self.key(memory)  # (N_S, D)
        for q, k, v in zip(
            layout.split(x), memory_layout.split(keys), memory_layout.split(memory), strict=True
        ):
            scores = self.score(torch.tanh(self.query(q)[:, None] + k)).squeeze(-1)  # (T, S)
            mixed.append(scores.softmax(-1) @ v)  # (T, D)
        return torch.tanh(self.mix(torch.cat([x, torch.cat(mixed)], dim=-1)))  # (N, D)


class RecurrentCache:
    """The state of each sequence, and for an encoder-decoder its memory. It rewinds to 0 alone."""

    def __init__(
        self, n_sequences: int, memory: Tensor | None, memory_layout: Layout | None
    ) -> None:
        self.lengths: tuple[int, ...] = (0,) * n_sequences
        self.state: State | None = None
        self.memory, self.memory_layout = memory, memory_layout

    def reorder(self, rows: Tensor) -> None:
        kept = rows.tolist()
        self.lengths = tuple(self.lengths[i] for i in kept)
        if self.state is not None:
            self.state = (self.state[0].index_select(1, rows), self.state[1].index_select(1, rows))
        if self.memory is not None and self.memory_layout is not None:
            parts = self.memory_layout.split(self.memory)
            self.memory = torch.cat([parts[i] for i in kept])
            self.memory_layout = Layout(
                [len(parts[i]) for i in kept], device=self.memory_layout.device
            )

    def rewind(self, lengths: tuple[int, ...] | list[int]) -> None:
        kept = [new == old for new, old in zip(lengths, self.lengths, strict=True)]
        if any(new for new, same in zip(lengths, kept, strict=True) if not same):
            raise InputError(
                "a recurrent network cannot go back a few tokens: its state forgets; "
                "begin the text again"
            )
        if self.state is not None:  # a text that begins again begins from nothing
            mask = torch.tensor(kept, device=self.state[0].device)[None, :, None]
            self.state = (self.state[0] * mask, self.state[1] * mask)
        self.lengths = tuple(lengths)


class Recurrent(nn.Module):
    """The LSTM twin of ``Transformer``: decoder alone, or encoder and decoder."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if config.family == "encoder":
            raise InputError(
                "mixer 'lstm' is for a decoder or an encoder-decoder; set decoder_layers"
            )
        self.config = config
        self.tokens = Table(config.vocab_size, config.d_model)
        self.encoder = self.across = None
        if config.encoder_layers:
            self.encoder = Recurrence(config, config.encoder_layers, both_ways=True)
            self.across = AdditiveAttention(config)
        self.decoder = Recurrence(config, config.decoder_layers, both_ways=False)
        self.heads = Heads(config)
        self.tie()

    def tie(self) -> None:
        self.heads.tie(self.tokens)

    def encode(self, tokens: Tensor, layout: Layout, types: Tensor | None = None) -> Tensor:
        if self.encoder is None:
            raise InputError(
                "this model is a decoder: it has no encoder to read with; it can generate and score"
            )
        return self.encoder(self.tokens(tokens), layout)[0]

    def decode(
        self,
        tokens: Tensor,
        layout: Layout,
        *,
        memory: Tensor | None = None,
        memory_layout: Layout | None = None,
        cache: RecurrentCache | None = None,
    ) -> Tensor:
        if cache is not None:
            memory, memory_layout = cache.memory, cache.memory_layout
        x, state = self.decoder(self.tokens(tokens), layout, None if cache is None else cache.state)
        if cache is not None:
            cache.state, cache.lengths = state, layout.totals
        if self.across is not None and memory is not None and memory_layout is not None:
            x = self.across(x, layout, memory, memory_layout)
        return x

    def new_cache(
        self,
        n_sequences: int,
        *,
        memory: Tensor | None = None,
        memory_layout: Layout | None = None,
        reordered: int = 0,
    ) -> RecurrentCache:
        """reordered: as of ``Transformer``; a state is small and is copied."""
        return RecurrentCache(n_sequences, memory, memory_layout)

    def states(
        self,
        tokens: Tensor,
        layout: Layout,
        *,
        source: Tensor | None = None,
        source_layout: Layout | None = None,
        types: Tensor | None = None,
    ) -> Tensor:
        if self.encoder is None:
            return self.decode(tokens, layout)
        if source is None or source_layout is None:
            raise InputError(
                "an encoder-decoder needs a source text beside its target; give source and "
                "source_layout"
            )
        return self.decode(
            tokens, layout, memory=self.encode(source, source_layout), memory_layout=source_layout
        )

    def logits(self, states: Tensor) -> Tensor:
        return self.heads.logits(states)

    def forward(
        self,
        tokens: Tensor,
        layout: Layout,
        *,
        source: Tensor | None = None,
        source_layout: Layout | None = None,
        types: Tensor | None = None,
        select: Tensor | None = None,
    ) -> Tensor:
        states = self.states(
            tokens, layout, source=source, source_layout=source_layout, types=types
        )
        return self.heads.logits(states if select is None else states[select])

"""What is read off the last states: tokens, pooled vectors, labels, spans."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.model.layers import Activation, Dropout, Scale, norm
from tercet.model.layout import Layout
from tercet.model.linear import Linear, linear
from tercet.model.pick import Table, pick


class Transform(nn.Module):
    """The dense layer before a masked head's output (Devlin et al. 2019, as published)."""

    def __init__(self, config: TransformerConfig, activation: str) -> None:
        super().__init__()
        self.dense = Linear(config.d_model, config.d_model, bias=config.transform_bias)
        self.activation = Activation(activation)
        self.norm = norm(config)

    def forward(self, x: Tensor) -> Tensor:  # (N, D)
        return self.norm(self.activation(self.dense(x)))


def pool(states: Tensor, layout: Layout, how: str) -> Tensor:
    """(N, D) -> (B, D): the first token ([CLS]), the mean of all, or the last."""
    if how == "first":
        return states[layout.first]
    if how == "last":
        return states[layout.last]
    if layout.equal:
        return states.unflatten(0, (layout.n_sequences, -1)).mean(1)
    totals = states.new_zeros(layout.n_sequences, states.shape[1]).index_add(
        0, layout.sequence, states
    )
    return totals / torch.tensor(layout.lengths, device=states.device, dtype=states.dtype)[:, None]


class Heads(nn.Module):
    """The heads that a configuration names; asking for another says which there are."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.names, self.how, self.tied = config.heads, config.pool, config.tie_embeddings
        width, has = config.d_model, set(config.heads)
        self.output = self.output_bias = self.pooler = None
        self.packed: nn.Module | None = None  # the output layer in a few bits
        if has & {"language", "masked"}:
            self.transform = (
                Transform(config, config.transform) if config.transform else nn.Identity()
            )
            self.scale = Scale(width**-0.5) if config.output_scale else nn.Identity()
            self.output = Linear(width, config.vocab_size, bias=False)
            self.output_bias = (
                nn.Parameter(torch.zeros(config.vocab_size)) if config.output_bias else None
            )
        if "pooler" in has:
            self.pooler = Linear(width, width, bias=config.pooler_bias)
            self.pooler_activation = Activation(config.pooler_activation)
            self.pooler_norm = norm(config) if config.pooler_norm else nn.Identity()
        self.pooler_reads = config.pool if "classifier" in has else "first"
        self.next_sentence = Linear(width, 2) if "next_sentence" in has else None
        biased = config.family != "decoder"  # theirs have none, which every folder would need
        self.classifier = (
            Linear(width, config.n_labels, bias=biased) if "classifier" in has else None
        )
        self.tagger = Linear(width, config.n_labels) if "tagger" in has else None
        self.span = Linear(width, 2) if "span" in has else None
        self.dropout = Dropout(config.head_dropout)

    def tie(self, tokens: Table) -> None:
        if self.tied and self.output is not None:
            self.output.weight = tokens.weight
            tokens.shared = True

    def _have(self, head: nn.Linear | None, name: str) -> nn.Linear:
        if head is None:
            raise InputError(
                f"this model has no {name} head; it has {', '.join(self.names) or 'none'} "
                "(its states can still be embedded)"
            )
        return head

    def logits(self, states: Tensor) -> Tensor:  # (N, D) -> (N, V)
        x, weight, bias = self.output_parts(states)
        return linear(x, weight, bias) if self.packed is None else self.packed(x)

    def picked(self, states: Tensor, select: Tensor | None) -> Tensor:
        """The rows ``select`` (n,), which differ, of (N, D); None: all."""
        return states if select is None else pick(states, select)

    def output_parts(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(N, D) -> what the output layer multiplies (N, D), its table (V, D) and bias (V,)."""
        output = self._have(self.output, "language or masked")
        return self.scale(self.transform(states)), output.weight, self.output_bias

    def pooled(
        self, states: Tensor, layout: Layout, how: str | None = None
    ) -> Tensor:  # (N, D) -> (B, D)
        return pool(states, layout, how or self.how)

    def pooler_output(self, states: Tensor, layout: Layout) -> Tensor:  # (N, D) -> (B, D)
        vectors = self.pooled(states, layout, self.pooler_reads)
        return self.pooler_norm(self.pooler_activation(self._have(self.pooler, "pooler")(vectors)))

    def next_sentence_logits(self, states: Tensor, layout: Layout) -> Tensor:  # (N, D) -> (B, 2)
        return self._have(self.next_sentence, "next_sentence")(self.pooler_output(states, layout))

    def classified(self, states: Tensor, layout: Layout) -> Tensor:  # (N, D) -> (B, D)
        """What the classifier reads."""
        if self.pooler is None:
            return self.pooled(states, layout)
        return self.pooler_output(states, layout)

    def classify(self, states: Tensor, layout: Layout) -> Tensor:  # (N, D) -> (B, labels)
        vectors = self.dropout(self.classified(states, layout))
        return self._have(self.classifier, "classifier")(vectors)

    def tag(self, states: Tensor) -> Tensor:  # (N, D) -> (N, labels)
        return self._have(self.tagger, "tagger")(self.dropout(states))

    def spans(self, states: Tensor) -> Tensor:  # (N, D) -> (N, 2): start and end
        return self._have(self.span, "span")(states)

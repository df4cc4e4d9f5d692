"""One Transformer for three families. Everything between attention layers works token by token on
(N, D).

Alphabet: N tokens, B sequences, D model, H heads, G key-value heads, K head width, F feed-forward,
V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.kernels.linear import filler
from tercet.kernels.tape import attends
from tercet.model.attention import Attention, CrossAttention, Pattern, View
from tercet.model.cache import Cache
from tercet.model.heads import Heads
from tercet.model.layers import Dropout, FeedForward, GatedFeedForward, Scale, norm
from tercet.model.layout import Layout
from tercet.model.pick import Table
from tercet.model.positions import Learned, Sinusoidal


class Skip(nn.Module):
    """A slot that holds nothing: gives back its first argument."""

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        return x


class Embedding(nn.Module):
    """Token vectors -> what the first block reads: scaled, placed, typed, normed."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.scale = Scale(config.d_model**0.5) if config.embedding_scale else nn.Identity()
        self.positions: nn.Module = Skip()
        if config.positions == "learned":
            self.positions = Learned(config.context_length, config.d_model, config.position_offset)
        if config.positions == "sinusoidal":
            self.positions = Sinusoidal(config.d_model, config.sinusoid_halves)
        self.types = (
            TokenTypes(config.token_types, config.d_model) if config.token_types else Skip()
        )
        self.norm = norm(config) if config.embedding_norm else nn.Identity()
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, layout: Layout, types: Tensor | None) -> Tensor:  # (N, D)
        x = self.types(self.positions(self.scale(x), layout), types)
        return self.dropout(self.norm(x))


class TokenTypes(nn.Embedding):
    """Which of the two texts of a pair a token belongs to (Devlin et al. 2019); type 0 when not
    told.
    """

    # type: ignore[override]  # (N, D)
    def forward(self, x: Tensor, types: Tensor | None) -> Tensor:
        return x + (self.weight[0] if types is None else super().forward(types))


class Sublayer(nn.Module):
    """One residual step, with its norm before (Xiong et al. 2020) or after (Vaswani et al.
    2017).
    """

    def __init__(self, config: TransformerConfig, layer: nn.Module, *, normed: bool = True) -> None:
        super().__init__()
        self.before = norm(config) if config.norm_order == "pre" and normed else nn.Identity()
        self.layer = layer
        self.dropout = Dropout(config.dropout)
        self.after = norm(config) if config.norm_order == "post" else nn.Identity()

    def forward(self, x: Tensor, *context: Any) -> Tensor:  # (N, D)
        return self.after(x + self.dropout(self.layer(self.before(x), *context)))


class Block(nn.Module):
    """Look around, look across (in a decoder that has an encoder), think."""

    def __init__(self, config: TransformerConfig, *, across: bool, first: bool) -> None:
        super().__init__()
        feed_forward = GatedFeedForward(config) if config.gated else FeedForward(config)
        self.attention = Sublayer(config, Attention(config), normed=config.first_norm or not first)
        self.cross = Sublayer(config, CrossAttention(config)) if across else Skip()
        self.feed_forward = Sublayer(config, feed_forward)

    def forward(
        self, x: Tensor, around: View, kept: Any, across: View | None, memory: Any
    ) -> Tensor:
        x = self.attention(x, around, kept)  # (N, D)
        x = self.cross(x, across, memory)  # (N, D)
        return self.feed_forward(x)  # (N, D)


class Stack(nn.Module):
    """An encoder or a decoder: embedding, blocks, final norm."""

    def __init__(
        self, config: TransformerConfig, n_layers: int, *, causal: bool, across: bool
    ) -> None:
        super().__init__()
        self.embedding = Embedding(config)
        local = [i in config.local_layers for i in range(n_layers)]
        kinds = sorted(set(local))
        self.patterns = nn.ModuleList(Pattern(config, causal=causal, local=kind) for kind in kinds)
        self.kind = [kinds.index(i) for i in local]  # the pattern of each layer
        self.blocks = nn.ModuleList(
            Block(config, across=across, first=i == 0) for i in range(n_layers)
        )
        self.norm = norm(config) if config.final_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        types: Tensor | None = None,
        memory: Tensor | None = None,
        memory_layout: Layout | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        x = self.embedding(x, layout, types)  # (N, D)
        views = [pattern(layout, x.dtype) for pattern in self.patterns]
        across = None
        if memory_layout is not None:
            queries = layout if cache is None else cache.queries(layout)
            across = View(queries, memory_layout, rectangular=cache is not None)
        for i, block in enumerate(self.blocks):
            kept = None if cache is None else cache.layers[i]
            source = cache.cross[i] if cache is not None and cache.cross else memory
            x = block(x, views[self.kind[i]], kept, across, source)  # (N, D)
        return self.norm(x)


class Transformer(nn.Module):
    """Encoder, decoder or both, and the heads that its configuration names.

    Ids are (N,), the tokens of all the sequences of a layout end to end; states are (N, D); logits
    (N, V).
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = Table(config.vocab_size, config.d_model)
        both = config.family == "encoder-decoder"
        self.encoder = self.decoder = None
        if config.encoder_layers:
            self.encoder = Stack(config, config.encoder_layers, causal=False, across=False)
        if config.decoder_layers:
            self.decoder = Stack(config, config.decoder_layers, causal=True, across=both)
        self.heads = Heads(config)
        self.tie()

    def tie(self) -> None:
        """Let output and input share one table where the architecture says so (again after a
        load).
        """
        self.heads.tie(self.tokens)

    def encode(self, tokens: Tensor, layout: Layout, types: Tensor | None = None) -> Tensor:
        """Encoder states (N, D). ``types``: (N,) which text of a pair each token belongs to."""
        if self.encoder is None:
            raise InputError(
                "this model is a decoder: it has no encoder to read with; it can generate and score"
            )
        return self._filled(self.encoder, tokens, layout, types)

    def _filled(
        self, stack: Stack, tokens: Tensor, layout: Layout, types: Tensor | None = None
    ) -> Tensor:
        """States (N, D) of a stack that looks at nothing else. Tokens of the stream's own fill it
        up to a round number, so that no product has to."""
        if more := filler(len(tokens), self.tokens.weight):
            types = types if types is None else torch.cat([types, types[:more]])
            x = self.tokens(torch.cat([tokens, tokens[:more]]))
            return stack(x, layout.filled(more), types)[: layout.n_tokens]
        return stack(self.tokens(tokens), layout, types)

    def decode(
        self,
        tokens: Tensor,
        layout: Layout,
        *,
        memory: Tensor | None = None,
        memory_layout: Layout | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Decoder states (N, D), after what ``cache`` holds, over the encoder's states ``memory``
        (N_S, D).
        """
        if self.decoder is None:
            raise InputError(
                "this model is an encoder: it cannot generate; it can fill, embed and attend"
            )
        if cache is None and memory_layout is None:
            return self._filled(self.decoder, tokens, layout)
        if cache is not None:
            assert cache.lengths == layout.past, (
                f"the cache holds {cache.lengths}, the layout says {layout.past}"
            )
            memory_layout = cache.memory_layout
        states = self.decoder(self.tokens(tokens), layout, None, memory, memory_layout, cache)
        if cache is not None:
            cache.lengths = layout.totals
        return states

    def new_cache(
        self,
        n_sequences: int,
        *,
        memory: Tensor | None = None,
        memory_layout: Layout | None = None,
        reordered: int = 0,
    ) -> Cache:
        """An empty cache for ``decode``; the keys of ``memory`` are computed here, once for all
        steps. reordered: its sequences will change their rows at every step, as beams do, and
        read about so many tokens in all.
        """
        assert self.decoder is not None
        can = (
            reordered
            and attends(self.tokens.weight, self.config.head_width)
            and all(pattern.buckets is None for pattern in self.decoder.patterns)
        )
        cache = Cache(n_sequences, len(self.decoder.blocks), scattered=reordered if can else 0)
        if memory is not None and memory_layout is not None:
            layers = [m for m in self.decoder.modules() if isinstance(m, CrossAttention)]
            cache.remember([layer.remember(memory) for layer in layers], memory_layout)
        return cache

    def states(
        self,
        tokens: Tensor,
        layout: Layout,
        *,
        source: Tensor | None = None,
        source_layout: Layout | None = None,
        types: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states (N, D) of the last stack; ``source`` (N_S,) is what an
        encoder-decoder reads.
        """
        if self.decoder is None:
            return self.encode(tokens, layout, types)
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
        """(N, D) -> (N, V), of the language or masked head."""
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
        """Logits (N, V), or (n, V) of the rows ``select`` alone (masked positions, say)."""
        states = self.states(
            tokens, layout, source=source, source_layout=source_layout, types=types
        )
        return self.heads.logits(self.heads.picked(states, select))

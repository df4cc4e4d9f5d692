"""Self- and cross-attention over the flat stream, with one dispatch to the kernels.

A Pattern knows how one kind of layer looks around (causal, window, positions). A View is that
pattern on the layout of one pass: it is made once and shared by all layers of the kind. ``attend``
is the only place that calls a kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tercet.config import TransformerConfig
from tercet.kernels import attention as ragged
from tercet.kernels import tape
from tercet.model.cache import LayerCache, Places, Scattered, ScatteredLayer
from tercet.model.layers import RMSNorm
from tercet.model.layout import Layout, Tile, Tiling
from tercet.model.linear import Linear, together
from tercet.model.pick import pick
from tercet.model.positions import RelativeBuckets, Rotary, Turn, rotate

Keys = Tensor | Scattered
AnyLayer = LayerCache | ScatteredLayer
FEW_QUERIES = 8  # at a sequence of a cache


class Pattern(nn.Module):
    """How one kind of layer looks around: causal or not, how far, and how it knows positions."""

    def __init__(self, config: TransformerConfig, *, causal: bool, local: bool) -> None:
        super().__init__()
        self.causal, self.window = causal, config.window if local else None
        self.rotary = self.buckets = None
        if config.positions == "rotary":
            theta = (config.rope_theta_local if local else None) or config.rope_theta
            self.rotary = Rotary(
                config.head_width, theta, config.rope_scaling, config.context_length
            )
        if config.positions == "relative":
            self.buckets = RelativeBuckets(
                config.relative_buckets, config.relative_max_distance, config.n_heads, causal=causal
            )

    def forward(self, layout: Layout, dtype: torch.dtype) -> View:
        turn = self.rotary(layout, dtype) if self.rotary else None
        keys = Layout(layout.totals, device=layout.device) if any(layout.past) else layout
        return View(
            layout,
            keys,
            self.causal,
            self.window,
            turn,
            self.buckets,
            rectangular=keys is not layout,
        )


class View:
    """A pattern on the layouts of one pass. ``rectangular``: a cache's keys, (B, G, S, K)."""

    def __init__(
        self,
        queries: Layout,
        keys: Layout,
        causal: bool = False,
        window: int | None = None,
        turn: Turn | None = None,
        buckets: RelativeBuckets | None = None,
        *,
        rectangular: bool = False,
    ) -> None:
        self.queries, self.keys = queries, keys
        self.causal, self.window, self.angles, self.buckets = causal, window, turn, buckets
        self.rectangular = rectangular
        self.masks: dict[int, tuple[Tensor | None, bool]] = {}
        self._scope: tape.Scope | None = None  # of keys in places

    @cached_property
    def tiling(self) -> Tiling:
        return Tiling(self.queries, self.keys, single=self.rectangular)

    @property
    def plain(self) -> bool:
        """Nothing but lengths, causality and a window decides who sees whom, and no cache does."""
        return not self.rectangular and self.buckets is None and not any(self.queries.past)

    def scope(self, places: Places) -> tape.Scope:
        """What each token sees of keys that lie in places."""
        if self._scope is None:
            self._scope = places.scope(self.queries, self.window)
        return self._scope

    def few(self, q: Tensor, k: Tensor, v: Tensor) -> bool:
        """Few queries at each of a cache's sequences, which see all of it: a step of a decoder that
        looks at its source. Without gradients."""
        learned = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad)
        return (
            self.rectangular
            and not (learned or self.causal or self.window or self.buckets)
            and self.queries.n_tokens <= FEW_QUERIES * self.queries.n_sequences
            and all(x.is_contiguous() and x.dtype == q.dtype for x in (k, v))
            and tape.attends(k, k.shape[-1])
        )

    @cached_property
    def everything(self) -> tape.Scope:
        """All keys of the own sequence, which are a page."""
        own = self.queries.sequence
        last = torch.tensor(self.keys.lengths)[own]
        return tape.Scope(torch.arange(self.keys.n_sequences), own, torch.zeros_like(own), last)

    def turn(self, x: Tensor) -> Tensor:  # (N, H, K)
        return x if self.angles is None else rotate(x, self.angles)

    def rectangles(self, q: Tensor, k: Tensor, v: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Streams (N, heads, K) -> a (b, heads, T, K) triple for each tile."""
        queries = self._tiles(q, self.tiling.query_rows, [t.queries for t in self.tiling.tiles])
        if self.rectangular:
            return zip(queries, [k], [v], strict=True)
        widths = [t.keys for t in self.tiling.tiles]
        keys = self._tiles(k, self.tiling.key_rows, widths)
        return zip(queries, keys, self._tiles(v, self.tiling.key_rows, widths), strict=True)

    def _tiles(self, x: Tensor, rows: Tensor | None, widths: list[int]) -> list[Tensor]:
        sizes = [
            len(t.sequences) * width for t, width in zip(self.tiling.tiles, widths, strict=True)
        ]
        if rows is not None:
            x = x.new_zeros(sum(sizes), *x.shape[1:]).index_copy(0, rows, x)
        return [
            part.unflatten(0, (-1, width)).transpose(1, 2)
            for part, width in zip(x.split(sizes), widths, strict=True)
        ]

    def stream(self, tiles: list[Tensor]) -> Tensor:
        """The (b, H, T, K) of each tile -> (N, H, K)."""
        x = torch.cat([tile.transpose(1, 2).flatten(0, 1) for tile in tiles])
        if self.tiling.query_rows is None:
            return x
        return pick(x, self.tiling.query_rows)

    def mask(self, index: int, dtype: torch.dtype) -> tuple[Tensor | None, bool]:
        """For a tile: the kernel's mask, broadcast to (b, H, T, S) or None; and its is_causal."""
        if index not in self.masks:
            self.masks[index] = self._mask(self.tiling.tiles[index], dtype)
        return self.masks[index]

    def _mask(self, tile: Tile, dtype: torch.dtype) -> tuple[Tensor | None, bool]:
        past = {self.queries.past[i] for i in tile.sequences}
        square = tile.exact and len(past) == 1
        everything = not self.causal or (tile.queries == 1 and square)
        if square and self.window is None and self.buckets is None:
            if everything:
                return None, False
            if past == {0}:
                return None, True
        rows = tile.sequences[:1] if square else tile.sequences
        before = torch.tensor([self.queries.past[i] for i in rows], device=self.queries.device)
        length = torch.tensor([self.keys.lengths[i] for i in rows], device=self.queries.device)
        query = before[:, None] + torch.arange(tile.queries, device=self.queries.device)  # (b, T)
        key = torch.arange(tile.keys, device=self.queries.device)  # (S,)
        visible = (key < length[:, None])[:, None]  # (b, 1, S)
        if self.causal:
            visible = visible & (key <= query[..., None])  # (b, T, S)
        if self.window is not None:
            visible = visible & ((key - query[..., None]).abs() < self.window)
            # a filler query beyond its sequence may see nothing; a softmax over nothing is NaN and
            # would spoil the gradients of all, so it sees key 0 and is dropped
            visible = visible | ((query >= length[:, None])[..., None] & (key == 0))
        visible = visible[:, None]  # (b, 1, T, S)
        if self.buckets is None:
            return visible, False
        bias = self.buckets(query, key.expand(len(rows), -1)).to(dtype)  # (b, H, T, S)
        return bias.masked_fill(~visible, float("-inf")), False


def attend(q: Tensor, k: Keys, v: Keys, view: View, scale: float, dropout: float) -> Tensor:
    """softmax(q k' * scale + mask) v (Vaswani et al. 2017, section 3.2).

    q (N, H, K); k and v (N_S, G, K), or a cache's (B, G, S, K); out (N, H, K).
    """
    if isinstance(k, Scattered) or isinstance(v, Scattered):
        assert isinstance(k, Scattered) and isinstance(v, Scattered) and view.buckets is None
        keys, values = k.x.unsqueeze(2), v.x.unsqueeze(2)
        return tape.attend(q.float(), keys, values, view.scope(k.places), scale).to(q.dtype)
    if not dropout and view.few(q, k, v):
        return tape.attend(q.float(), k, v, view.everything, scale).to(q.dtype)
    if view.plain and ragged.fits(q, k, v):
        starts = (view.queries.bounds, view.keys.bounds)
        how = {"scale": scale, "causal": view.causal, "window": view.window}
        return ragged.attention(q, k, v, *starts, **how, dropout=dropout)  # (N, H, K)
    tiles = []
    for i, (query, key, value) in enumerate(view.rectangles(q, k, v)):
        mask, causal = view.mask(i, q.dtype)
        grouped = query.shape[1] != key.shape[1]
        tiles.append(
            F.scaled_dot_product_attention(
                query, key, value, mask, dropout, causal, scale=scale, enable_gqa=grouped
            )  # (b, H, T, K)
        )
    return view.stream(tiles)


class Attention(nn.Module):
    """Multi-head self-attention, grouped keys (Ainslie et al. 2023), optional norms of queries and
    keys.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.width = config.n_heads, config.head_width
        inner, kv_inner = config.n_heads * config.head_width, config.kv_heads * config.head_width
        self.q = Linear(config.d_model, inner, bias=config.qkv_bias)
        self.k = Linear(config.d_model, kv_inner, bias=config.qkv_bias)
        self.v = Linear(config.d_model, kv_inner, bias=config.qkv_bias)
        self.o = Linear(inner, config.d_model, bias=config.attention_bias)
        self.q_norm = (
            RMSNorm(config.head_width, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        )
        self.k_norm = (
            RMSNorm(config.head_width, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        )
        self.scale = config.attention_scale or config.head_width**-0.5
        self.dropout = config.attention_dropout

    def project(self, x: Tensor, view: View, cache: AnyLayer | None) -> tuple[Tensor, Keys, Keys]:
        q, k, v = (y.unflatten(-1, (-1, self.width)) for y in together(x, self.q, self.k, self.v))
        q = view.turn(self.q_norm(q))  # (N, H, K)
        k = view.turn(self.k_norm(k))  # (N, G, K); v likewise
        if cache is not None:
            k, v = cache.append(k, v, view.queries)  # past and present: (B, G, S, K)
        return q, k, v

    def forward(self, x: Tensor, view: View, cache: AnyLayer | None = None) -> Tensor:  # (N, D)
        q, k, v = self.project(x, view, cache)
        out = attend(q, k, v, view, self.scale, self.dropout if self.training else 0.0)  # (N, H, K)
        return self.o(out.flatten(-2))  # (N, D)


class CrossAttention(Attention):
    """Queries of the decoder over the encoder's states. Nothing turns: sides have positions of
    their own.
    """

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(N_S, D) -> keys and values (N_S, G, K), the same for every step of the decoder."""
        k, v = (y.unflatten(-1, (-1, self.width)) for y in together(memory, self.k, self.v))
        return self.k_norm(k), v

    # type: ignore[override]
    def project(self, x: Tensor, view: View, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        k, v = memory if isinstance(memory, tuple) else self.remember(memory)
        return self.q_norm(self.q(x).unflatten(-1, (-1, self.width))), k, v


Memory = Tensor | tuple[Tensor, Tensor]  # encoder states, or the keys and values made of them


def attention_weights(network: nn.Module, call: Callable[[], Any]) -> dict[str, list[Tensor]]:
    """What each attention layer looked at while ``call`` ran: its name -> for each sequence (H, T,
    S).

    The probabilities are computed again from each layer's inputs, so that the usual pass keeps its
    fast kernels.
    """
    found: dict[str, list[Tensor]] = {}
    layers = {m: name for name, m in network.named_modules() if isinstance(m, Attention)}

    def record(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(layer, Attention)
        x, view, source = inputs
        if isinstance(source, LayerCache):
            source = source.copy()
        q, k, v = layer.project(x, view, source)
        rows: dict[int, Tensor] = {}
        for i, (query, key, _) in enumerate(view.rectangles(q, k, v)):
            scores = query @ key.repeat_interleave(layer.heads // key.shape[1], 1).transpose(-1, -2)
            mask, causal = view.mask(i, q.dtype)
            if causal:
                mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
            scores = scores * layer.scale
            if mask is not None:
                scores = (
                    scores.masked_fill(~mask, float("-inf"))
                    if mask.dtype == torch.bool
                    else scores + mask
                )
            for place, s in enumerate(view.tiling.tiles[i].sequences):
                row = scores[place, :, : view.queries.lengths[s], : view.keys.lengths[s]]
                rows[s] = row.softmax(-1)
        texts = range(view.queries.n_sequences - view.queries.n_fillers)
        found[layers[layer]] = [rows[s] for s in texts]

    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return found

"""A stack as a tape: its modules, written down once as operations on a few rows.

The parameters stay where they are, and what is trained further is run further. But from the second
short text on an encoder's float32 matrices are packed, which takes their memory again: a dozen rows
multiply a third longer without (docs/LOG.md). A single token's row waits for the memory either way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tercet.errors import InputError
from tercet.kernels import library
from tercet.kernels.packed import Packed, pack
from tercet.kernels.tape import FEW as FEW
from tercet.kernels.tape import Heads, Norm, Rows, Scope, Tape
from tercet.model.attention import Attention, CrossAttention, Pattern
from tercet.model.cache import Cache
from tercet.model.layers import FeedForward, GatedFeedForward, RMSNorm, Scale
from tercet.model.layout import Layout
from tercet.model.linear import Linear, PackedLinear
from tercet.model.positions import Learned, Sinusoidal
from tercet.model.transformer import Block, Stack, Sublayer, TokenTypes, Transformer

PACKED = 1 << 29  # bytes of matrices that are packed, at the most


class StackTape:
    """What a network's encoder computes, or its decoder over a cache, for FEW tokens or fewer."""

    def __init__(self, network: Transformer, stack: Stack, *, packed: bool = False) -> None:
        """packed: with a copy of its float32 matrices in panels."""
        self.network, self.stack, self.config = network, stack, network.config
        self.packed = packed
        self.gains = not packed and self._gains()  # from panels
        self.patterns = [p for p in stack.patterns if isinstance(p, Pattern)]
        c = self.config
        self.inner, self.kv_inner = c.n_heads * c.head_width, c.kv_heads * c.head_width
        self.tape = Tape(
            {
                "x": c.d_model,
                "states": c.d_model,
                "qkv": self.inner + 2 * self.kv_inner,
                "query": self.inner,
                "seen": self.inner,
                "inner": c.d_ff,
            }
        )
        self._embedding()
        for i, block in enumerate(self.stack.blocks):
            assert isinstance(block, Block)
            self._attention(block.attention, i)
            if isinstance(block.cross, Sublayer):
                self._cross(block.cross, i)
            self._feed_forward(block.feed_forward)
        if (last := _norm(self.stack.norm)) is not None:
            self.tape.norm("x", "states", last)
        self.out = "x" if last is None else "states"
        self.n_ops = self.tape.n_ops  # without the output layer
        heads = network.heads
        self.through = (
            stack is network.decoder
            and heads.output is not None
            and all(type(slot) is nn.Identity for slot in (heads.transform, heads.scale))
        )
        if self.through:
            self.tape.widths["logits"] = c.vocab_size
            _, weight, bias = heads.output_parts(network.tokens.weight[:0])
            layer = (weight, bias) if heads.packed is None else _parts(heads.packed)
            self.tape.product(self.out, "logits", layer)
        self.row = network.tokens.weight.new_empty(0, c.kv_heads, c.head_width)  # of keys
        self.biases: dict[tuple[int, int], Tensor] = {}
        self.head: Tape | None = None
        self.weight: Tensor | None = None

    def _embedding(self) -> None:
        embedding, tokens = self.stack.embedding, self.network.tokens.weight
        scale = embedding.scale.factor if isinstance(embedding.scale, Scale) else 1.0
        tables, positions = [(tokens, "tokens")], embedding.positions
        if isinstance(positions, Learned):
            tables.append((positions.weight[positions.offset :], "positions"))
        if isinstance(positions, Sinusoidal):
            longest = max(FEW, self.config.context_length)
            tables.append((positions.table(longest, tokens.device, tokens.dtype), "positions"))
        if isinstance(embedding.types, TokenTypes):
            tables.append((embedding.types.weight, "types"))
        self.tape.lookup("x", tables, scale=scale)
        if (norm := _norm(embedding.norm)) is not None:
            self.tape.norm("x", "x", norm)

    def _attention(self, sublayer: Sublayer, number: int) -> None:
        layer, before = sublayer.layer, _norm(sublayer.before)
        assert isinstance(layer, Attention)
        pattern = self.patterns[self.stack.kind[number]]
        self.tape.product("x", "qkv", *map(self._parts, (layer.q, layer.k, layer.v)), norm=before)
        keys = number if pattern.causal else 0  # an encoder's are wanted in their layer alone
        self._attend(layer, "qkv", keys, f"pattern {self.stack.kind[number]}")
        self._added(layer.o, "seen", sublayer)

    def _cross(self, sublayer: Sublayer, number: int) -> None:
        layer = sublayer.layer
        assert isinstance(layer, CrossAttention)
        self.tape.product("x", "query", self._parts(layer.q), norm=_norm(sublayer.before))
        self._attend(layer, "query", len(self.stack.blocks) + number, "memory", append=False)
        self._added(layer.o, "seen", sublayer)

    def _attend(
        self,
        layer: Attention,
        x: str,
        keys: int,
        scope: str,
        *,
        append: bool = True,
    ) -> None:
        c = self.config
        sizes = (c.n_heads, c.kv_heads, c.head_width, layer.scale)
        norms = (_norm(layer.q_norm), _norm(layer.k_norm))
        heads = Heads(*sizes, keys, scope, append, *norms)
        self.tape.attend(x, "seen", heads)

    def _feed_forward(self, sublayer: Sublayer) -> None:
        layer = sublayer.layer
        assert isinstance(layer, FeedForward | GatedFeedForward)
        gated = isinstance(layer, GatedFeedForward)
        up = (layer.gate, layer.up) if isinstance(layer, GatedFeedForward) else (layer.up,)
        self.tape.product(
            "x",
            "inner",
            *map(self._parts, up),
            norm=_norm(sublayer.before),
            activation=layer.activation.name,
            gated=gated,
        )
        self._added(layer.down, "inner", sublayer)

    def _added(self, layer: nn.Module, x: str, sublayer: Sublayer) -> None:
        self.tape.product(x, "x", self._parts(layer), add="x")
        if (after := _norm(sublayer.after)) is not None:
            self.tape.norm("x", "x", after)

    def _parts(self, layer: nn.Module) -> tuple[Tensor | Packed, Tensor | None]:
        weight, bias = _parts(layer)
        return (pack(weight, 32) if self.packed and isinstance(weight, Tensor) else weight), bias

    def _gains(self) -> bool:
        plain = [m.weight for m in self.stack.modules() if isinstance(m, Linear)]
        known = all(weight.dtype == torch.float32 for weight in plain)
        mine = self.stack is self.network.encoder and library("packed") is not None
        return mine and known and 0 < sum(weight.nbytes for weight in plain) <= PACKED

    # running ----------------------------------------------------------------------------------

    def encode(self, tokens: Tensor, layout: Layout) -> Tensor:
        """States (N, D) float32 of tokens (N,) that see all of their own text."""
        longest = max(layout.lengths)
        sizes = (layout.n_sequences, self.config.kv_heads, longest)
        keys = torch.empty(2, *sizes, self.config.head_width, dtype=torch.float32)
        own, texts = layout.sequence, torch.arange(layout.n_sequences)
        lengths = torch.tensor([n for n in layout.lengths for _ in range(n)])
        scopes = {}
        for kind, pattern in enumerate(self.patterns):
            last = lengths
            if pattern.window is not None:
                last = lengths.minimum(layout.positions + pattern.window)
            rows = (texts, own, layout.positions, last)
            scopes[f"pattern {kind}"] = self._scope(kind, *rows, longest)
        return self._run(tokens, longest, Rows(layout.positions, scopes, {0: (keys[0], keys[1])}))

    def decode(
        self, tokens: Tensor, layout: Layout, cache: Cache, *, logits: bool = False
    ) -> Tensor:
        """States (N, D) float32 of tokens (N,) behind a cache, which then holds them; or their
        logits (N, V), in one go where nothing stands between."""
        longest = max(layout.totals)
        layers = [layer.pages(layout, self.row) for layer in cache.layers] + cache.cross
        scopes = self._behind(*cache.pages(layout), layout.positions, longest)
        if cache.memory_layout is not None:
            source = torch.tensor(cache.owners)[layout.sequence]
            lengths = torch.tensor(cache.memory_layout.lengths)[source]
            texts = torch.arange(cache.memory_layout.n_sequences)
            scopes["memory"] = Scope(texts, source, torch.zeros_like(lengths), lengths)
        fused = logits and self.through
        told = Rows(layout.positions, scopes, dict(enumerate(layers)))
        found = self._run(tokens, longest, told, logits=fused)
        cache.lengths = layout.totals
        return self.logits(found) if logits and not fused else found

    def decode_pages(
        self, tokens: Tensor, position: Tensor, text: Tensor, pages: Tensor, store: Pages
    ) -> Tensor:
        """States (N, D) float32 of tokens (N,) at positions (N,) of texts whose pages stand from
        place ``text`` (N,) of ``pages`` on; their keys are written into the store."""
        longest = int(position.max()) + 1
        scopes = self._behind(pages, text, position, longest)
        return self._run(tokens, longest, Rows(position, scopes, dict(enumerate(store.layers))))

    def _behind(
        self, pages: Tensor, text: Tensor, position: Tensor, longest: int
    ) -> dict[str, Scope]:
        """Rows that see what stands before them, each layer as far as its window reaches."""
        last = position + 1
        return {
            f"pattern {kind}": self._scope(kind, pages, text, position, last, longest)
            for kind in range(len(self.patterns))
        }

    def _scope(
        self, kind: int, pages: Tensor, text: Tensor, position: Tensor, last: Tensor, longest: int
    ) -> Scope:
        pattern = self.patterns[kind]
        first = torch.zeros_like(position)
        if pattern.window is not None:
            first = (position - pattern.window + 1).clamp_(min=0)
        turn = None
        if pattern.rotary is not None:
            turn = pattern.rotary.table(longest, position.device, torch.float32)
        return Scope(pages, text, first, last, turn, self._bias(kind, longest))

    def _bias(self, kind: int, longest: int) -> Tensor | None:
        """(H, 2 span - 1) float32 for texts of up to ``longest`` tokens."""
        buckets, span = self.patterns[kind].buckets, 1 << (longest - 1).bit_length()
        if buckets is None:
            return None
        if (kind, span) not in self.biases:
            query, keys = torch.tensor([span - 1]), torch.arange(2 * span - 1)
            bias = buckets(query, keys)[:, 0].detach().float().contiguous()
            self.biases = {(kind, span): bias}
        return self.biases[kind, span]

    def _run(self, tokens: Tensor, longest: int, told: Rows, *, logits: bool = False) -> Tensor:
        if isinstance(positions := self.stack.embedding.positions, Learned):
            positions.check(longest)
        tokens = tokens.long().contiguous()
        told.index.update(tokens=tokens, positions=told.position)
        self.tape.run(len(tokens), told, n_ops=None if logits else self.n_ops)
        return self.tape.buffer("logits" if logits else self.out, len(tokens))

    def logits(self, states: Tensor) -> Tensor:
        """(N, D) -> (N, V) float32, for FEW rows or fewer."""
        kind = self.network.tokens.weight.dtype
        heads = self.network.heads
        x, weight, bias = heads.output_parts(states.to(kind))
        if self.head is None or self.weight is not weight:
            self.weight = weight
            self.head = Tape({"x": self.config.d_model, "logits": len(weight)})
            layer = (weight, bias) if heads.packed is None else _parts(heads.packed)
            self.head.product("x", "logits", layer)
        self.head.buffer("x", len(x)).copy_(x)
        self.head.run(len(x))
        return self.head.buffer("logits", len(x))


class Pages:
    """Room for keys and values in pages of so many tokens, as many as fit into ``memory`` bytes."""

    def __init__(self, network: Transformer, memory: int, page: int) -> None:
        if type(memory) is not int:
            raise InputError(f"memory {memory!r} must be a whole number of bytes, such as 1 << 30")
        c, dtype = network.config, network.tokens.weight.dtype
        size = 2 * c.decoder_layers * c.kv_heads * page * c.head_width * dtype.itemsize
        self.n_pages = memory // size
        if self.n_pages < 1:
            raise InputError(
                f"a memory of {memory:,} bytes holds no page of {page} tokens, which takes "
                f"{size:,}; give more"
            )
        shape = (2, c.decoder_layers, self.n_pages, c.kv_heads, page, c.head_width)
        # not zeros: the system gives a page of memory when it is first written to
        keys, values = torch.empty(shape, dtype=dtype)
        self.layers = list(zip(keys, values, strict=True))


def _parts(layer: nn.Module) -> tuple[Tensor | Packed, Tensor | None]:
    if isinstance(layer, PackedLinear):
        return layer.parts
    assert isinstance(layer, nn.Linear)
    return layer.weight, layer.bias


def _norm(module: nn.Module) -> Norm | None:
    if isinstance(module, nn.Identity):
        return None
    assert isinstance(module, RMSNorm | nn.LayerNorm)
    kind = "rms" if isinstance(module, RMSNorm) else "layer"
    return Norm(kind, module.weight, getattr(module, "bias", None), module.eps or 0.0)

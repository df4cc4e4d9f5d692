"""Floating-point operations, a multiplication and an addition each counted, as
``torch.utils.flop_counter`` counts them: matrix products and attention; norms, activations and
tables are free.

Attention is counted as the kernels compute it: every query against every key, also where a causal
mask or a window hides the key. A backward pass costs two products for each one of the forward; a
fused attention kernel computes the scores once more.
"""

from __future__ import annotations

from dataclasses import dataclass

from tercet.config import TransformerConfig
from tercet.plan.parameters import (
    Shape,
    count,
    feed_forward,
    head_widths,
    recurrence,
    self_attention,
)
from tercet.plan.workload import Extent, Workload, pairs


@dataclass(frozen=True)
class Flops:
    """Of a forward pass, and of a training step (forward and backward)."""

    forward: int = 0
    training: int = 0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.forward + other.forward, self.training + other.training)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.forward * times, self.training * times)


def of_a_pass(work: Workload) -> dict[str, Flops]:
    """Component -> cost of one pass over the workload, each of the named heads run once."""
    found: dict[str, Flops] = {}
    for extent in work.extents:
        if work.config.mixer == "lstm":
            found |= _recurrent(work, extent)
        else:
            found |= _stack(work, extent)
    n_sequences, n_tokens = work.layout.n_sequences, work.layout.n_tokens
    heads = Flops()
    for name, width in head_widths(work.config).items():
        rows = n_tokens if name in ("tagger", "span") else n_sequences
        heads += _products(rows, [(width, work.config.d_model)])
    return found | {"output": _output(work.config, work.n_targets), "heads": heads}


def of_a_token(work: Workload) -> int:
    """Forward cost of the last token of the longest sequence, everything before it in the cache.

    Generation pays it for each new token; 0 for an encoder, which has no cache.
    """
    config, total = work.config, _output(work.config, 1)
    if not config.decoder_layers:
        return 0
    keys = max(work.layout.lengths)
    memory = max(work.source.lengths) if work.source else 0
    if config.mixer == "lstm":
        total += _products(1, recurrence(config, config.decoder_layers, both_ways=False))
        if memory:
            total += _additive(config, 1, memory, memory)
        return total.forward
    layer = _products(1, self_attention(config)) + _scores(config, keys, fused=False)
    if memory:
        inner = config.n_heads * config.head_width
        layer += _products(1, [(inner, config.d_model), (config.d_model, inner)])
        layer += _scores(config, memory, fused=False)
    layer += _products(1, feed_forward(config))
    return (total + layer * config.decoder_layers).forward


def _products(rows: int, tensors: list[Shape]) -> Flops:
    """``rows`` vectors times every matrix among the shapes; backward: for inputs and weights."""
    forward = 2 * rows * count([shape for shape in tensors if len(shape) == 2])
    return Flops(forward, 3 * forward)


def _scores(config: TransformerConfig, n_pairs: int, *, fused: bool) -> Flops:
    """Queries times keys, and weights times values."""
    product = 2 * n_pairs * config.n_heads * config.head_width
    return Flops(2 * product, (7 if fused else 6) * product)


def _stack(work: Workload, extent: Extent) -> dict[str, Flops]:
    config, rows, side = work.config, extent.layout.n_tokens, extent.side
    around = _scores(config, pairs(extent.tiling.tiles), fused=fuses(work))
    found = {f"{side} attention": _products(rows, self_attention(config)) + around}
    if extent.memory is not None:
        inner, grouped = (n * config.head_width for n in (config.n_heads, config.kv_heads))
        fused = fuses(work, across=True)
        found["decoder cross-attention"] = (
            _products(rows, [(inner, config.d_model), (config.d_model, inner)])
            + _products(extent.memory.n_tokens, [(grouped, config.d_model)] * 2)
            + _scores(config, pairs(extent.across.tiles), fused=fused)
        )
    found[f"{side} feed-forward"] = _products(rows, feed_forward(config))
    return {name: flops * extent.layers for name, flops in found.items()}


def fuses(work: Workload, *, across: bool = False) -> bool:
    """Whether torch 2.13 trains this attention in one kernel on a CPU: no dropout of the weights,
    and no trained bias on the scores (relative positions, which cross-attention has not).
    """
    relative = work.config.positions == "relative" and not across
    return work.fused and not relative and not work.config.attention_dropout


def _recurrent(work: Workload, extent: Extent) -> dict[str, Flops]:
    config, both_ways = work.config, extent.side == "encoder"
    gates = recurrence(config, extent.layers, both_ways=both_ways)
    flops = _products(extent.layout.n_tokens, gates)
    # Nothing flows back into the zero state before the first token. Backwards, ragged sequences
    # begin one after the other, and only what the longest begin with is a state of zeros alone.
    lengths = extent.layout.lengths
    begins = [len(lengths), lengths.count(max(lengths))] if both_ways else [len(lengths)]
    first = 2 * sum(begins) * count(gates[1::4]) // len(begins)
    found = {f"{extent.side} recurrence": flops + Flops(0, -first)}
    if extent.memory is not None:
        n_pairs = sum(t * s for t, s in zip(lengths, extent.memory.lengths, strict=True))
        found["decoder cross-attention"] = _additive(
            config, extent.layout.n_tokens, extent.memory.n_tokens, n_pairs
        )
    return found


def _additive(config: TransformerConfig, rows: int, memory_rows: int, n_pairs: int) -> Flops:
    """Additive attention: query and mix, keys, then a score and a weighted value a pair."""
    d = config.d_model
    return (
        _products(rows, [(d, d), (d, 2 * d)])
        + _products(memory_rows, [(d, d)])
        + _products(n_pairs, [(1, d), (1, d)])
    )


def _output(config: TransformerConfig, rows: int) -> Flops:
    if not {"language", "masked"} & set(config.heads):
        return Flops()
    dense = [(config.d_model, config.d_model)] if config.transform else []
    return _products(rows, [*dense, (config.vocab_size, config.d_model)])

"""Bytes: what a training step keeps for its backward pass, and what a cache holds.

Activations are the tensors that autograd saves between forward and backward, each storage once,
parameters left out: the rules of torch 2.13 on a CPU, operation by operation, for the network in
training and the loss of ``train/objectives``. The tests hold it to the byte; on a CPU kernels of
ours keep less, and of dropout nothing. Not in it: what lives inside one operation only, autocast's
copies of the weights, and the workspace that oneDNN takes for an LSTM over equal lengths (an LSTM's
figure is good to a twentieth).
"""

from __future__ import annotations

from tercet.model.layout import Tiling
from tercet.plan.flops import fuses
from tercet.plan.parameters import head_widths
from tercet.plan.workload import Extent, Workload, key_rows, pairs, query_rows

INDEX = 8  # int64


def activations(work: Workload) -> dict[str, int]:
    """Component -> bytes kept from forward to backward by one pass over the workload."""
    found: dict[str, int] = {"embedding": 0}
    for extent in work.extents:
        if work.config.mixer == "lstm":
            found["embedding"] += extent.layout.n_tokens * INDEX
            found |= _recurrent(work, extent)
        else:
            found["embedding"] += _embedding(work, extent)
            found |= _stack(work, extent)
    return found | {"output": _output(work), "heads": _heads(work)}


def cache(work: Workload) -> dict[str, int]:
    """Component -> bytes of keys and values (or of an LSTM's states) after the whole workload was
    read in one call. Room for all sequences is as long as the longest.
    """
    config, found = work.config, {}
    if not config.decoder_layers:
        return found
    if config.mixer == "lstm":
        state = 2 * config.decoder_layers * work.layout.n_sequences * config.d_model
        found["decoder recurrence"] = state * work.itemsize
        if work.source:
            found["decoder cross-attention"] = work.source.n_tokens * config.d_model * work.itemsize
        return found
    row = 2 * config.decoder_layers * config.kv_heads * config.head_width * work.itemsize
    n = work.layout.n_sequences
    found["decoder attention"] = n * max(work.layout.lengths) * row
    if work.source:
        found["decoder cross-attention"] = n * max(work.source.lengths) * row
    return found


def capacity(prompt: int, total: int) -> int:
    """Rows for which a cache has room after reading ``prompt`` tokens at once and then, one by one,
    all up to ``total``: it doubles, so up to twice the tokens held.
    """
    rooms = prompt
    while rooms < total:
        rooms = max(2 * rooms, 64)
    return rooms


def _stack(work: Workload, extent: Extent) -> dict[str, int]:
    config, side, layers = work.config, extent.side, extent.layers
    local = {layer in config.local_layers for layer in range(layers)}
    n_local = sum(layer in config.local_layers for layer in range(layers))
    attention = n_local * _attention(work, extent, local=True)
    attention += (layers - n_local) * _attention(work, extent)
    attention += len(local) * _pattern(work, extent)
    if config.norm_order == "pre" and not config.first_norm:
        attention -= _norm(work, extent.layout.n_tokens)
    found = {f"{side} attention": attention}
    if extent.memory is not None:
        across = layers * _attention(work, extent, across=True)
        memory = extent.memory.n_tokens * config.d_model * work.itemsize
        found["decoder cross-attention"] = across + memory + _rows(extent.across)
    found[f"{side} feed-forward"] = layers * _feed_forward(work, extent.layout.n_tokens)
    if config.final_norm:
        found[f"{side} norm"] = _norm(work, extent.layout.n_tokens)
    return found


def _embedding(work: Workload, extent: Extent) -> int:
    rows, config = extent.layout.n_tokens, work.config
    found = rows * INDEX * (2 if config.positions == "learned" else 1)
    if config.embedding_norm:
        found += _norm(work, rows)
    return found + _dropout(work, rows)


def _norm(work: Workload, rows: int) -> int:
    """Its input and two statistics a row (layer); or its input, the same divided by its size, and
    one statistic (rms), which torch computes in 32 bits at least.
    """
    if work.config.norm == "rms":
        return rows * (2 * work.config.d_model + 1) * work.accurate
    return rows * (work.config.d_model + 2) * work.itemsize


def _dropout(work: Workload, rows: int) -> int:
    """The drawn factors, as wide as what they multiply."""
    return rows * work.config.d_model * work.itemsize if work.config.dropout else 0


def _branch(work: Workload, rows: int) -> int:
    """A residual step but for its layer: norm (before or after), the layer's input, dropout."""
    return _norm(work, rows) + rows * work.config.d_model * work.itemsize + _dropout(work, rows)


def _attention(work: Workload, extent: Extent, *, across: bool = False, local: bool = False) -> int:
    """One attention layer: global or local, around or across."""
    config = work.config
    tiling = extent.across if across else extent.tiling
    inner, grouped = (n * config.head_width for n in (config.n_heads, config.kv_heads))
    queries, keys = extent.layout.n_tokens, _looked_at(extent, across)
    numbers, accurate = queries * inner, 0  # the output projection's input
    if config.qk_norm:  # an RMSNorm of each head
        accurate += 2 * (queries * inner + keys * grouped)
        accurate += queries * config.n_heads + keys * config.kv_heads
    if tiling.query_rows is not None:  # ragged: rows are copied into rectangles
        numbers += queries * inner
    if tiling.key_rows is not None:
        numbers += 2 * keys * grouped
    padded_queries, padded_keys = query_rows(tiling.tiles), key_rows(tiling.tiles)
    if fuses(work, across=across):  # q, k, v and what came out; a logarithm of the sum a row
        numbers += 2 * padded_queries * inner + 2 * padded_keys * grouped
        numbers += _mask(tiling, causal=extent.causal and not across, window=local)
        accurate += padded_queries * config.n_heads
    else:  # scaled q and k, v, the probabilities; with dropout what it drew and what it left
        weights = config.n_heads * pairs(tiling.tiles) * (3 if config.attention_dropout else 1)
        accurate += (padded_queries + padded_keys) * inner + weights + _values(work, tiling)
    kept = numbers * work.itemsize + accurate * work.accurate
    return kept + _branch(work, extent.layout.n_tokens)


def _values(work: Workload, tiling: Tiling) -> int:
    """Numbers that the unfused kernel keeps of the values: a copy for each rectangle of several
    sequences, grouped heads or 16 bits; a single sequence's is a view, which keeps them all.
    """
    inner = work.config.n_heads * work.config.head_width
    if work.config.kv_heads != work.config.n_heads or work.itemsize < work.accurate:
        return key_rows(tiling.tiles) * inner
    copied = [tile for tile in tiling.tiles if len(tile.sequences) > 1]
    viewed = len(copied) < len(tiling.tiles)
    return (key_rows(copied) + (key_rows(tiling.tiles) if viewed else 0)) * inner


def _looked_at(extent: Extent, across: bool) -> int:
    """Tokens that are looked at: the memory's or one's own."""
    return extent.memory.n_tokens if across and extent.memory else extent.layout.n_tokens


def _mask(tiling: Tiling, *, causal: bool, window: bool) -> int:
    """Numbers of the mask of one layer, heads and equal rows broadcast; exact rectangles need one
    for a window alone.
    """
    found = 0
    for tile in tiling.tiles:
        sequences = 1 if tile.exact else len(tile.sequences)
        if window or not tile.exact:
            found += sequences * tile.keys * (tile.queries if causal or window else 1)
    return found


def _rows(tiling: Tiling) -> int:
    """Indices of ragged rows in their rectangles, shared by the layers of a kind."""
    return sum(
        len(rows) * INDEX for rows in (tiling.query_rows, tiling.key_rows) if rows is not None
    )


def _pattern(work: Workload, extent: Extent) -> int:
    """What all layers of a kind share: turns, buckets and the mask of a trained bias."""
    found = _rows(extent.tiling)
    if work.config.positions == "rotary":
        found += extent.layout.n_tokens * work.config.head_width * work.itemsize
    if work.config.positions == "relative":
        for tile in extent.tiling.tiles:
            sequences = 1 if tile.exact else len(tile.sequences)
            buckets = sequences * tile.queries * tile.keys
            found += buckets * INDEX + (buckets if extent.causal else sequences * tile.keys)
    return found


def _feed_forward(work: Workload, rows: int) -> int:
    config = work.config
    from_result = config.activation in ("relu", "tanh")  # their slope is read off the result
    hidden = (1 if from_result else 2) + (2 if config.gated else 0)  # and up(x), the product
    if config.activation_dropout:  # what it drew; and its result, unless that was the product
        hidden += 1 if config.gated or not from_result else 2
    return _branch(work, rows) + hidden * rows * config.d_ff * work.itemsize


def _output(work: Workload) -> int:
    """The output layer's input and the loss's log-probabilities, which are float32."""
    config, rows = work.config, work.n_targets
    if not {"language", "masked"} & set(config.heads):
        return 0
    width = rows * config.d_model * work.itemsize
    found = width + rows * config.vocab_size * 4
    if rows != work.layout.n_tokens:
        found += rows * INDEX  # which rows were selected
    if config.transform:
        found += width + _norm(work, rows)
        found += 0 if config.transform in ("relu", "tanh") else width
    return found


def _heads(work: Workload) -> int:
    """Inputs of the small heads, and the pooler's result."""
    config, names = work.config, head_widths(work.config)
    sequences, rows = work.layout.n_sequences, work.layout.n_tokens
    numbers = 2 * sequences if "pooler" in names else 0
    numbers += sequences if "classifier" in names and "pooler" not in names else 0
    numbers += rows if {"tagger", "span"} & set(names) else 0
    return numbers * config.d_model * work.itemsize


def _recurrent(work: Workload, extent: Extent) -> dict[str, int]:
    """Of each layer: its input, four gates, the cell, its tanh and the output, and the states to
    begin with; twice the rows' places, to pad and to gather.
    """
    config, rows = work.config, extent.layout.n_tokens
    width = rows * config.d_model * work.itemsize
    states = 2 * extent.layout.n_sequences * config.d_model * work.itemsize
    found = extent.layers * (8 * width + states) + 2 * rows * INDEX
    if config.dropout:  # of the input, between layers and of the output
        found += (extent.layers + 1) * width
    result = {f"{extent.side} recurrence": found}
    if extent.memory is not None:
        lengths = zip(extent.layout.lengths, extent.memory.lengths, strict=True)
        scores = sum(t * s for t, s in lengths) * (config.d_model + 1) * work.itemsize
        memory = extent.memory.n_tokens * config.d_model * work.itemsize
        result["decoder cross-attention"] = 4 * width + memory + scores
    return result

"""Span corruption (Raffel et al. 2020, section 3.1.4): which spans are dropped from a text.

The lengths are drawn as in the paper's own code (``random_spans_noise_mask``): a text begins with
what is kept and ends with what is dropped, and every way to cut kept and dropped tokens into that
many spans is equally probable.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tercet.errors import InputError
from tercet.text import Tokenizer

RATE, LENGTH = 0.15, 3.0  # of all tokens; tokens of a span on average
SENTINELS = 100


def spellings() -> tuple[str, ...]:
    """What the sentinels are called in a tokenizer that is made for this."""
    return tuple(f"<extra_id_{number}>" for number in range(SENTINELS))


def sentinels(tokenizer: Tokenizer, count: int = SENTINELS) -> tuple[int, ...]:
    """The ids that stand for dropped spans, in their order: the tokenizer's extra ids, or where it
    has none the last ids of its vocabulary, the last one first."""
    extra: list[int] = []
    while (token := tokenizer.id_of(f"<extra_id_{len(extra)}>")) is not None:
        extra.append(token)
    last = tokenizer.vocab_size
    return tuple(extra[:count] or range(last - 1, max(0, last - 1 - count), -1))


def amounts(n_tokens: int, rate: float = RATE, length: float = LENGTH) -> tuple[int, int]:
    """(tokens dropped, spans) of a text of ``n_tokens``; a text of one token keeps it."""
    if n_tokens < 2:
        return 0, 0
    dropped = min(max(round(n_tokens * rate), 1), n_tokens - 1)
    return dropped, min(max(round(dropped / length), 1), n_tokens - dropped)


def span_lengths(n_tokens: int, rate: float, length: float, draw: torch.Generator) -> list[int]:
    """Tokens kept, dropped, kept, dropped ... of a text of ``n_tokens``."""
    dropped, spans = amounts(n_tokens, rate, length)
    if not spans:
        return [n_tokens] if n_tokens else []
    gone = _cut(dropped, spans, draw)
    kept = _cut(n_tokens - dropped, spans, draw)
    return torch.stack([kept, gone], 1).flatten().tolist()


def _cut(n_items: int, n_parts: int, draw: torch.Generator) -> Tensor:
    """(n_parts,) lengths from 1 on that add up to ``n_items``; all ways are equally probable."""
    places = torch.randperm(n_items - 1, generator=draw)[: n_parts - 1].sort().values + 1
    edges = torch.cat([places.new_zeros(1), places, places.new_full((1,), n_items)])
    return edges.diff()


def corrupt(parts: Sequence[Tensor], marks: Tensor) -> tuple[Tensor, Tensor]:
    """Kept, dropped, kept, dropped ... -> the text with a mark for each dropped span, and each mark
    with what it hides.

    ``marks``: (n,) sentinel ids. Raises InputError where the text needs more of them.
    """
    n_spans = len(parts) // 2
    if n_spans > len(marks):
        raise InputError(
            f"{sum(map(len, parts))} tokens have {n_spans} spans to drop, and there are "
            f"{len(marks)} sentinels; shorten the texts or drop longer spans"
        )
    if not n_spans:
        return parts[0], parts[0][:0]
    mark = list(marks[:n_spans, None])  # one of (1,) for each span
    source = torch.cat([x for pair in zip(parts[::2], mark) for x in pair])
    target = torch.cat([x for pair in zip(mark, parts[1::2]) for x in pair])
    return source, target

"""A held-out stream as batches of windows that slide by half, each token a target once.

Every token but a document's first ones then has at least half a window before it. Knows no order
and no epochs: evaluation reads a text from its beginning to its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tercet.data import Batch
from tercet.errors import InputError
from tercet.model.layout import BATCH_TOKENS, Layout


def windows(
    tokens: Tensor,
    length: int,
    *,
    documents: Sequence[tuple[int, int]] | None = None,
    seen: int = 1,
    budget: int = BATCH_TOKENS,
) -> Iterator[Batch]:
    """The stream ``tokens`` (N,) in windows of at most ``length`` tokens, ``budget`` a batch.

    documents: the (start, stop) of each; the targets of tokens[start:stop] are
    tokens[start + 1 : stop + 1], and no window looks beyond a start. None: the stream is one.
    seen: how many tokens stand before a document's first target.
    """
    if length < 1 or seen < 1:
        raise InputError(f"windows of {length} tokens behind {seen}: both must be 1 or more")
    whole = [(0, len(tokens) - 1)] if documents is None else documents
    group: list[tuple[int, int, int]] = []
    n_tokens = 0
    for span in (span for start, stop in whole for span in _spans(start, stop, length, seen)):
        n_tokens += span[1] - span[0]
        if group and n_tokens > budget:
            yield _batch(tokens, group)
            group, n_tokens = [], span[1] - span[0]
        group.append(span)
    if group:
        yield _batch(tokens, group)


def _spans(start: int, stop: int, length: int, seen: int) -> Iterator[tuple[int, int, int]]:
    """(begin, end, first): a window tokens[begin:end], and the first of its rows that counts.

    ``last`` is the last token scored so far; the next window begins so far before it that
    ``length`` tokens reach half a window beyond it.
    """
    back = length - max(1, length // 2)
    last = start + seen - 1
    while last < stop:
        begin = max(start, last - back)
        end = min(begin + length, stop)
        yield begin, end, last - begin
        last = end


def _batch(tokens: Tensor, group: list[tuple[int, int, int]]) -> Batch:
    """The next token of each row of ``select``."""
    layout = Layout([end - begin for begin, end, _ in group], device=tokens.device)
    rows = [
        at + torch.arange(first, end - begin, device=tokens.device)
        for at, (begin, end, first) in zip(layout.starts, group)
    ]
    return Batch(
        torch.cat([tokens[begin:end] for begin, end, _ in group]),
        layout,
        torch.cat([tokens[begin + first + 1 : end + 1] for begin, end, first in group]),
        torch.cat(rows),
    )


def hidden_alone(
    texts: Sequence[Tensor], places: Sequence[tuple[int, int]], mask_id: int
) -> Iterator[Batch]:
    """For each (text, place) a copy of the text in which that token alone is hidden, and is the
    target."""
    rows = max(1, BATCH_TOKENS // max(len(text) for text in texts))  # copies a batch
    for at in range(0, len(places), rows):
        group = places[at : at + rows]
        layout = Layout([len(texts[number]) for number, _ in group], device=texts[0].device)
        tokens = torch.cat([texts[number] for number, _ in group])
        select = layout.first + torch.tensor([place for _, place in group], device=tokens.device)
        targets = tokens[select]
        yield Batch(tokens.index_fill(0, select, mask_id), layout, targets, select)

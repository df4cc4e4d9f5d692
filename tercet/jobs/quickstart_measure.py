"""Figures on held-out tokens, the same for every network."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tercet.data import Batch, MaskedText, Masking, Rows
from tercet.model import Layout, Network
from tercet.train import accuracy, cross_entropy

WINDOWS = 16  # a batch


@torch.inference_mode()
def bits_per_byte(net: Network, text: Tensor, length: int, n_bytes: int) -> float:
    """Of all tokens of the stream ``text`` (N,) but the first two, which the trigram cannot score.

    Windows of ``length`` slide by half, and each token is scored once, so that every token but the
    first has at least half a window before it.
    """
    net.eval()
    nats = sum(float(cross_entropy(net, batch)) for batch in _windows(text, length))
    return nats / math.log(2) / n_bytes


def _windows(text: Tensor, length: int) -> Iterator[Batch]:
    """The next token of each row of ``select``; every token from the third on is a target once."""
    half, last = length // 2, len(text) - 1
    spans = [(0, min(length, last), 1)]  # start, end, first row that counts
    while spans[-1][1] < last:
        end = spans[-1][1]
        spans.append((end - (length - half), min(end + half, last), length - half))
    for i in range(0, len(spans), WINDOWS):
        group = spans[i : i + WINDOWS]
        layout = Layout([end - start for start, end, _ in group])
        rows = [
            begin + torch.arange(first, end - start)
            for begin, (start, end, first) in zip(layout.starts, group)
        ]
        yield Batch(
            torch.cat([text[start:end] for start, end, _ in group]),
            layout,
            torch.cat([text[start + first + 1 : end + 1] for start, end, first in group]),
            torch.cat(rows),
        )


def top_accuracy(
    net: Network, text: Tensor, length: int, masking: Masking, *, top: int
) -> tuple[float, Tensor]:
    """The share of masked tokens among the net's ``top`` guesses, and the tokens that were masked.

    Two passes over the text with different masks.
    """
    net.eval()
    rows = Rows(text, length, min(WINDOWS, len(text) // length - 1), WINDOWS, seed=1)
    data = MaskedText(rows, masking)
    hits, targets = 0, []
    for step in range(max(1, 2 * rows.n_samples // rows.rows)):
        for batch in data(step):
            hits += accuracy(net, batch, top=top)
            targets.append(batch.targets)
    wanted = torch.cat(targets)
    return hits / len(wanted), wanted

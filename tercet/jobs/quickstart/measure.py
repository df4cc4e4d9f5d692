"""How often the quickstart's encoder guesses a masked token of the held-out text."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tercet.data import Masked, Masking, Rows, Stream, Tokens
from tercet.model import Network
from tercet.train import accuracy

WINDOWS = 16  # a batch


def tokens(text: Tensor) -> Tokens:
    """The stream ``text`` (N,) for rows that are cut from it whatever documents they fall on."""
    return Tokens([text.numpy()], np.zeros(1, np.int64))


def top_accuracy(
    net: Network, text: Tensor, length: int, masking: Masking, *, top: int
) -> tuple[float, Tensor]:
    """The share of masked tokens among the net's ``top`` guesses, and the tokens that were masked.

    Two passes over the text with different masks.
    """
    net.eval()
    rows = Rows(tokens(text), length, min(WINDOWS, len(text) // length - 1), seed=1)
    data = Stream(rows, Masked(masking, seed=1))
    hits, targets = 0, []
    for step in range(max(1, int(2 * rows.steps_per_epoch))):
        for batch in data(step):
            hits += accuracy(net, batch, top=top)
            targets.append(batch.targets)
    wanted = torch.cat(targets)
    return hits / len(wanted), wanted

"""How probable each token of a text is after those before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tercet.model import Network, batches, flatten
from tercet.text import Window

BATCH_TOKENS = 4_096
ROWS = 512  # of logits held at once: 512 x 50,257 float32 are 103 MB

Values = list[float | None]


@torch.inference_mode()
def score(
    network: Network, windows: Sequence[Window], owners: Sequence[int], lengths: Sequence[int]
) -> list[Values]:
    """Log-probabilities (natural), for each text a list of its ``lengths``; None where nothing
    stands before, or no window counts a token. owners: the text of each window."""
    device = network.tokens.weight.device
    values: list[Values] = [[None] * n for n in lengths]
    for rows in batches([len(window.ids) for window in windows], BATCH_TOKENS):
        tokens, layout = flatten([windows[i].ids for i in rows], device)
        states = network.states(tokens, layout)  # (N, D)
        found: list[float] = []
        for part, following in zip(states.split(ROWS), tokens.roll(-1).split(ROWS), strict=True):
            logs = network.logits(part).float().log_softmax(-1)  # (512, V)
            found += logs.gather(1, following[:, None])[:, 0].tolist()
        for i, start in zip(rows, layout.starts, strict=True):
            for place in windows[i].counts:
                if place:  # nothing stands before the first token
                    values[owners[i]][windows[i].positions[place]] = found[start + place - 1]
    return values

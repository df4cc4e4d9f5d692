"""Token ids in, pooled vectors out, in batches of near-equal length. Knows no text and no
policy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tercet.model import Network, batches, flatten
from tercet.model.tape import FEW, tape_of

BATCH_TOKENS = 4_096


@torch.inference_mode()
def encode(
    network: Network, texts: Sequence[Sequence[int]], pool: str, *, budget: int = BATCH_TOKENS
) -> Tensor:
    """(B, D) float32 on the CPU, in the caller's order. ``pool``: first, mean or last.

    An encoder–decoder is read by its encoder, a decoder by its last hidden states.
    """
    network.eval()
    device = network.tokens.weight.device
    read = network.states if network.encoder is None else network.encode
    tape = None if sum(map(len, texts)) > FEW else tape_of(network, network.encoder)
    vectors = torch.empty(len(texts), network.tokens.embedding_dim)
    for rows in batches([len(ids) for ids in texts], budget):
        tokens, layout = flatten([texts[i] for i in rows], device)
        states = read(tokens, layout) if tape is None else tape.encode(tokens, layout)
        pooled = network.heads.pooled(states, layout, pool)  # (b, D)
        vectors[torch.tensor(rows)] = pooled.float().cpu()
    return vectors

"""Token ids in, pooled vectors out, in batches of near-equal length. Knows no text and no
policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from tercet.model import Network, batches, flatten
from tercet.model.borrowed import borrowed
from tercet.model.evaluating import evaluating
from tercet.model.tape import FEW

GPU_TOKENS = 16_384
CORE_TOKENS = 1_024  # a batch whose (N, F) lie in the cache: 4,096 were 10 % slower (docs/LOG.md)


@torch.inference_mode()
def encode(
    network: Network, texts: Sequence[Sequence[int]], pool: str, *, budget: int | None = None
) -> Tensor:
    """(B, D) float32 on the CPU, in the caller's order. ``pool``: first, mean or last.

    An encoder–decoder is read by its encoder, a decoder by its last hidden states. budget: tokens
    of a batch, of which memory is taken; None: as suits the device.
    """
    device = network.tokens.weight.device
    if budget is None:
        budget = CORE_TOKENS * torch.get_num_threads() if device.type == "cpu" else GPU_TOKENS
    read = network.states if network.encoder is None else network.encode
    vectors = torch.empty(len(texts), network.tokens.embedding_dim)
    few = sum(map(len, texts)) <= FEW
    with ExitStack() as stack:
        tape = stack.enter_context(borrowed(network, network.encoder if few else None))
        if tape is None:  # a tape has no dropout, which saves a walk over all modules
            stack.enter_context(evaluating(network))
        for rows in batches([len(ids) for ids in texts], budget):
            tokens, layout = flatten([texts[i] for i in rows], device)
            states = read(tokens, layout) if tape is None else tape.encode(tokens, layout)
            pooled = network.heads.pooled(states, layout, pool)  # (b, D)
            vectors[torch.tensor(rows)] = pooled.float().cpu()
    return vectors

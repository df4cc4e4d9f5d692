"""The network: no files, no text, no ranks, no tokenizer."""

from __future__ import annotations

import torch

from tercet.config import TransformerConfig
from tercet.kernels.memory import SOME, keep_pages
from tercet.model.cache import Cache
from tercet.model.initialise import Undrawn, initialise
from tercet.model.layout import Layout, batches, flatten, heard
from tercet.model.recurrent import Recurrent
from tercet.model.transformer import Transformer

Network = Transformer | Recurrent

__all__ = [
    "Cache",
    "Layout",
    "Network",
    "Recurrent",
    "Transformer",
    "batches",
    "build",
    "flatten",
    "heard",
]


def build(config: TransformerConfig, seed: int | None = 0) -> Network:
    """A network of this shape, filled from ``seed``; None: shapes alone, on the meta device.

    The process then keeps some of the memory that a pass frees, for the next one: a translation
    took 12 % longer without (docs/LOG.md).
    """
    keep_pages(SOME)
    with Undrawn(), torch.device("meta"):
        network = Recurrent(config) if config.mixer == "lstm" else Transformer(config)
    if seed is not None:
        network.to_empty(device="cpu")
        network.tie()
        initialise(network, config, seed)
    return network

"""Which layer a parameter belongs to: rates that fall layer by layer, and frozen layers."""

from __future__ import annotations

from collections.abc import Callable

from tercet.config import TransformerConfig
from tercet.model import Network


def layer_of(name: str, config: TransformerConfig) -> int:
    """0: the embedding; 1, 2 ...: the blocks, an encoder's before its decoder's; then the heads and
    the last norm."""
    side, _, rest = name.partition(".")
    if rest.startswith("blocks."):
        return 1 + int(rest.split(".")[1]) + (config.encoder_layers if side == "decoder" else 0)
    if side == "tokens" or rest.startswith(("embedding.", "patterns.")):
        return 0
    return config.n_layers + 1


def share_of(config: TransformerConfig, decay: float) -> Callable[[str], float]:
    """Of the learning rate, that a parameter gets: all of it in the heads, ``decay`` of that in the
    last block, ``decay`` squared in the one before (Clark et al. 2020, appendix B)."""
    return lambda name: decay ** (config.n_layers + 1 - layer_of(name, config))


def freeze(network: Network, layers: int) -> None:
    """The embedding and so many of the lowest blocks learn nothing."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(layer_of(name, network.config) > layers)

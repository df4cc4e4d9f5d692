"""Linear layers in 8 or 4 bits, for inference alone."""

from __future__ import annotations

from tercet.kernels.packed import pack
from tercet.model.linear import Linear, PackedLinear
from tercet.model.transformer import Transformer


def quantise(network: Transformer, bits: int) -> None:
    """Puts packed layers in the place of those inside the blocks, and of the output layer; token
    table, norms and small heads stay as they are."""
    for stack in (network.encoder, network.decoder):
        for parent in [] if stack is None else list(stack.blocks.modules()):
            for name, layer in list(parent.named_children()):
                if type(layer) is Linear:
                    setattr(parent, name, PackedLinear(pack(layer.weight, bits), layer.bias))
    heads = network.heads
    if heads.output is not None:
        heads.packed = PackedLinear(pack(heads.output.weight, bits), heads.output_bias)

"""Linear layers in 8 or 4 bits, for inference alone."""

from __future__ import annotations

import torch

from tercet.kernels import features
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


NATIVE = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "int8": {"avx512_vnni"},
    "int4": {"avx512_vnni"},
}


def emulated(precision: str) -> bool:
    """Whether this processor computes in ``precision`` by way of others, which is slow. Where the
    system does not say what it can do, torch is asked, which knows of bfloat16 alone."""
    if known := features():
        return precision in NATIVE and not known & NATIVE[precision]
    return precision == "bfloat16" and not _torch_multiplies_bfloat16()


def _torch_multiplies_bfloat16() -> bool:
    """By oneDNN; True where torch was built without it."""
    able = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return able is None or able()

"""Linear layers in 8 or 4 bits, for inference alone."""

from __future__ import annotations

from torch import Tensor, nn

from tercet.kernels.packed import pack, product
from tercet.model.linear import Linear
from tercet.model.transformer import Transformer


class PackedLinear(nn.Module):
    """x W' + b with W in ``bits``; the bias stays float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None, bits: int) -> None:
        super().__init__()
        self.packed = pack(weight, bits)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float().contiguous())

    def forward(self, x: Tensor) -> Tensor:  # (N, D) -> (N, M)
        return product(x, self.packed, self.bias)

    def extra_repr(self) -> str:
        return f"{self.packed.inputs}, {self.packed.outputs}, bits={self.packed.bits}"


def quantise(network: Transformer, bits: int) -> None:
    """Puts packed layers in the place of those inside the blocks, and of the output layer; token
    table, norms and small heads stay as they are."""
    for stack in (network.encoder, network.decoder):
        for parent in [] if stack is None else list(stack.blocks.modules()):
            for name, layer in list(parent.named_children()):
                if type(layer) is Linear:
                    setattr(parent, name, PackedLinear(layer.weight, layer.bias, bits))
    heads = network.heads
    if heads.output is not None:
        heads.packed = PackedLinear(heads.output.weight, heads.output_bias, bits)

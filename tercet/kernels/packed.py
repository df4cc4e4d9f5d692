"""Weights in panels, for packed.c and tape.c: float32 as they are, or rounded to 8 or 4 bits.

int8: a scale an output. int4: a bfloat16 scale for 32 inputs of an output. A row of inputs becomes
8 bits with one scale when it is multiplied, sums are whole numbers. What it stands for is
``Packed.unpacked``; products differ from those of that matrix by the rounding of the rows alone.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.errors import InputError
from tercet.kernels import library
from tercet.kernels.tape import Part, Product, Weights, number

BITS = {32: 2, 8: 3, 4: 4}  # -> ``enum kind`` of packed.h
WIDE, GROUP = 64, 32


@dataclass(frozen=True)
class Packed:
    """A matrix (outputs, inputs) in so many bits.

    scales: of 8 bits (outputs,) float32; of 4 (outputs / 64, inputs / 32, 64) bfloat16; of 32 the
    matrix itself, of which ``data`` is a copy.
    """

    bits: int
    outputs: int
    inputs: int
    data: Tensor  # (bytes,) uint8
    scales: Tensor

    def weights(self, bias: int | None = None) -> Weights:
        """For C; ``bias``: where the float32 bias lies."""
        sizes = (_wide(self.inputs, self.bits), _up(self.outputs, WIDE))
        return Weights(self.data.data_ptr(), self.scales.data_ptr(), bias, *sizes, BITS[self.bits])

    def unpacked(self) -> Tensor:
        """(outputs, inputs) float32: what the bits stand for."""
        out = torch.empty(self.outputs, self.inputs, dtype=torch.float32)
        sizes = c_int64(self.outputs), c_int64(self.inputs)
        _kernels().packed_unpack(c_void_p(out.data_ptr()), *sizes, ctypes.byref(self.weights()))
        return out


def pack(weight: Tensor, bits: int) -> Packed:
    """weight (outputs, inputs) in 32, 8 or 4 bits. Raises InputError where no compiler is."""
    weight = weight.detach().float().contiguous()
    outputs, inputs = weight.shape
    wide = _wide(inputs, bits) * _up(outputs, WIDE)
    scales = weight if bits == 32 else torch.zeros(_up(outputs, WIDE), dtype=torch.float32)
    if bits == 4:
        scales = torch.zeros(wide // GROUP, dtype=torch.bfloat16)
    packed = Packed(bits, outputs, inputs, torch.zeros(wide * bits // 8, dtype=torch.uint8), scales)
    sizes = c_int64(outputs), c_int64(inputs)
    _kernels().packed_pack(c_void_p(weight.data_ptr()), *sizes, ctypes.byref(packed.weights()))
    return packed


def product(
    x: Tensor,
    *layers: tuple[Packed, Tensor | None],
    activation: str | None = None,
    gated: bool = False,
) -> Tensor:
    """act(x W' + b) of up to three (W, b) side by side, x (N, inputs) -> (N, outputs of all), of
    x's type; gated: of two, act(first) second."""
    (packed, _), *_ = layers
    if x.device.type != "cpu" or packed.data.device.type != "cpu":
        raise InputError(f"weights of {packed.bits} bits are for the CPU; load bfloat16 for a GPU")
    given, x = x.dtype, x.float()
    x = x if x.stride(1) == 1 else x.contiguous()
    width = packed.outputs if gated else sum(layer.outputs for layer, _ in layers)
    y = torch.empty(len(x), width, dtype=torch.float32)
    if len(x):
        places = (x.data_ptr(), None, y.data_ptr(), x.stride(0), y.stride(0), packed.inputs)
        op = Product(*places, activation=number(activation), gated=gated)
        kept = [None if b is None else b.detach().float().contiguous() for _, b in layers]
        for i, ((part, _), b) in enumerate(zip(layers, kept, strict=True)):
            op.parts[i] = Part(part.weights(None if b is None else b.data_ptr()), part.outputs)
        threads = torch.get_num_threads()
        if not _kernels().packed_product(ctypes.byref(op), c_int64(len(x)), threads):
            raise MemoryError("a product had no memory for its scratch")
    return y.to(given)


def _kernels() -> ctypes.CDLL:
    found = library("packed")
    if found is None:
        raise InputError("int8 and int4 need a C compiler (cc); install one, or use bfloat16")
    return found


def _wide(inputs: int, bits: int) -> int:
    return inputs if bits == 32 else _up(inputs, GROUP)


def _up(n: int, to: int) -> int:
    return -(-n // to) * to

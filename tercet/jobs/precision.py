"""In which numbers a run computes."""

from __future__ import annotations

import torch

from tercet.kernels.processor import outrun

IN_FLOAT32 = (
    "train.bfloat16: on this processor products in bfloat16 are slower than in float32 (measured: "
    "a sixtieth of the speed with AVX2 alone, half of it on an Intel Xeon whose AMX was hidden); "
    "the run computes in float32"
)


def in_bfloat16(wanted: bool, device: torch.device | str) -> bool:
    """Whether products are taken in bfloat16: where that is wanted, and not the slower way."""
    return wanted and not (torch.device(device).type == "cpu" and outrun("bfloat16"))

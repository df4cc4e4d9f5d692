"""In which numbers a run computes."""

from __future__ import annotations

import torch

from tercet.kernels.processor import emulated

IN_FLOAT32 = (
    "train.bfloat16: this processor has no products in bfloat16, and to imitate them is slow (with "
    "AVX2 a sixtieth of the speed was measured); the run computes in float32"
)


def in_bfloat16(wanted: bool, device: torch.device | str) -> bool:
    """Whether products are taken in bfloat16: where that is wanted, and not only imitated."""
    return wanted and not (torch.device(device).type == "cpu" and emulated("bfloat16"))

"""What this machine's processor can do."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch

NATIVE = {  # what multiplies them, in the system's words
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


def outrun(precision: str) -> bool:
    """Whether float32 multiplies many rows faster than ``precision`` does here.

    Where it is emulated; and bfloat16 on Intel's processors of 2023 and later (those with
    avx512_fp16) where system or hypervisor hides their AMX: 88 GFLOP/s a core, float32 165.
    """
    known = features()
    hidden = "avx512_fp16" in known and "amx_bf16" not in known and _vendor() == "GenuineIntel"
    return emulated(precision) or (precision == "bfloat16" and hidden)


def _torch_multiplies_bfloat16() -> bool:
    """By oneDNN; True where torch was built without it."""
    able = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return able is None or able()


def signature() -> str:
    """What -march=native looks at: the model and its flags."""
    lines = _cpuinfo().splitlines()
    known = "\n".join(x for x in lines if x.startswith(("model name", "flags", "Features")))
    return known or platform.machine() + platform.processor()


@cache
def features() -> frozenset[str]:
    """What the processor can do, in the system's words ("avx512_bf16"); empty where unknown."""
    lines = [x for x in _cpuinfo().splitlines() if x.startswith(("flags", "Features"))]
    return frozenset(" ".join(line.partition(":")[2] for line in lines).split())


@cache
def _vendor() -> str:
    lines = (line.partition(":") for line in _cpuinfo().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "vendor_id"), "")


@cache
def _cpuinfo() -> str:
    """Of the first core."""
    try:
        return Path("/proc/cpuinfo").read_text("utf-8").split("\n\n")[0]
    except OSError:
        return ""

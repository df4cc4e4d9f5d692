"""How the process keeps its memory: tensors of a pass reuse the pages of the pass before."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h of glibc
ALL, SOME = 2**31 - 1, 256 << 20
PIECE = 32 << 20  # the largest threshold that glibc takes

_kept = 0


def give_back() -> None:
    """Return to the system what is free: after a step that was too large, before a smaller one."""
    gc.collect()
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def keep_pages(most: int = ALL) -> bool:
    """Ask glibc to keep so many free bytes, and never fewer than it was asked for before. True
    where it listened; elsewhere, and where the environment speaks of malloc, nothing is done.

    A large tensor's memory is otherwise new from the kernel each time, page by page: 64 MiB took
    26 ms, ten times as long as writing them. ALL: the process stays as large as it once was. Less:
    tensors above PIECE are still the system's; other threads than the first keep up to 64 MiB more.
    """
    global _kept
    told = any(name.startswith("MALLOC_") for name in os.environ)
    if told or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if most <= _kept or not sys.platform.startswith("linux"):
        return most <= _kept
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library
    pieces = (M_MMAP_MAX, 0) if most == ALL else (M_MMAP_THRESHOLD, PIECE)
    if mallopt(*pieces) and mallopt(M_TRIM_THRESHOLD, most):
        _kept = most
    return most <= _kept

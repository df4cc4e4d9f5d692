"""How the process keeps its memory: tensors of a step reuse the pages of the step before."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc


def give_back() -> None:
    """Return to the system what is free: after a step that was too large, before a smaller one."""
    gc.collect()
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


@cache
def keep_pages() -> bool:
    """Ask glibc, once, to keep all memory. True where it listened; elsewhere nothing is done.

    A large tensor's memory is otherwise new from the kernel each time, page by page: 64 MiB took
    26 ms, ten times as long as writing them. The process then stays as large as it once was.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False  # another C library
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))

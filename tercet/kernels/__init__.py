"""Small C files where torch leaves much of the processor unused, compiled at first use.

Each kernel has its torch twin, which is taken where there is no compiler (or where the
environment says TERCET_KERNELS=0), and which the tests hold it to. The libraries lie in the user's
cache under a hash of source, flags, processor and compiler; nothing is ever loaded from elsewhere.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tercet.kernels.processor import signature

HERE = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-shared", "-fPIC")
PATIENCE = 120  # seconds for a compiler


@cache
def library(name: str) -> ctypes.CDLL | None:
    """``kernels/<name>.c``, compiled for this machine; None (said once, in a line) where not."""
    if os.environ.get("TERCET_KERNELS") == "0" or sys.platform == "win32":
        return None
    compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
    if compiler is None:
        _say("there is no C compiler")
        return None
    try:
        return ctypes.CDLL(str(_built(name, compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        told = str(getattr(error, "stderr", None) or error).strip().splitlines()
        _say(f"{compiler} cannot make them ({told[-1] if told else 'it does not say why'})")
        return None


@cache
def _say(why: str) -> None:
    """Once, and beside what a command prints for another program."""
    said = f"Tercet's kernels are off: {why}; torch's own are used, which are slower."
    print(said, file=sys.stderr)


def _built(name: str, compiler: str) -> Path:
    source = (HERE / f"{name}.c").read_text("utf-8")
    shared = [header.read_text("utf-8") for header in sorted(HERE.glob("*.h"))]
    key = repr((source, shared, FLAGS, signature(), compiler))
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    target = _folder() / f"{name}-{digest}.so"
    if not target.exists():
        # beside its place and then renamed: two processes may build at once
        with tempfile.TemporaryDirectory(dir=target.parent) as draft:
            made = Path(draft) / target.name
            call = [compiler, *FLAGS, str(HERE / f"{name}.c"), "-o", str(made), "-lm"]
            subprocess.run(call, check=True, capture_output=True, text=True, timeout=PATIENCE)
            made.replace(target)
    return target


def _folder() -> Path:
    """The user's cache, or a folder of this process alone where nobody may write there."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "tercet" / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return _own_folder()


@cache
def _own_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tercet-kernels-"))

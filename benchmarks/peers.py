"""An environment for each peer, made when it is first needed: peers want different versions of the
same packages.

``benchmarks/peers/NAME.txt`` lists what the peer needs; its environment lies in
``benchmarks/peers/.environments/NAME``, or in the folder that TERCET_PEERS names. CORE is the
environment that the benchmarks are started in.

    python benchmarks/peers.py            # all of them, and what became of each
    python benchmarks/peers.py onnx       # one
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

CORE = "core"
LISTS = Path(__file__).parent / "peers"
STAMP = "tercet-installed"  # a copy of the list that was installed


class Absent(Exception):
    """Why a side cannot run on this machine."""


def python(name: str) -> str:
    """The Python of an environment. Raises Absent where it cannot be made."""
    if name == CORE:
        return sys.executable
    why = _made(name)
    if why:
        raise Absent(f"the environment {name} cannot be installed: {why}")
    return str(_folder(name) / "bin" / "python")


def _folder(name: str) -> Path:
    return Path(os.environ.get("TERCET_PEERS") or LISTS / ".environments").absolute() / name


@cache  # a failure is not tried again at every turn
def _made(name: str) -> str:
    """Makes the environment where it is missing or its list has changed; "" or why it failed."""
    wanted, folder = LISTS / f"{name}.txt", _folder(name)
    stamp = folder / STAMP
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return ""
    print(f"installing {wanted.name} into {folder} ...", file=sys.stderr)
    inside = str(folder / "bin" / "python")
    for command in (
        ["-m", "venv", "--clear", "--without-pip", str(folder)],
        ["-m", "pip", "--python", inside, "install", "--quiet", "--requirement", str(wanted)],
    ):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
            return next((line for line in said if line.startswith("ERROR")), said[-1])
    stamp.write_text(wanted.read_text())
    return ""


if __name__ == "__main__":
    for asked in sys.argv[1:] or sorted(file.stem for file in LISTS.glob("*.txt")):
        try:
            print(asked, python(asked))
        except Absent as problem:
            print(asked, problem)

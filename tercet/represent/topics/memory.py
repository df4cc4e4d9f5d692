"""What topics need of the machine's memory, said before they are looked for.

Measured with /usr/bin/time on 10,000 to 100,000 texts; a little more than that is asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tercet.errors import InputError
from tercet.represent.topics.settings import TopicSettings
from tercet.represent.topics.vectors import IN_MEMORY

LIBRARIES = 450 << 20  # numba with what it compiles, umap-learn, scikit-learn, blocks of distances
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size_of(said: str) -> int:
    """Bytes of "4G", "512M" or "1.5GiB"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", said, re.IGNORECASE)
    if not match:
        raise InputError(f"{said!r} is no size of memory; write 4G or 512M")
    return int(float(match[1]) * UNITS[match[2].upper()])


def held() -> int:
    """Bytes that the process holds now; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * 4096


def a_text(settings: TopicSettings, characters: float, width: int) -> int:
    """Bytes for each text: its reduced vector twice, its neighbours' graph and what the layout
    keeps of each edge, its words."""
    edges = 2 * settings.neighbours
    reduced = 2 * 4 * min(settings.components, width)
    return int(reduced + 110 * edges + 60 * settings.dimensions + 1_000 + 3 * characters)


@dataclass(frozen=True)
class Load:
    """What is to be held: so many different texts, of so many characters in all, with vectors of
    this width. whole: they do not come as a stream, and lie in memory side by side."""

    texts: int
    characters: int
    width: int
    whole: bool = False


def check(limit: int, settings: TopicSettings, load: Load) -> None:
    """Raises InputError where so many texts will not fit into ``limit`` bytes, with what would."""
    n = load.texts
    fixed = held() + LIBRARIES + min(IN_MEMORY, 4 * n * load.width)
    each = a_text(settings, load.characters / max(1, n), load.width)
    each += 4 * load.width * load.whole
    if fixed + each * n <= limit:
        return
    fit = max(0, limit - fixed) // each
    fewer = f"{fit:,} of such texts would fit" if fit >= 2 else "no number of texts would fit"
    raise InputError(
        f"{n:,} texts need about {_said(fixed + each * n)} of memory, and max_ram is "
        f"{_said(limit)}; {fewer}: take a sample, give more, or fewer neighbours "
        f"({settings.neighbours}) and components ({settings.components})"
    )


def _said(size: int) -> str:
    return f"{size / (1 << 30):.2f}G"

"""Where data lies: files, folders, globs, standard input, hub data sets; and how far it is read.

A source is named by a string: a path (each kind also packed, `.gz`), a folder, a glob, "-" for
standard input, or "hub:owner/name" (also "hub:owner/name/configuration:split") for a data set of
the Hugging Face hub. Knows nothing of what the files hold.
"""

from __future__ import annotations

import difflib
import glob
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tercet.errors import InputError
from tercet.text.read import STDIN

HUB = "hub:"
TEXTS = (".txt", ".md")
TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
Names = str | Path | Sequence[str | Path]


@dataclass
class Tally:
    """What a reading has met so far: for a progress bar, and for the manifest.

    skipped      reason -> how many documents
    within       bytes read of the present file (of the packed file for `.gz`)
    finished     bytes of the files before it
    """

    skipped: Counter[str] = field(default_factory=Counter)
    within: int = 0
    finished: int = 0

    @property
    def bytes_read(self) -> int:
        return self.finished + self.within

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Around the reading of one file."""
        yield
        self.finished += size_of(name) or 0
        self.within = 0


def found(names: Names, *, also: tuple[str, ...] = ()) -> list[str]:
    """Every file meant by some names, once each: folders recursively and globs, both sorted.

    A folder gives its files of the known kinds, hidden ones left out; a file that is named may have
    any ending, and is plain text if the ending says nothing else. Raises InputError for what is not
    there, and where nothing is named or found. also: further endings that are looked for.
    """
    files: dict[str, None] = {}
    for name in [names] if isinstance(names, str | Path) else names:
        files |= dict.fromkeys(_found(str(name), also))
    if not files:
        raise InputError("no file is named; give a file, a folder, or - for standard input")
    return list(files)


def _found(name: str, also: tuple[str, ...]) -> list[str]:
    path = Path(name)
    if name == STDIN or name.startswith(HUB) or path.is_file():
        return [name]
    if path.is_dir():
        inside = sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix())
        known = [
            str(file)
            for file in inside
            if (kind_of(file) or file.name.removesuffix(".gz").endswith(also))
            and _plain_file(file, path)
        ]
        if not known:
            kinds = " ".join((*TEXTS, *TABLES, *also))
            raise InputError(f"{name}: a folder without any file of {kinds} (or .gz); name files")
        return known
    matches = sorted(match for match in glob.glob(name, recursive=True) if Path(match).is_file())
    if not matches:
        raise InputError(f"{name}: no such file; check the name, or give - for standard input")
    return matches


def _plain_file(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden


def kind_of(name: str | Path) -> str:
    """The known ending of a file, without `.gz`: ".txt", ".csv" ...; "" where it says nothing."""
    endings = Path(str(name).lower().removesuffix(".gz")).suffix
    return endings if endings in (*TEXTS, *TABLES) else ""


def is_table(name: str) -> bool:
    """Whether a source has rows with columns, rather than plain text."""
    return name.startswith(HUB) or (name != STDIN and kind_of(name) in TABLES)


def size_of(name: str) -> int | None:
    """Bytes of a file, or None where nobody knows: standard input and the hub."""
    known = name != STDIN and not name.startswith(HUB)
    return Path(name).stat().st_size if known else None


def nearest(name: str, names: Collection[str]) -> str:
    """The remedy for a name that is not there: the nearest one, or all of them."""
    lowered = {known.lower(): known for known in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1)
    if near:
        return f"did you mean {lowered[near[0]]!r}?"
    return f"there are {', '.join(names)}" if names else "there are none"

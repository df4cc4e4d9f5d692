"""What a corpus is made of: sources, and the texts that they give, each for training or validation.

The split is decided by the text alone (a hash of it), so that neither the order of the documents
nor the number of files moves one to the other side. Knows no tokens and writes nothing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tercet.data.documents import Document, documents, text_pairs
from tercet.data.sources import Tally, found, size_of
from tercet.errors import InputError


@dataclass(frozen=True)
class Texts:
    """Documents for language modelling; the fields are those of `documents`."""

    files: tuple[str, ...]
    split: str = "file"
    column: str = "text"

    def named(self) -> list[str]:
        return found(self.files)

    def documents(self, tally: Tally) -> Iterator[Document]:
        return documents(self.files, split=self.split, column=self.column, tally=tally)


@dataclass(frozen=True)
class Pairs:
    """Texts and their translations; the fields are those of `text_pairs`."""

    source: str
    target: str
    files: tuple[str, ...] = ()

    def named(self) -> list[str]:
        return found(self.files or (self.source, self.target))


@dataclass(frozen=True)
class Tail:
    """The last `share` of every document (of its characters) for validation, cut to the character:
    for a corpus that is one long text, and to compare with figures for such a cut."""

    share: float


@dataclass(frozen=True)
class Source:
    """One part of a corpus, and what of it is kept for validation.

    validation    a share of the documents, by a hash of the text: of its first 262,144 characters
                  if it is longer, of a pair its source side, so that a repeated text stays on one
                  side; or the tail of every document; or texts of their own; 0 for none
    """

    read: Texts | Pairs
    validation: float | Tail | Texts | Pairs = 0.05

    def __post_init__(self) -> None:
        share = self.validation.share if isinstance(self.validation, Tail) else self.validation
        if isinstance(share, float | int) and not 0 <= share < 1:
            raise InputError(f"validation {share} must be a share from 0 to below 1, such as 0.05")
        if isinstance(self.validation, Tail) and isinstance(self.read, Pairs):
            raise InputError("a pair of texts has no tail; give a share of the pairs, or files")
        if isinstance(self.validation, Texts | Pairs):
            if not isinstance(self.validation, type(self.read)):
                raise InputError("validation files must be of the same kind, texts or pairs")

    @property
    def held_out_files(self) -> Texts | Pairs | None:
        return self.validation if isinstance(self.validation, Texts | Pairs) else None

    def named(self) -> list[str]:
        """Every file that is read, those for validation last."""
        own = self.held_out_files
        return [*self.read.named(), *(own.named() if own else [])]

    def n_bytes(self) -> int | None:
        """What `Tally.bytes_read` comes to at the end, or None where nobody knows."""
        reads = [self.read, *([self.held_out_files] if self.held_out_files else [])]
        counted = [
            [read.source] if isinstance(read, Pairs) and not read.files else read.named()
            for read in reads
        ]
        sizes = [size_of(name) for names in counted for name in names]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def described(self) -> dict[str, Any]:
        """The settings as plain values, and each file with its checksum: equal, if the texts are.

        Reads every file once (a gigabyte a second or so).
        """
        how = self.validation
        return {
            "read": asdict(self.read),
            "validation": how if isinstance(how, float | int) else asdict(how),
            "files": [
                {"name": name, "bytes": size_of(name), "sha256": checksum_of(name)}
                for name in self.named()
            ],
        }


def checksum_of(name: str) -> str | None:
    """SHA-256 of a file; None for what can be read only once or is far away."""
    if size_of(name) is None:
        return None
    with Path(name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Item(NamedTuple):
    """A document, or a part of a longer one, on its way into the corpus.

    begins      whether a document begins here; else it goes on
    held_out    whether it is for validation
    target      whether it is the second text of a pair
    digest      SHA-256 of the text
    """

    text: str
    begins: bool
    held_out: bool
    target: bool
    file: str
    number: int
    n_bytes: int
    digest: bytes


def items(source: Source, tally: Tally) -> Iterator[Item]:
    """Everything that a source gives, in order; of a pair the source and then the target.

    Raises InputError as the readers do, and for a text that is no Unicode, with its place.
    """
    if isinstance(source.validation, Tail) and isinstance(source.read, Texts):
        yield from _with_tails(source.read, source.validation.share, tally)
        return
    share = source.validation if isinstance(source.validation, float | int) else 0.0
    yield from _all_of(source.read, share, tally)
    if source.held_out_files:
        yield from _all_of(source.held_out_files, 1.0, tally)


def _all_of(read: Texts | Pairs, share: float, tally: Tally) -> Iterator[Item]:
    if isinstance(read, Texts):
        held_out = False
        for document in read.documents(tally):
            place = (document.source, document.number)
            data, digest = _encoded(document.text, *place)
            held_out = held_out if document.part else falls_out(digest, share)
            begins = document.part == 0
            yield Item(document.text, begins, held_out, False, *place, len(data), digest)
        return
    for pair in text_pairs(read.source, read.target, files=read.files, tally=tally):
        place = (pair.file, pair.number)
        data, digest = _encoded(pair.source, *place)
        held_out = falls_out(digest, share)
        yield Item(pair.source, True, held_out, False, *place, len(data), digest)
        data, digest = _encoded(pair.target, *place)
        yield Item(pair.target, True, held_out, True, *place, len(data), digest)


def _with_tails(read: Texts, share: float, tally: Tally) -> Iterator[Item]:
    """Each document up to its tail, and the tail. The texts are read twice: once for lengths."""
    lengths: dict[tuple[str, int], int] = defaultdict(int)
    for document in read.documents(Tally()):
        lengths[document.source, document.number] += len(document.text)
    done = 0
    for document in read.documents(tally):
        place = (document.source, document.number)
        done = done if document.part else 0
        cut = int(lengths[place] * (1 - share)) - done
        done += len(document.text)
        head, tail = document.text[: max(0, cut)], document.text[max(0, cut) :]
        for text, begins, held_out in ((head, document.part == 0, False), (tail, cut >= 0, True)):
            if text:
                data, digest = _encoded(text, *place)
                yield Item(text, begins, held_out, False, *place, len(data), digest)


def _encoded(text: str, file: str, number: int) -> tuple[bytes, bytes]:
    """A text in UTF-8, and its digest."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{file}, document {number}: has half a surrogate pair, {text[error.start]!r}, at"
            f" character {error.start}; clean the text"
        ) from error
    return data, hashlib.sha256(data).digest()


def falls_out(digest: bytes, share: float) -> bool:
    """Whether a text with this digest is among the share that is for validation."""
    return int.from_bytes(digest[:8]) < share * 2**64

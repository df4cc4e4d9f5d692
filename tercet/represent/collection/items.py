"""What goes into a collection, and what became of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from tercet.errors import InputError
from tercet.represent.collection.rows import KINDS, OWN
from tercet.text import CutReport


@dataclass(frozen=True)
class Item:
    """A document to add. name: adding another text under it replaces this one; "" is no name."""

    text: str
    name: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Added:
    """Passages. embedded: computed now. known: their vectors were here. removed: of documents that
    have changed. duplicates: the same text twice in a document, or without a name. cut: what the
    model did not read. recall@10 of the vectors' index, where there is one."""

    documents: int = 0
    embedded: int = 0
    known: int = 0
    removed: int = 0
    duplicates: int = 0
    cut: CutReport = field(default_factory=CutReport)
    recall: float | None = None


def check(item: Item) -> None:
    if not isinstance(item.text, str):
        raise InputError(f"a text must be a string, not {item.text!r} ({type(item.text).__name__})")
    if not isinstance(item.name, str):
        raise InputError(f"a document's name must be a string, not {item.name!r}")
    for name, value in item.metadata.items():
        taken = name in (*OWN, "vector", "score") or str(name).startswith("_")
        if taken or not str(name).isidentifier():
            raise InputError(f"metadata {name!r}: choose another name, of letters, digits and _")
        large = type(value) is int and abs(value) >= 1 << 63
        if large or (value is not None and type(value) not in KINDS):
            raise InputError(
                f"metadata {name!r} is {value!r} ({type(value).__name__}); give texts, numbers, "
                "or true and false"
            )


def hashed(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{len(part)} ".encode() + part.encode())
    return digest.hexdigest()

"""manifest.json: what a prepared corpus holds, how it was made, and the checksums to hold it to.

Plain data, written and read back; a manifest that says nothing of time or machine, so that the
same texts give the same one. Knows no tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tercet.errors import InputError, undamaged
from tercet.files import written

MANIFEST = "manifest.json"
FORMAT = 1
SPLITS = ("train", "validation")
TALKS, CHOICES = "conversations", "preferences"  # kinds
SHARES = (0, 5, 25, 50, 75, 95, 99, 100)  # per cent of the documents


@dataclass(frozen=True)
class Shard:
    """A file of tokens; of an index, `tokens` are its rows, a row a document."""

    file: str
    tokens: int
    sha256: str


@dataclass(frozen=True)
class SplitFacts:
    """One split of one source.

    tokens       in the stream, separators included
    characters   of the texts; bytes: of the texts in UTF-8 (for bits a byte)
    unknown      tokens that stand for what the vocabulary lacks
    lengths      "document", or "source" and "target" -> per cent -> tokens: so many per cent of the
                 documents have at most so many tokens, separators not counted
    """

    documents: int
    tokens: int
    characters: int
    bytes: int
    unknown: int
    lengths: dict[str, dict[str, int]]
    index: Shard
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class SourceFacts:
    """skipped: reason -> documents (or pairs) that were left out."""

    skipped: dict[str, int]
    train: SplitFacts
    validation: SplitFacts


@dataclass(frozen=True)
class Manifest:
    """kind: "text", or "pairs", where documents alternate source, target; "conversations", or
    "preferences", where they alternate chosen, rejected: see instructions.py.

    settings    what the corpus was made from: tokenizer, files with their checksums, splitting
    """

    kind: str
    tokenizer_hash: str
    vocab_size: int
    separator: int | None
    settings: dict[str, Any]
    sources: dict[str, SourceFacts]

    @property
    def marked(self) -> bool:
        """Whether a number says, beside the token, whether it is learned."""
        return self.kind in (TALKS, CHOICES)

    @property
    def numbers(self) -> int:
        """How many there can be in a shard: tokens, or tokens that are learned and not."""
        return self.vocab_size * (2 if self.marked else 1)

    def write(self, folder: Path) -> None:
        plain = {"format": FORMAT, **asdict(self)}
        with written(folder / MANIFEST) as beside:
            text = json.dumps(plain, indent=1, ensure_ascii=False)
            beside.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises InputError where there is none, for a damaged one, and for another format."""
        path = folder / MANIFEST
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: not JSON ({error}); prepare the data anew") from error
        except OSError as error:
            raise InputError(
                f"{folder}: no prepared data ({MANIFEST}: {error.strerror}); name a folder that"
                " 'tercet data prepare' made"
            ) from error
        with undamaged(path):
            if plain["format"] != FORMAT:
                raise InputError(
                    f"{path}: has format {plain['format']!r}, and this Tercet reads {FORMAT};"
                    " prepare the data anew"
                )
            del plain["format"]
            sources = plain.pop("sources")
            return cls(**plain, sources={name: _source(facts) for name, facts in sources.items()})


def _source(plain: Mapping[str, Any]) -> SourceFacts:
    splits = {}
    for name in SPLITS:
        facts = dict(plain[name])
        index, shards = Shard(**facts.pop("index")), facts.pop("shards")
        splits[name] = SplitFacts(
            **facts, index=index, shards=tuple(Shard(**shard) for shard in shards)
        )
    return SourceFacts(dict(plain["skipped"]), **splits)


def sealed(path: Path, tokens: int) -> Shard:
    """A finished file with its checksum."""
    with path.open("rb") as file:
        return Shard(path.name, tokens, hashlib.file_digest(file, "sha256").hexdigest())


def check_seal(folder: Path, shard: Shard) -> None:
    """Raises InputError, naming the file, where it is not the one that was sealed."""
    if sealed(folder / shard.file, shard.tokens) != shard:
        raise InputError(
            f"{folder / shard.file}: was altered, its checksum is not the manifest's; copy it anew,"
            " or prepare the data anew"
        )


def quantiles(lengths: np.ndarray) -> dict[str, int]:
    """Per cent -> the length that so many per cent of the documents do not exceed."""
    if not len(lengths):
        return {}
    found = np.percentile(lengths, SHARES, method="inverted_cdf")
    return {str(share): int(length) for share, length in zip(SHARES, found)}


def differences(new: Any, old: Any, name: str = "") -> list[str]:
    """Where two settings differ, as "split: 'line' (was 'file')"."""
    if isinstance(new, dict) and isinstance(old, dict):
        keys = dict.fromkeys([*new, *old])
        below = [differences(new.get(k), old.get(k), f"{name}.{k}" if name else k) for k in keys]
        return [line for lines in below for line in lines]
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [
            line
            for number, pair in enumerate(zip(new, old))
            for line in differences(*pair, f"{name}.{number}")
        ]
    return [] if new == old else [f"{name}: {new!r} (was {old!r})"]

"""Conversations, or pairs of answers, as a corpus: compiled once, every token with whether it is
learned.

A number in a shard is twice the token, and one more where it is learned. Of pairs of answers the
documents alternate, chosen and rejected. What stands behind the last answer teaches nothing and is
not kept; what is longer than the length is left out or cut, and counted. Knows no network.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tercet.data.compiled import compiled, stretches
from tercet.data.conversations import Conversation, Preference, conversations
from tercet.data.corpus import TOKENIZER, Corpus
from tercet.data.items import checksum_of, falls_out
from tercet.data.manifest import (
    CHOICES,
    MANIFEST,
    SPLITS,
    TALKS,
    Manifest,
    SourceFacts,
    SplitFacts,
    quantiles,
)
from tercet.data.preparation import Progress
from tercet.data.prepare import NAME
from tercet.data.shards import token_type
from tercet.data.sources import found, size_of
from tercet.data.writer import Writer, Written
from tercet.errors import InputError
from tercet.text.chat import ChatTemplate, Compiled

SHOWN = 64  # rows between two words of progress


@dataclass(frozen=True)
class Instructions:
    """One source of conversations.

    validation    a share of them, by a hash of what comes before the first answer, so that two
                  answers to one question stay on one side; or files of their own
    form          how the files are read; None: known by the columns
    """

    files: tuple[str, ...]
    validation: float | tuple[str, ...] = 0.05
    form: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.validation, float | int) and not 0 <= self.validation < 1:
            raise InputError(
                f"validation {self.validation} must be a share from 0 to below 1, such as 0.05"
            )

    def described(self) -> dict[str, Any]:
        """The settings as plain values, and each file with its checksum."""
        own = () if isinstance(self.validation, float | int) else self.validation
        names = [name for files in (self.files, own) if files for name in _named(files)]
        return {
            "read": {"files": list(self.files), "form": self.form},
            "validation": self.validation if isinstance(self.validation, float | int) else [*own],
            "files": [
                {"name": name, "bytes": size_of(name), "sha256": checksum_of(name)}
                for name in names
            ],
        }


@dataclass(frozen=True)
class Limit:
    """Tokens of a conversation at the most; of a longer one all is left out, its start is kept, or
    it is an error."""

    length: int
    overflow: str = "leave-out"


class _Split:
    """One split of a source on its way to the disk, and what is known of it."""

    def __init__(self, folder: Path, name: str, template: ChatTemplate) -> None:
        kind = token_type(2 * template.tokenizer.vocab_size)
        self._writer, self._template = Writer(folder, name, kind, Written()), template
        self.lengths: list[int] = []
        self.learned = 0
        self.ends: set[int] = set()

    def add(self, kept: Sequence[Compiled], origin: tuple[int, int], text: str) -> None:
        """A conversation, or both answers to one, that was made from `text`."""
        self._writer.add([_numbers(one) for one in kept], [origin] * len(kept))
        self._writer.written.characters += len(text)
        self._writer.written.bytes += len(text.encode())
        self.lengths += [len(one.ids) for one in kept]
        self.learned += sum(sum(one.mask) for one in kept)
        ends = (self._template.end_of(ids) for one in kept for ids in stretches(one))
        self.ends.update(end for end in ends if end is not None)

    def facts(self) -> SplitFacts:
        """Of the whole, which is sealed."""
        self._writer.commit()
        self._writer.close()
        index, shards = self._writer.seal()
        lengths = {"document": quantiles(np.array(self.lengths, np.int64))}
        written = asdict(self._writer.written)
        return SplitFacts(**written, lengths=lengths, index=index, shards=shards)


def prepare_instructions(
    folder: Path,
    sources: dict[str, Instructions],
    template: ChatTemplate,
    limit: Limit,
    *,
    pairs: bool,
    progress: Progress | None = None,
) -> Corpus:
    """Compile sources into `folder`, with the template's tokenizer. pairs: of answers, of which one
    was preferred.

    Raises InputError, with file and line, for what the readers, `ChatTemplate.compile` and `check`
    refuse; for a file of the other kind, two answers with the same tokens, a source of which
    nothing is left, and a folder with another corpus.
    """
    kind = CHOICES if pairs else TALKS
    if odd := [name for name in sources if not NAME.fullmatch(name)]:
        raise InputError(f"source {odd[0]!r} must be named by letters, digits, - and _")
    settings: dict[str, Any] = {"template": template.hash, **asdict(limit)}
    settings["sources"] = {name: source.described() for name, source in sources.items()}
    if (folder / MANIFEST).exists():
        raise InputError(f"{folder}: holds a corpus already; remove it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = template.signed
    tokenizer.save(folder / TOKENIZER)
    facts, learned, ends = {}, {}, set[int]()
    for name, source in sources.items():
        splits = {s: _Split(folder, f"{name}.{s}", template) for s in SPLITS}
        skipped = Counter[str]()
        for said, share, origin in _rows(source, pairs):
            kept = _kept(said, template, limit, skipped)
            if kept:
                split = splits["validation" if _held_out(said[0], share) else "train"]
                split.add(kept, origin, "".join(m.content for one in said for m in one.messages))
            if progress is not None and origin[1] % SHOWN == 1:
                n_tokens = sum(sum(split.lengths) for split in splits.values())
                progress(f"compiling {name}", origin[1], None, n_tokens)
        if not splits["train"].lengths:
            why = "; ".join(f"{n:,} {reason}" for reason, n in skipped.items())
            raise InputError(
                f"data.{name}: nothing is left to learn from ({why or 'all is for validation'}); "
                "give more rows, a greater length or a smaller share to validation"
            )
        ends |= splits["train"].ends | splits["validation"].ends
        learned[name] = {name: split.learned for name, split in splits.items()}
        written = {name: split.facts() for name, split in splits.items()}
        facts[name] = SourceFacts(dict(sorted(skipped.items())), **written)
    if not any(of.validation.documents for of in facts.values()):
        raise InputError(
            f"nothing of {', '.join(sources)} is for validation; give data.validation a larger "
            "share, or files"
        )
    settings |= {"learned": learned, "ends": sorted(ends)}
    manifest = Manifest(kind, tokenizer.hash, tokenizer.vocab_size, None, settings, facts)
    manifest.write(folder)
    return Corpus.open(folder, talks=True)


def _rows(
    source: Instructions, pairs: bool
) -> Iterator[tuple[Sequence[Conversation], float, tuple[int, int]]]:
    """Each conversation, or both answers to one; the share of such for validation; and where it
    stands, the number of the file and that of the row in it, from 1."""
    files: list[tuple[str, float]] = []
    if isinstance(source.validation, float | int):
        files += [(name, source.validation) for name in _named(source.files)]
    else:
        files += [(name, 0.0) for name in _named(source.files)]
        files += [(name, 1.0) for name in _named(source.validation)]
    for number, (name, share) in enumerate(files):
        read = conversations([name], form=source.form)
        if bool(read.preferences) != pairs:
            wanted = "pairs of answers (chosen, rejected)" if pairs else "conversations"
            other = "instruct" if pairs else "prefer"
            raise InputError(
                f"{name}: holds {read}, and objective.kind {'prefer' if pairs else 'instruct'!r} "
                f"reads {wanted}; take kind {other!r}, or other files"
            )
        for row_number, row in enumerate(read.rows, 1):
            said = row.both if isinstance(row, Preference) else (row,)
            yield said, share, (number, row_number)


def _named(files: Sequence[str]) -> list[str]:
    return found(list(files), also=(".json",))


def _held_out(row: Conversation, share: float) -> bool:
    asked = [(m.role, m.content) for m in row.messages]
    first = next(i for i, (role, _) in enumerate(asked) if role == "assistant")
    return falls_out(hashlib.sha256(json.dumps(asked[:first]).encode()).digest(), share)


def _kept(
    said: Sequence[Conversation], template: ChatTemplate, limit: Limit, skipped: Counter[str]
) -> list[Compiled]:
    """A conversation, or two answers to one, within the limit; nothing where it is left out."""
    whole = [_trimmed(one) for one in compiled(said, template)]
    what, where = "conversations", said[0].where.removesuffix(", chosen")
    if len(whole) == 2:
        what, whole = "pairs of answers", _apart(whole[0], whole[1], where)
    longest = max(len(one.ids) for one in whole)
    if longest <= limit.length:
        return whole
    if limit.overflow == "error":
        raise InputError(
            f"{where}: has {longest:,} tokens, more than the length of {limit.length:,}; shorten "
            "it, raise objective.length, or set objective.overflow to leave-out or keep-start"
        )
    cut = [Compiled(ids[: limit.length], mask[: limit.length]) for ids, mask in whole]
    alike = len(cut) == 2 and cut[0].ids == cut[1].ids  # what tells them apart was cut away
    if limit.overflow == "leave-out" or alike or not all(any(mask) for _, mask in cut):
        skipped[f"{what} longer than {limit.length:,} tokens"] += 1
        return []
    skipped[f"ends of {what} beyond {limit.length:,} tokens"] += 1
    return cut


def _trimmed(one: Compiled) -> Compiled:
    """Up to the end of its last answer. What is first in a text follows nothing: not learned."""
    stop = len(one.mask) - one.mask[::-1].index(True)
    return Compiled(one.ids[:stop], [False, *one.mask[1:stop]])


def _apart(first: Compiled, second: Compiled, where: str) -> list[Compiled]:
    """Two answers without those before them, which they share."""
    if first.ids == second.ids:
        raise InputError(
            f"{where}: chosen and rejected have the same tokens under this template; leave it out"
        )
    unlike = (i for i, (a, b) in enumerate(zip(first.ids, second.ids)) if a != b)
    same = next(unlike, min(len(first.ids), len(second.ids)))
    while same and first.mask[same - 1]:
        same -= 1
    return [Compiled(ids, [False] * same + mask[same:]) for ids, mask in (first, second)]


def _numbers(one: Compiled) -> list[int]:
    return [2 * token + learned for token, learned in zip(one.ids, one.mask, strict=True)]

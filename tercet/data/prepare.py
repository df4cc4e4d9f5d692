"""From texts to a corpus: `prepare` reads, splits, tokenises, and writes the manifest last.

What is read stands in `items.py`, how it survives a kill in `preparation.py`, what comes of it in
`corpus.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tercet.data.corpus import TOKENIZER, UNFINISHED, Corpus
from tercet.data.documents import slices
from tercet.data.items import Pairs, Source, Tail, Texts, items
from tercet.data.manifest import (
    MANIFEST,
    SPLITS,
    Manifest,
    SourceFacts,
    SplitFacts,
    differences,
    quantiles,
)
from tercet.data.preparation import Preparation, Progress, State
from tercet.data.shards import INDEX, mapped
from tercet.data.sources import Tally
from tercet.errors import InputError
from tercet.files import locked
from tercet.text import Special, Tokenizer, train_tokenizer
from tercet.text.read import STDIN
from tercet.text.train import Kind

__all__ = ["Corpus", "Learn", "Pairs", "Source", "Tail", "Texts", "prepare"]

LEARNED = 1 << 14  # characters: the library learns from 256 pieces at a time, 100 bytes each
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Learn:
    """A tokenizer to be learned from the training texts themselves; fields of `train_tokenizer`."""

    kind: Kind = "bpe"
    vocab_size: int = 8192
    special: str | Special = "decoder"
    lowercase: bool = False


def prepare(
    folder: Path | str,
    sources: Mapping[str, Source],
    tokenizer: Tokenizer | Learn,
    *,
    progress: Progress | None = None,
) -> Corpus:
    """Tokenise sources into `folder`, and open the corpus.

    A text's documents stand behind the tokenizer's end-of-text token, if it has one; a special
    token that is spelled out in a text becomes that token. Of pairs the source is tokenised by
    the tokenizer and the target by its `target`; neither gets special tokens.

    The same call goes on where it was interrupted, or starts anew where files or settings have
    changed since; it does nothing where the corpus is whole.
    Memory: at most some 150 bytes for each character of two batches, 80 MB for each core and 20 MB,
    whatever the size of the files; at the end 16 bytes for each document; and while a tokenizer is
    learned what `train_tokenizer` says.
    Raises InputError for a corpus or a split without documents, for a folder with a corpus made
    from other texts or settings (named), and for what the readers refuse.
    """
    folder = Path(folder)
    kind = _kind(sources)
    settings = _settings(sources, tokenizer)
    with locked(folder):
        state = _state(folder, settings, sources)
        if state is not None:
            tell = progress or _silent
            ready = _tokenizer(folder, tokenizer, sources, state, tell)
            separator = ready.eos_id if kind == "text" else None
            work = Preparation(folder, ready, separator, state, tell)
            work.save()
            for name, source in sources.items():
                work.tokenise(name, source)
            tell("checksums", 0, None, work.tokens)
            _manifest(work, kind, sources, settings).write(folder)
        (folder / UNFINISHED).unlink(missing_ok=True)
    return Corpus.open(folder)


def _kind(sources: Mapping[str, Source]) -> str:
    """ "text" or "pairs". Raises InputError for a mixture, and for names that make no file name."""
    for name in sources:
        if not NAME.fullmatch(name):
            raise InputError(f"source {name!r} must be named by letters, digits, - and _")
    kinds = {"text" if isinstance(source.read, Texts) else "pairs" for source in sources.values()}
    if len(kinds) != 1:
        found = "both" if kinds else "neither"
        raise InputError(f"a corpus has sources of texts or of pairs, and this has {found}")
    return kinds.pop()


def _settings(sources: Mapping[str, Source], tokenizer: Tokenizer | Learn) -> dict[str, Any]:
    """What decides the bytes of a corpus, as JSON gives it back."""
    learned = isinstance(tokenizer, Learn)
    for source in sources.values():
        if STDIN in source.named() and (learned or isinstance(source.validation, Tail)):
            why = "a tokenizer to learn" if learned else "the tail of a text"
            raise InputError(f"standard input is read once, and {why} needs twice; save it first")
    plain = {
        "tokenizer": asdict(tokenizer) if learned else {"hash": tokenizer.hash},
        "sources": {name: source.described() for name, source in sources.items()},
    }
    return json.loads(json.dumps(plain))


def _state(folder: Path, settings: dict[str, Any], sources: Mapping[str, Source]) -> State | None:
    """How far an interrupted run came, a fresh start, or None where the corpus is whole."""
    for path in folder.glob(f".{Path(UNFINISHED).stem}.*"):  # left by a kill while it was written
        path.unlink()
    if (folder / MANIFEST).exists():
        changed = differences(settings, Manifest.read(folder).settings)
        if any(STDIN in source.named() for source in sources.values()):
            changed.append("standard input, which cannot be compared")
        if changed:
            raise InputError(
                f"{folder}: holds data prepared otherwise ({'; '.join(changed[:3])}); choose"
                " another folder, or remove it"
            )
        return None
    fresh = {"settings": settings, "tokenizer": None, "sources": {}}
    try:
        old = json.loads((folder / UNFINISHED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return fresh
    if old["settings"] == settings:
        return old
    for name in old["sources"]:  # text or settings were mended: nothing of it can be used
        for split in SPLITS:
            for path in folder.glob(f"{name}.{split}.*"):
                path.unlink()
    return fresh


def _tokenizer(
    folder: Path,
    tokenizer: Tokenizer | Learn,
    sources: Mapping[str, Source],
    state: State,
    progress: Progress,
) -> Tokenizer:
    """The tokenizer, as given, learned now, or learned in the interrupted run; kept in `folder`."""
    place = folder / TOKENIZER
    if isinstance(tokenizer, Learn) and state["tokenizer"] is not None:
        found = Tokenizer.load(place)
        if found.hash != state["tokenizer"]:
            raise InputError(f"{place}: was altered; remove {folder} and start anew")
        return found
    if isinstance(tokenizer, Learn):
        tokenizer = train_tokenizer(
            _to_learn_from(sources, progress),
            kind=tokenizer.kind,
            vocab_size=tokenizer.vocab_size,
            special=tokenizer.special,
            lowercase=tokenizer.lowercase,
        )
    tokenizer.save(place)
    state["tokenizer"] = tokenizer.hash
    return tokenizer


def _to_learn_from(sources: Mapping[str, Source], progress: Progress) -> Iterator[str]:
    """The texts for training; of those for validation a tokenizer learns nothing."""
    for name, source in sources.items():
        tally, total = Tally(), source.n_bytes()
        for item in items(source, tally):
            if not item.held_out:
                yield from slices(item.text, LEARNED)
                progress(f"learning a tokenizer from {name}", tally.bytes_read, total, 0)


def _manifest(
    work: Preparation, kind: str, sources: Mapping[str, Source], settings: dict[str, Any]
) -> Manifest:
    """What was written, with checksums. Raises InputError where a split has no documents."""
    for name, source in sources.items():
        _check_documents(name, source, work.state["sources"][name])
    facts = {
        name: SourceFacts(
            work.state["sources"][name]["skipped"],
            **{split: _facts(work, kind, name, split) for split in SPLITS},
        )
        for name in sources
    }
    return Manifest(kind, work.tokenizer.hash, work.vocab_size, work.separator, settings, facts)


def _check_documents(name: str, source: Source, state: State) -> None:
    train, validation = (state[split]["documents"] for split in SPLITS)
    if not train + validation:
        left_out = ", ".join(f"{n:,} {why}" for why, n in state["skipped"].items()) or "none"
        raise InputError(
            f"{', '.join(source.named()[:3])}: no text to prepare (skipped documents: {left_out});"
            " give files with text"
        )
    if not train or (not validation and source.validation != 0):
        none = "validation" if train else "training"
        raise InputError(
            f"source {name!r}: of {train + validation:,} documents none is for {none}; cut the text"
            " into more of them (split), choose another share, the tail of each document, or files"
            " of their own"
        )


def _facts(work: Preparation, kind: str, name: str, split: str) -> SplitFacts:
    writer = work.writer(name, split)
    writer.close()
    index, shards = writer.seal()
    starts = mapped(writer.index_path, INDEX, index.tokens)["start"]
    behind = 0 if work.separator is None else 1
    lengths = np.diff(starts, append=max(0, writer.written.tokens - behind)) - behind
    sides = {"document": lengths}
    if kind == "pairs":
        sides = {"source": lengths[::2], "target": lengths[1::2]}
    return SplitFacts(
        **asdict(writer.written),
        lengths={side: quantiles(of_side) for side, of_side in sides.items()},
        index=index,
        shards=shards,
    )


def _silent(stage: str, done: int, total: int | None, tokens: int) -> None:
    """No progress wanted."""

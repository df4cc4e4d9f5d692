"""The tokenising of a corpus's sources into its folder, a batch at a time, through interruptions.

Texts are read, tokenised while the next batch is read, and appended to the shards of their split.
Every `COMMIT` characters all files are on the disk, and preparing.json says how far they are: a
run that was killed cuts them back to that place, reads on from there, and ends with the same
bytes as one that was not. Knows neither settings nor the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from tercet.data.corpus import UNFINISHED
from tercet.data.items import Item, Source, items
from tercet.data.manifest import SPLITS
from tercet.data.shards import token_type
from tercet.data.sources import Tally
from tercet.data.writer import Writer, Written
from tercet.errors import InputError
from tercet.files import written
from tercet.text import Tokenizer

BATCH = 1 << 18  # characters for each core
BATCH_TEXTS = 1 << 12  # short texts at most for each core
COMMIT = 1 << 24  # characters between two commits: some seconds of work

# (what is being done, bytes done, bytes in all or None, tokens so far)
Progress = Callable[[str, int, int | None, int], None]
State = dict[str, Any]


class Preparation:
    """The work on one folder. `state` is what preparing.json holds: for each source how many items
    are written, the chained hash of their texts, and how far its splits are."""

    def __init__(
        self,
        folder: Path,
        tokenizer: Tokenizer,
        separator: int | None,
        state: State,
        progress: Progress,
    ) -> None:
        self.folder, self.state, self.progress = folder, state, progress
        self.tokenizer, self.separator = tokenizer, separator
        self.vocab_size = max(tokenizer.vocab_size, tokenizer.target.vocab_size)
        self.unknown = (tokenizer.unk_id, tokenizer.target.unk_id)
        splits = [of[split] for of in state["sources"].values() for split in SPLITS]
        self.tokens = sum(split.get("tokens", 0) for split in splits)  # to be shown

    def save(self) -> None:
        with written(self.folder / UNFINISHED) as beside:
            beside.write_text(json.dumps(self.state), encoding="utf-8")

    def writer(self, name: str, split: str) -> Writer:
        so_far = Written(**self.state["sources"][name][split])
        return Writer(self.folder, f"{name}.{split}", token_type(self.vocab_size), so_far)

    # Tokenising one source

    def tokenise(self, name: str, source: Source) -> None:
        """All the source's items that are not written yet."""
        fresh = {"items": 0, "chain": "", "skipped": None, "train": {}, "validation": {}}
        state = self.state["sources"].setdefault(name, fresh)
        if state["skipped"] is not None:  # it was finished in the interrupted run
            return
        tally, total = Tally(), source.n_bytes()
        files = {file: number for number, file in enumerate(source.named())}
        with ExitStack() as closing:
            writers = {split: self.writer(name, split) for split in SPLITS}
            for writer in writers.values():
                closing.callback(writer.close)
            uncommitted = 0
            self.progress(name, 0, total, self.tokens)
            chain = bytes.fromhex(state["chain"])
            for batch, ids in self._encoded(self._unwritten(name, items(source, tally))):
                for split, writer in writers.items():
                    self._put(writer, files, *_of(split, batch, ids))
                for item in batch:
                    chain = _linked(chain, item)
                    uncommitted += len(item.text)
                state["items"] += len(batch)
                if uncommitted >= COMMIT:
                    state["chain"] = chain.hex()
                    self._commit(name, writers)
                    uncommitted = 0
                self.progress(name, tally.bytes_read, total, self.tokens)
            for writer in writers.values():
                if self.separator is not None and writer.written.documents:
                    writer.add([[self.separator]], [None])
            state["chain"] = chain.hex()
            state["skipped"] = dict(sorted(tally.skipped.items()))
            self._commit(name, writers)

    def _unwritten(self, name: str, found: Iterator[Item]) -> Iterator[Item]:
        """What follows the items that the interrupted run wrote, if those are still the same."""
        state = self.state["sources"][name]
        chain, count = b"", 0
        for item in islice(found, state["items"]):
            chain, count = _linked(chain, item), count + 1
        if (chain.hex(), count) != (state["chain"], state["items"]):
            raise InputError(
                f"the texts of {name!r} are not those of the interrupted run; remove {self.folder}"
                " and start anew"
            )
        yield from found

    def _encoded(self, found: Iterator[Item]) -> Iterator[tuple[list[Item], list[list[int]]]]:
        """Batches with their ids; while one is tokenised, the next is read."""
        with ThreadPoolExecutor(1) as pool:
            under_way: tuple[list[Item], Future[list[list[int]]]] | None = None
            for batch in _batches(found):
                before, under_way = under_way, (batch, pool.submit(self._encode, batch))
                if before is not None:
                    yield before[0], before[1].result()
            if under_way is not None:
                yield under_way[0], under_way[1].result()

    def _encode(self, batch: list[Item]) -> list[list[int]]:
        targets = [item.target for item in batch]
        if self.tokenizer.target is self.tokenizer or not any(targets):
            return self.tokenizer.encode_batch([item.text for item in batch], False)
        ids: list[list[int]] = [[]] * len(batch)
        for target, tokenizer in ((False, self.tokenizer), (True, self.tokenizer.target)):
            places = [place for place, item in enumerate(batch) if item.target == target]
            found = tokenizer.encode_batch([batch[place].text for place in places], False)
            for place, tokens in zip(places, found):
                ids[place] = tokens
        return ids

    def _put(
        self, writer: Writer, files: Mapping[str, int], batch: list[Item], ids: list[list[int]]
    ) -> None:
        """Texts of one split to its shards, the separator before each that begins a document."""
        if self.separator is not None:
            ids = [[self.separator, *of] if item.begins else of for item, of in zip(batch, ids)]
        origins = [(files[item.file], item.number) if item.begins else None for item in batch]
        before = writer.written.tokens
        writer.add(ids, origins)
        self.tokens += writer.written.tokens - before
        writer.written.characters += sum(len(item.text) for item in batch)
        writer.written.bytes += sum(item.n_bytes for item in batch)
        for item, of in zip(batch, ids):
            unknown = self.unknown[item.target]
            writer.written.unknown += 0 if unknown is None else of.count(unknown)

    def _commit(self, name: str, writers: Mapping[str, Writer]) -> None:
        for split, writer in writers.items():
            self.state["sources"][name][split] = writer.commit()
        self.save()


def _linked(chain: bytes, item: Item) -> bytes:
    return hashlib.sha256(chain + item.digest).digest()


def _of(split: str, batch: list[Item], ids: list[list[int]]) -> tuple[list[Item], list[list[int]]]:
    """What of a batch belongs to a split."""
    held_out = split == "validation"
    places = [place for place, item in enumerate(batch) if item.held_out == held_out]
    return [batch[place] for place in places], [ids[place] for place in places]


def _batches(found: Iterator[Item]) -> Iterator[list[Item]]:
    cores = os.cpu_count() or 1
    batch: list[Item] = []
    size = 0
    for item in found:
        batch.append(item)
        size += len(item.text)
        if size >= BATCH * cores or len(batch) >= BATCH_TEXTS * cores:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

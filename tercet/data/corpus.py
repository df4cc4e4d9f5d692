"""A prepared corpus: a folder with a manifest, a tokenizer, and for each source two token streams.

Opening it checks the size of every file. Knows not how it was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tercet.data.manifest import MANIFEST, SPLITS, Manifest, SplitFacts, check_seal
from tercet.data.shards import INDEX, Tokens, mapped, token_type
from tercet.data.sources import nearest
from tercet.errors import InputError
from tercet.text import Tokenizer

TOKENIZER = "tokenizer"  # the folder in the corpus that holds it
UNFINISHED = "preparing.json"  # stands there while a corpus is not whole


@dataclass(frozen=True)
class Splits:
    """What a source is for training and for validation (without documents where it has none)."""

    train: Tokens
    validation: Tokens


class Corpus:
    """sources: name -> its `Splits`. `train` and `validation` are those of the only source."""

    def __init__(self, folder: Path, manifest: Manifest, sources: dict[str, Splits]) -> None:
        self.folder, self.manifest, self.sources = folder, manifest, sources

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        tokenizer: Tokenizer | None = None,
        verify: bool = False,
        talks: bool = False,
    ) -> Corpus:
        """tokenizer: the one that a model has; verify: read all the files and hold them to their
        checksums, not only to their sizes; talks: one of conversations will do, whose numbers are
        no tokens (instructions.py).

        Raises InputError for a folder without a finished corpus, or of conversations, for a file
        that is missing, cut short or altered, and where the tokenizer is not the one that made the
        tokens.
        """
        folder = Path(folder)
        if (folder / UNFINISHED).exists() and not (folder / MANIFEST).exists():
            raise InputError(
                f"{folder}: this data is not whole, its preparation was interrupted; run the same"
                " 'tercet data prepare' again, it goes on from where it was"
            )
        manifest = Manifest.read(folder)
        if manifest.marked and not talks:
            raise InputError(
                f"{folder}: holds {manifest.kind}, compiled to tune a model on; name data of texts "
                "or pairs"
            )
        if tokenizer is not None and tokenizer.hash != manifest.tokenizer_hash:
            raise InputError(
                f"{folder}: was prepared with another tokenizer (its hash is"
                f" {manifest.tokenizer_hash[:12]}, not {tokenizer.hash[:12]}); prepare the data"
                " anew with this one"
            )
        facts = {
            name: [getattr(of, split) for split in SPLITS] for name, of in manifest.sources.items()
        }
        if verify:
            for split in (split for splits in facts.values() for split in splits):
                for shard in (split.index, *split.shards):
                    mapped_size = INDEX if shard is split.index else token_type(manifest.numbers)
                    mapped(folder / shard.file, mapped_size, shard.tokens)
                    check_seal(folder, shard)
        sources = {
            name: Splits(*(_tokens(folder, manifest, split) for split in splits))
            for name, splits in facts.items()
        }
        return cls(folder, manifest, sources)

    @property
    def tokenizer_hash(self) -> str:
        return self.manifest.tokenizer_hash

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The one that made the tokens. Raises InputError where its files were altered."""
        tokenizer = Tokenizer.load(self.folder / TOKENIZER)
        if tokenizer.hash != self.tokenizer_hash:
            raise InputError(
                f"{self.folder / TOKENIZER}: was altered, it is not the tokenizer that made the"
                " tokens; copy it anew, or prepare the data anew"
            )
        return tokenizer

    @property
    def train(self) -> Tokens:
        return self.sources[self.only].train

    @property
    def validation(self) -> Tokens:
        return self.sources[self.only].validation

    @property
    def only(self) -> str:
        """The name of the only source. Raises InputError where there are several."""
        if len(self.sources) > 1:
            raise InputError(
                f"{self.folder}: holds {len(self.sources)} sources; name one of them:"
                f" {', '.join(self.sources)}"
            )
        return next(iter(self.sources))

    def named(self, source: str | None) -> str:
        """A source's name, or that of the only one. Raises InputError where there is none."""
        name = source or self.only
        if name not in self.sources:
            raise InputError(
                f"source {name}: {self.folder} has none; {nearest(name, self.sources)}"
            )
        return name

    def origin(self, source: str, split: str, number: int) -> str:
        """Where a document came from: "novels/train.txt.gz, document 17"."""
        facts: SplitFacts = getattr(self.manifest.sources[source], split)
        index = mapped(self.folder / facts.index.file, INDEX, facts.documents)
        file = self.manifest.settings["sources"][source]["files"][int(index[number]["file"])]
        return f"{file['name']}, document {int(index[number]['number']):,}"


def _tokens(folder: Path, manifest: Manifest, facts: SplitFacts) -> Tokens:
    kind = token_type(manifest.numbers)
    index = mapped(folder / facts.index.file, INDEX, facts.documents)
    shards = [mapped(folder / shard.file, kind, shard.tokens) for shard in facts.shards]
    starts = np.ascontiguousarray(index["start"], np.int64)
    tokens = Tokens(shards, starts, separator=manifest.separator)
    if tokens.n_tokens != facts.tokens:
        raise InputError(
            f"{folder / MANIFEST}: was altered, it counts {facts.tokens:,} tokens and its shards"
            f" have {tokens.n_tokens:,}; copy it anew, or prepare the data anew"
        )
    return tokens

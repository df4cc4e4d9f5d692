"""Documents into a collection: read from files, cut, embedded and indexed, with progress. What was
done before a kill is found again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from tercet.data.documents import documents
from tercet.data.sources import Tally, found, is_table
from tercet.data.tables import rows, text_of, value
from tercet.errors import InputError
from tercet.jobs.flags import Files, Model, print_json, say, unset
from tercet.text.passages import Passages
from tercet.text.read import STDIN
from tercet.train.progress import Bar, clock

if TYPE_CHECKING:
    from tercet.represent.collection import Added, Collection, Item

NUMBERED = re.compile(r"(.*)#\d+(/\d+)?", re.DOTALL)  # a document that goes by its place in a file


@dataclass(frozen=True)
class Reading:
    """How files become documents, and documents passages."""

    split: Annotated[str, arg(metavar="HOW")] = "file"
    """plain text is cut into documents by: file, line, paragraph, or a pattern of a first line"""
    column: Annotated[str, arg(metavar="NAME")] = "text"
    """the column of a table that holds the texts; several, with commas, are joined by line ends"""
    called: Annotated[str | None, unset("NAME")] = None
    """the column that holds the documents' names; without it, file and row"""
    metadata: Annotated[str | None, unset("NAMES")] = None
    """columns to filter searches by, with commas"""

    def items(
        self, files: tuple[str, ...], tally: Tally, seen: dict[str, set[str]]
    ) -> Iterator[Item]:
        """seen: gets the names of the documents of each file, those that go by their places in it;
        none of a table whose documents have names of their own."""
        for name in found(files):
            items = self._rows(name, tally) if is_table(name) else self._texts(name, tally)
            names = set[str]() if name == STDIN else seen.setdefault(str(Path(name)), set())
            for item in items:
                if not (is_table(name) and self.called):
                    names.add(item.name)
                yield item

    def _texts(self, name: str, tally: Tally) -> Iterator[Item]:
        from tercet.represent.collection import Item

        for one in documents(name, split=self.split, tally=tally):
            part = f"/{one.part}" if one.part else ""
            facts = {"title": one.title} if one.title else {}
            called = "" if name == STDIN else f"{Path(name)}#{one.number}{part}"
            yield Item(one.text, called, facts)

    def _rows(self, name: str, tally: Tally) -> Iterator[Item]:
        from tercet.represent.collection import Item

        texts, facts = listed(self.column), listed(self.metadata)
        with tally.reading(name):
            for number, row in rows(name, [*texts, *facts, *listed(self.called)], tally):
                where = f"{name}, row {number}"
                parts = [text_of(row[column], column, where) for column in texts]
                text = "\n".join(part for part in parts if part)
                if not text.strip():
                    tally.skipped["empty"] += 1
                    continue
                called = value(row, self.called, where) if self.called else f"{Path(name)}#{number}"
                if called is None or not str(called).strip():
                    raise InputError(f"{where}: {self.called!r} is empty; a document needs a name")
                yield Item(text, str(called), {column: row[column] for column in facts})


@dataclass(frozen=True)
class Cutting:
    """How a new collection cuts documents into passages."""

    passages: Annotated[int | None, unset("TOKENS")] = None
    """tokens of a passage at the most (128, or what the model reads); 0: each document is one"""
    overlap: Annotated[int | None, unset("TOKENS")] = None
    """of these, how many may stand in the passage before too"""
    language: Annotated[str | None, unset("NAME")] = None
    """of the texts, for finding their words (English)"""

    def policy(self) -> Passages | None:
        if self.passages is None:
            if self.overlap is not None:
                raise InputError("--overlap belongs to --passages: say how long they are")
            return None
        return Passages(self.passages or None, self.overlap or 0)


def collect(
    model: Model,
    files: Files,
    to: str,
    reading: Reading,
    cutting: Cutting,
    *,
    quiet: bool,
    json: bool,
) -> None:
    """Files into a collection, and what became of them."""
    from tercet.represent.collection import Collection

    if files.text is not None or not files.files:
        raise InputError("--to wants FILES: documents, or tables of them; - for standard input")
    if model.context is not None:
        raise InputError("--context does not go with --to: a search could not read as far again")
    tally = Tally()
    network = model.load("embed")
    collection = Collection.open(to, network, passages=cutting.policy(), language=cutting.language)
    if collection.contract.assumed and not quiet:
        say(f"{model.named()} does not say how vectors are pooled: the mean of all tokens is taken")
    seen: dict[str, set[str]] = {}
    items = reading.items(files.files, tally, seen)
    added = filled(collection, items, None, quiet=quiet or json)

    def gone(name: str) -> bool:
        """Whether an earlier state of a file had it."""
        file = NUMBERED.fullmatch(name)
        return bool(file) and file[1] in seen and name not in seen[file[1]]

    added.removed += collection.forget(gone)
    if not quiet:
        if str(added.cut):
            say(f"{added.cut} (limit {network.limit:,})")
        for reason, count in tally.skipped.items():
            say(f"{count:,} documents skipped: {reason}")
    told = as_dict(added) | {"passages": len(collection)}
    if json:
        print_json(told)
    else:
        print(
            f"{to}: {added.documents:,} documents read; passages: {added.embedded:,} embedded, "
            f"{added.known:,} known, {added.duplicates:,} twice, {added.removed:,} removed; "
            f"{len(collection):,} in the collection"
        )
        if added.recall is not None:
            print(f"the vectors' index finds {added.recall:.1%} of the ten nearest (100 samples)")


def listed(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def filled(
    collection: Collection, items: Iterable[Item], total: int | None, *, quiet: bool
) -> Added:
    """Adds the documents, and brings them into the indexes."""
    start = time.monotonic()
    with Bar(quiet=quiet, stderr=True) as bar:

        def progress(documents: int, passages: int) -> None:
            def facts() -> str:
                seconds = max(1e-9, time.monotonic() - start)
                left = "" if not total else f", {clock(seconds * (total / documents - 1))} left"
                return f"{passages:,} passages, {passages / seconds:,.0f}/s{left}"

            bar.show("embedding", documents, total, facts)

        added = collection.feed(items, progress)
        bar.show("indexing", added.documents, total, lambda: f"{len(collection):,} passages")
        added.recall = collection.tend()
    return added


def as_dict(added: Added) -> dict[str, Any]:
    names = ("documents", "embedded", "known", "removed", "duplicates", "recall")
    return {name: getattr(added, name) for name in names} | {"cut": added.cut.cut_texts}

"""Collection: texts that can be found by meaning and by words, on disk, with the contract that says
what their vectors were made with.

Nothing is embedded twice: a row is called by the hash of its text, model, prefix and pooling. What
was embedded before a kill is there after it, and adding the same documents again goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tercet.errors import InputError
from tercet.files import LOCK
from tercet.language_model import LanguageModel, load
from tercet.language_model.asked import warn_of_cuts
from tercet.represent.collection.contract import Contract
from tercet.represent.collection.items import Added, Item, check, hashed
from tercet.represent.collection.rows import Row, Rows, quoted
from tercet.represent.collection.search import Asked, Hit
from tercet.represent.collection.store import Store
from tercet.text import CutReport
from tercet.text.passages import Passages, passages

MOST = 100_000  # hits of a search
PART = 2_048  # passages that are embedded and written together: what a kill may cost
VECTORS_FROM = 20_000  # rows; below, all vectors are compared
Progress = Callable[[int, int], None]  # documents and passages so far


class Collection:
    """``add`` texts, ``search`` them, ``delete`` some; ``len`` counts passages."""

    def __init__(
        self, store: Store, contract: Contract, rows: Rows, model: LanguageModel | None = None
    ) -> None:
        self.store, self.contract, self.rows, self._model = store, contract, rows, model

    @property
    def model(self) -> LanguageModel:
        """The one that the vectors were made with; loaded when it is first needed."""
        if self._model is None:
            self._model = self.contract.load()
            self.contract.check(self._model, self.store.place)
        return self._model

    @property
    def loaded(self) -> LanguageModel | None:
        """The model, where it is in memory already."""
        return self._model

    @classmethod
    def open(
        cls,
        path: str | Path,
        model: LanguageModel | str | Path | None = None,
        *,
        passages: Passages | None = None,
        language: str | None = None,
    ) -> Collection:
        """The collection in a folder, or at a URL of an object storage; with a model, a new one
        where nothing is.

        model: None loads the one of the contract when it is needed. passages: how documents are
        cut, language: what their words are brought to their stems by, for a new one.
        Raises InputError for a place that is no collection, and for a model, passages or language
        other than those that it was made with.
        """
        store, name = Store(str(path)), ""
        if isinstance(model, str | Path):
            name, model = str(model), load(model)
        told = store.contract()
        if told is None and model is not None:
            with store.turn():
                told = store.contract() or cls._begun(store, model, name, passages, language)
        if told is None:
            raise InputError(
                f"{path}: there is no collection; make one with a model: "
                f"tercet embed MODEL FILES --to {path}"
            )
        contract = Contract.read(told[0], str(path))
        for asked, has in ((passages, contract.passages), (language, contract.language)):
            if asked is not None and asked != has:
                raise InputError(
                    f"{path} has {has}, not {asked}; add with the same, or make another collection"
                )
        if model is not None:
            contract.check(model, str(path))
        rows = store.open(told[1])
        if rows.width != contract.width:
            raise InputError(
                f"{path}: its vectors have {rows.width} numbers and its contract says "
                f"{contract.width}; it was altered, build it anew"
            )
        return cls(store, contract, rows, model)

    @staticmethod
    def _begun(
        store: Store,
        model: LanguageModel,
        name: str,
        cut: Passages | None,
        language: str | None,
    ) -> tuple[str, str]:
        """A new collection's contract, and the name of its rows."""
        _check_new(store)
        contract = Contract.of(model, cut, name=name, language=language or "English")
        store.create(contract.rows, contract.width, contract.language)
        store.sign(contract.text(), contract.rows)
        return contract.text(), contract.rows

    def __len__(self) -> int:
        return len(self.rows)

    # adding ---------------------------------------------------------------------------------------

    def add(
        self,
        texts: Iterable[str],
        metadata: Sequence[dict[str, Any]] | None = None,
        *,
        documents: Sequence[str] | None = None,
    ) -> Added:
        """Texts, cut into passages, embedded and indexed; those that are here cost nothing.

        metadata: for each text, names and values (texts, numbers, true or false) to filter by.
        documents: a name for each; where one is here, its passages become those of the new text.
        """
        if isinstance(texts, str):
            raise InputError(f"texts {texts!r}: give a list of strings")
        given = list(texts)
        for name, others in (("metadata", metadata), ("documents", documents)):
            if others is not None and len(others) != len(given):
                raise InputError(f"{len(given):,} texts and {len(others):,} {name}; give as many")
        names, facts = documents or [""] * len(given), metadata or [{}] * len(given)
        added = self.feed(map(Item, given, names, facts))
        added.recall = self.tend()
        return added

    def feed(self, items: Iterable[Item], progress: Progress | None = None) -> Added:
        """As ``add``, of any number of documents in bounded memory, without upkeep behind it."""
        added = Added()
        for part in self._parts(items):
            self._add(part, added)
            if progress is not None:
                progress(added.documents, added.embedded + added.known)
        return added

    def tend(self) -> float | None:
        """Brings what was added into the indexes; searches are right without it, but slower. Where
        it makes the index of vectors, the share of the ten nearest that this finds, of a sample."""
        return self.rows.recall(10) if self.rows.tend(VECTORS_FROM) else None

    def _parts(self, items: Iterable[Item]) -> Iterator[list[tuple[Item, list[str]]]]:
        part, size, names = [], 0, set[int]()
        for item in items:
            check(item)
            if item.name and hash(item.name) in names:
                raise InputError(
                    f"the document {item.name!r} comes twice: the later one would take the place "
                    "of the earlier; give each a name of its own"
                )
            names.add(hash(item.name))
            pieces = passages(item.text, self.contract.passages, self._count)
            part.append((item, pieces))
            size += len(pieces)
            if size >= PART or len(part) >= PART:
                yield part
                part, size = [], 0
        if part:
            yield part

    def _count(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.model.tokenizer.encode_batch(texts, special=False)]

    def _add(self, part: list[tuple[Item, list[str]]], added: Added) -> None:
        self.rows.fresh()
        wanted: dict[str, Row] = {}
        pieces = 0
        for item, texts in part:
            pieces += len(texts)
            wanted |= {row["id"]: row for row in self._rows(item, texts)}
        added.documents += len(part)
        added.duplicates += pieces - len(wanted)
        self._write(wanted, sorted({item.name for item, _ in part if item.name}), added)

    def _write(
        self, wanted: dict[str, Row], documents: list[str], added: Added, *, beside: bool = False
    ) -> None:
        """Rows by id; those that stand here so already are left, and no known text is embedded.
        What these documents had beside goes. beside: into rows that are not in use yet."""
        here, empty = self.rows.of_ids(list(wanted)), dict.fromkeys(self.rows.metadata)
        changed = [row for called, row in wanted.items() if here.get(called) != empty | row]
        vectors = self.rows.vectors(sorted({row["key"] for row in changed}))
        new = {row["key"]: row["text"] for row in changed if row["key"] not in vectors}
        vectors |= dict(zip(new, self._embedded(list(new.values()), added.cut)))
        with self.store.turn():
            if not beside:
                self._check_current()
            self.rows.fresh()
            gone = [one for one in self.rows.of_documents(documents) if one not in wanted]
            self.rows.write([row | {"vector": vectors[row["key"]]} for row in changed], gone)
        added.embedded += len(new)
        added.known += len(wanted) - len(new)
        added.removed += len(gone)

    def _check_current(self) -> None:
        told = self.store.contract()
        if told is None or told[1] != self.rows.table.name:
            raise InputError(
                f"{self.store.place} was upgraded to another model meanwhile; open it again"
            )

    def _rows(self, item: Item, texts: list[str]) -> Iterator[Row]:
        for place, text in enumerate(texts):
            facts = {"document": item.name, "place": place, "text": text, **item.metadata}
            yield self._named(item.name, text) | facts

    def _named(self, document: str, text: str) -> Row:
        key = self._key(text)
        return {"id": hashed(document, key), "key": key}

    def _key(self, text: str) -> str:
        made = self.contract
        return hashed(text, made.fingerprint, made.passage, made.pool)

    def _embedded(self, texts: list[str], report: CutReport) -> Iterator[np.ndarray]:
        for vectors in self._read(self.contract.passage, texts, report) if texts else ():
            if not np.isfinite(vectors).all():
                raise InputError(
                    f"the model {self.contract.model} gives vectors that are no numbers (NaN); "
                    "check its weights, or use float32"
                )
            yield from vectors

    def _read(self, prompt: str, texts: list[str], report: CutReport) -> Iterator[np.ndarray]:
        settings = self.model.extras.embedding
        dressed = [settings.dressed(prompt, text) for text in texts]
        return self.model.reader.embedded(dressed, self.contract.pool, "keep-start", report)

    # using ----------------------------------------------------------------------------------------

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        where: str | None = None,
        mode: str = "hybrid",
        rerank: LanguageModel | None = None,
        depth: int = 20,
    ) -> list[Hit]:
        """The ``k`` passages that answer a query, best first; fewer where there are fewer.

        where: a condition on metadata in SQL, such as "year > 1990 AND author = 'Austen'". mode:
        dense (by vectors), bm25 (by words), or hybrid: both, fused by reciprocal ranks. rerank: a
        cross-encoder that puts the best ``depth`` passages into its own order.
        """
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"the query is empty ({query!r}); give at least one word")
        if type(k) is not int or not 1 <= k <= MOST:
            raise InputError(f"k {k!r} must be a whole number from 1 to {MOST:,}")
        self.rows.fresh()
        if not len(self):
            raise InputError(f"{self.store.place}: the collection is empty; add texts")
        asked = Asked(query, k, where, mode, rerank, depth)
        return asked.hits(self.rows, None if mode == "bm25" else self._vector(query))

    def _vector(self, query: str) -> np.ndarray:
        report = CutReport()
        (vector,) = next(self._read(self.contract.query, [query], report))
        warn_of_cuts(report, "keep-start")
        return vector

    def delete(self, where: str) -> int:
        """Removes the passages for which a condition holds, and says how many: "document = 'a'"."""
        return self.rows.delete(where)

    def forget(self, named: Callable[[str], bool]) -> int:
        """Removes the documents that are so named; how many passages went."""
        gone = sorted(filter(named, self.rows.documents()))
        parts = [gone[place : place + PART] for place in range(0, len(gone), PART)]
        return sum(self.delete(f"document IN ({', '.join(map(quoted, part))})") for part in parts)

    def upgrade(
        self, model: LanguageModel | str | Path, progress: Progress | None = None
    ) -> tuple[Collection, Added]:
        """The collection with another model's vectors, and what was embedded: the same passages, in
        a table beside the one in use, which takes its place when it is whole. After a kill it goes
        on; what others add meanwhile comes along."""
        name = "" if isinstance(model, LanguageModel) else str(model)
        reader = model if isinstance(model, LanguageModel) else load(model)
        told, old = self.contract, self.rows
        contract = Contract.of(reader, told.passages, name=name, language=told.language)
        added = Added()
        if contract.rows == told.rows:  # the same model in another place
            with self.store.turn():
                self.store.sign(contract.text(), contract.rows)
            return Collection(self.store, contract, old, reader), added
        begun = contract.rows in self.store.names()
        how = contract.rows, contract.width, contract.language
        new = self.store.open(contract.rows) if begun else self.store.create(*how)
        beside = Collection(self.store, contract, new, reader)
        self._copy(beside, added, progress)
        beside.tend()
        with self.store.turn():  # once more, for what was added or deleted meanwhile
            self._check_current()
            old.fresh()
            self._copy(beside, Added(cut=added.cut), None)
            self.store.sign(contract.text(), contract.rows)
            for name in self.store.names():
                if name.startswith("rows-") and name != contract.rows:
                    self.store.drop(name)
        return beside, added

    def _copy(self, beside: Collection, added: Added, progress: Progress | None) -> None:
        """The rows in use, with vectors of another model, and no others."""
        ids = set[str]()
        for part in self.rows.parts(PART):
            rows = [row | beside._named(row["document"], row["text"]) for row in part]
            ids |= {row["id"] for row in rows}
            beside._write({row["id"]: row for row in rows}, [], added, beside=True)
            added.documents += len(rows)
            if progress is not None:
                progress(added.documents, added.documents)
        beside.rows.write([], sorted(beside.rows.ids() - ids))


def _check_new(store: Store) -> None:
    """A beginning that was killed is no hindrance."""
    path = Path(store.place)
    if not store.local:
        return
    others = [one for one in path.iterdir() if one.name != LOCK and not one.match("rows-*.lance")]
    if others:
        raise InputError(
            f"{path}: is something else than a collection ({others[0].name}); choose another place"
        )

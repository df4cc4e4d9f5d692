"""The rows of a collection in a table of LanceDB's: passages with vectors and metadata, and the
indexes over them.

A write is whole or not there, whenever the process ends. Knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tercet.errors import InputError
from tercet.represent.collection import conditions

if TYPE_CHECKING:
    from tercet.represent.collection.store import Store

Row = dict[str, Any]
KEPT = timedelta(minutes=10)  # old versions: a reader may be in one
SAMPLE = 100  # rows that an index is judged by
REFINED = 5  # times k rows of an index are ranked by their exact vectors
OWN = {
    "id": "string",  # of document and key: one passage of one document
    "key": "string",  # of the text and all that makes its vector: equal keys, equal vectors
    "document": "string",
    "place": "int32",  # which passage of the document, from 0
    "text": "string",
}
KINDS = {str: "string", bool: "bool", int: "int64", float: "double"}


class Rows:
    """A table: a row is a passage, called by its id."""

    def __init__(self, table: Any, store: Store) -> None:
        self.table, self.store = table, store
        self.stem = lru_cache(1 << 17)(self._stem)

    def __len__(self) -> int:
        return self.table.count_rows()

    @property
    def width(self) -> int:
        return self.table.schema.field("vector").type.list_size

    @property
    def metadata(self) -> dict[str, str]:
        """Names and types of the columns that are not ours."""
        return {
            field.name: str(field.type)
            for field in self.table.schema
            if field.name not in OWN and field.name != "vector"
        }

    def fresh(self) -> None:
        """Sees what other processes have committed. Raises InputError where they have put other
        rows in the place of these."""
        if self.table.name not in self.store.names():
            raise InputError(
                f"{self.store.place} was upgraded to another model meanwhile; open it again"
            )
        with said(self.store.place):
            self.table.checkout_latest()

    def of_documents(self, documents: Sequence[str]) -> dict[str, Row]:
        """id -> row, vectors left out, of all rows of these documents."""
        columns = [*OWN, *self.metadata]
        return {row["id"]: row for row in self._where("document", documents, columns)}

    def of_ids(self, ids: Sequence[str]) -> dict[str, Row]:
        return {row["id"]: row for row in self._where("id", ids, [*OWN, *self.metadata])}

    def ids(self) -> set[str]:
        with said(self.store.place):
            asked = self.table.search().select(["id"]).limit(max(1, len(self)))
            return set(asked.to_arrow()["id"].to_pylist())

    def documents(self) -> set[str]:
        with said(self.store.place):
            asked = self.table.search().select(["document"]).limit(max(1, len(self)))
            return set(asked.to_arrow()["document"].unique().to_pylist())

    def parts(self, size: int) -> Iterator[list[Row]]:
        """All rows of one version, vectors left out, so many at a time."""
        with said(self.store.place):
            asked = self.table.search().select([*OWN, *self.metadata]).limit(max(1, len(self)))
            for batch in asked.to_batches(size):
                yield batch.to_pylist()

    def embedded(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """The texts of all rows of one version with their vectors (b, D), a thousand at a time."""
        with said(self.store.place):
            asked = self.table.search().select(["text", "vector"]).limit(max(1, len(self)))
            for batch in asked.to_batches(1_000):
                flat = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
                yield batch.column("text").to_pylist(), flat.reshape(len(batch), -1)

    def vectors(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """key -> vector, of those that are here."""
        found = self._where("key", keys, ["key", "vector"])
        return {row["key"]: np.asarray(row["vector"], dtype=np.float32) for row in found}

    def write(self, rows: Sequence[Row], gone: Sequence[str] = ()) -> None:
        """Rows that are new or stand in the place of those of the same id; and ids to remove."""
        import pyarrow as pa

        with self.store.turn(), said(self.store.place):
            self.fresh()
            if rows:
                self._widen(rows)
                table = pa.Table.from_pylist(list(rows), schema=self.table.schema)
                merge = self.table.merge_insert("id").when_matched_update_all()
                merge.when_not_matched_insert_all().execute(table)
            if gone:
                self.table.delete(f"id IN ({', '.join(map(quoted, gone))})")

    def _widen(self, rows: Sequence[Row]) -> None:
        """A column for each name of metadata that is new. Raises InputError for a value of another
        type than its column's."""
        import pyarrow as pa

        known, new, wider = self.metadata, dict[str, str](), set[str]()
        for row in rows:
            for name, value in row.items():
                if name in OWN or name == "vector" or value is None:
                    continue
                kind = KINDS[type(value)]
                wanted = known.get(name) or new.setdefault(name, kind)
                if (wanted, kind) == ("int64", "double"):
                    (new if name in new else known)[name] = kind
                    wider |= {name} - new.keys()
                elif kind != wanted and (wanted, kind) != ("double", "int64"):
                    raise InputError(
                        f"metadata {name!r} is {value!r} ({kind}) where others are of type "
                        f"{wanted}; give one type to a name"
                    )
        for name in wider:  # whole numbers become others; the store casts only what it copies
            self.table.add_columns({f"{name}_wider": f"cast({name} as double)"})
            self.table.drop_columns([name])
            self.table.alter_columns({"path": f"{name}_wider", "rename": name})
        if new:
            fields = [pa.field(name, pa.type_for_alias(kind)) for name, kind in new.items()]
            self.table.add_columns(fields)

    def delete(self, where: str) -> int:
        """How many rows were removed."""
        with self.store.turn(), self._asking(where):
            self.fresh()
            return self.table.delete(conditions.whole(where)).num_deleted_rows

    def _where(self, column: str, values: Sequence[str], columns: list[str]) -> list[Row]:
        if not values:
            return []
        listed = ", ".join(map(quoted, values))
        with said(self.store.place):
            asked = self.table.search().where(f"{column} IN ({listed})").select(columns)
            return asked.limit(max(1, len(self))).to_list()

    # searching ------------------------------------------------------------------------------------

    def nearest(
        self, vector: np.ndarray, k: int, where: str | None, exact: bool = False
    ) -> list[Row]:
        """Rows by cosine, the best first, each with its "score"."""
        with self._asking(where):
            asked = self.table.search(vector).distance_type("cosine")
            asked = asked.bypass_vector_index() if exact else asked.refine_factor(REFINED)
            found = self._asked(asked, "_distance", k, where)
        return [row | {"score": 1 - row.pop("_distance")} for row in found]

    def matching(self, words: str, k: int, where: str | None) -> list[Row]:
        """Rows by BM25 of their texts, the best first, each with its "score"."""
        with self._asking(where):
            from lancedb.query import MatchQuery  # a bare string in quotes would be a phrase

            asked = self.table.search(
                MatchQuery(words, "text"),  # pyright: ignore[reportCallIssue]
                query_type="fts",
            )
            found = self._asked(asked, "_score", k, where)
        return [row | {"score": row.pop("_score")} for row in found]

    @contextmanager
    def _asking(self, where: str | None) -> Iterator[None]:
        """Around what a condition is handed to."""
        try:
            with said(self.store.place):
                yield
        except InputError as error:
            if where is None or error.__cause__ is None or "Not found" in str(error):
                raise
            reason, columns = plain(error.__cause__), [*OWN, *self.metadata]
            raise conditions.refused(where, reason, columns) from None

    def _asked(self, asked: Any, score: str, k: int, where: str | None) -> list[Row]:
        asked = asked if where is None else asked.where(conditions.whole(where), prefilter=True)
        return asked.select([*OWN, *self.metadata, score]).limit(k).to_list()

    def stems(self, text: str) -> list[str]:
        """What the words' index takes a text for, without its language's commonest words."""
        return [token.text for token in self.table.tokenize(text, column="text")]

    def _stem(self, word: str) -> str:
        return " ".join(self.stems(word))

    # upkeep ---------------------------------------------------------------------------------------

    @property
    def indexed(self) -> dict[str, int]:
        """Column -> rows that its index covers."""
        with said(self.store.place):
            found = self.table.list_indices()
        return {one.columns[0]: one.num_indexed_rows for one in found}

    def tend(self, vectors_from: int) -> bool:
        """Brings words, names and, from so many rows on, vectors into indexes; packs the files.
        Whether it made the index of vectors."""
        from lancedb.index import BTree, HnswSq

        with self.store.turn(), said(self.store.place):
            self.fresh()
            wanted: dict[str, Any] = {name: BTree() for name in ("id", "key", "document")}
            if len(self) >= vectors_from:
                wanted["vector"] = HnswSq(distance_type="cosine")
            new = sorted(wanted.keys() - self.indexed.keys()) if len(self) else []
            for column in new:
                self.table.create_index(column, config=wanted[column])
            self.table.optimize(cleanup_older_than=KEPT)
            return "vector" in new

    def recall(self, k: int) -> float | None:
        """The share of the ``k`` nearest rows that the vectors' index finds too, for rows drawn out
        of the table; each is its own nearest, and not counted."""
        if len(self) < 2:
            return None
        draw = np.random.default_rng(0)
        places = draw.choice(len(self), min(SAMPLE, len(self)), replace=False)
        with said(self.store.place):
            taken = self.table.take_offsets(sorted(map(int, places))).select(["vector"]).to_list()
        hits = 0
        for row in taken:
            vector = np.asarray(row["vector"], dtype=np.float32)
            found, exact = (
                {one["id"] for one in self.nearest(vector, k + 1, None, how)[1:]}
                for how in (False, True)
            )
            hits += len(found & exact)
        return hits / (len(taken) * min(k, len(self) - 1))


def quoted(text: str) -> str:
    """As SQL has it."""
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def said(place: str) -> Iterator[None]:
    """What the store refuses, as an InputError in a line."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{place}: the store refuses ({plain(error)})") from error


def plain(error: BaseException) -> str:
    """What the store says, without its own source's lines."""
    return re.sub(r",? ?\S*/registry/src/\S+", "", " ".join(str(error).split()))

"""A collection on disk: its contract, and the table of rows that counts, both LanceDB's.

A commit is whole or not there, whenever the process ends. On this machine commits of several
processes take turns; on object storage they do not, and one process at a time should write there.
Knows no model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from tercet.errors import InputError, require
from tercet.files import locked
from tercet.represent.collection.rows import OWN, Rows, said

CONTRACT = "contract"  # the table that says which rows count, and what made their vectors
TURN = 600.0  # seconds that a commit waits for that of another process


class Store:
    """A folder (or an object-storage URL) with a contract and tables of rows."""

    def __init__(self, place: str) -> None:
        os.environ.setdefault("LANCEDB_LOG", "error")  # its warnings are of its own inner workings
        require("lancedb", "search")
        self.place = place
        self.local = "://" not in place
        self._turns = 0

    @cached_property
    def _base(self) -> Any:
        with said(self.place):
            return require("lancedb", "search").connect(self.place)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Around a commit, or some of them: waits for those of other processes."""
        if not self.local or self._turns:
            yield
            return
        end = time.monotonic() + TURN
        while True:
            lock = locked(self.place)
            try:
                lock.__enter__()
                break
            except InputError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self._turns += 1
        try:
            yield
        finally:
            self._turns -= 1
            lock.__exit__(None, None, None)

    def names(self) -> list[str]:
        with said(self.place):
            return [str(name) for name in self._base.list_tables().tables]

    def contract(self) -> tuple[str, str] | None:
        """Its text and the name of the table that counts; None where nothing is."""
        if self.local and not Path(self.place).is_dir() or CONTRACT not in self.names():
            return None
        with said(self.place):
            rows = self._base.open_table(CONTRACT).to_arrow().to_pylist()
        if len(rows) != 1:
            raise InputError(f"{self.place}: its contract is damaged; build it anew")
        return rows[0]["contract"], rows[0]["rows"]

    def sign(self, contract: str, rows: str) -> None:
        """In one commit: from now on this table counts, with this contract."""
        with said(self.place):
            told = [{"contract": contract, "rows": rows}]
            self._base.create_table(CONTRACT, told, mode="overwrite")

    def create(self, name: str, width: int, language: str) -> Rows:
        """language: of the texts, whose words the index brings to their stems."""
        import pyarrow as pa
        from lancedb.index import FTS

        fields = [pa.field(column, pa.type_for_alias(kind)) for column, kind in OWN.items()]
        fields[0] = fields[0].with_nullable(False)  # the key, which no two writers both add
        vector = pa.field("vector", pa.list_(pa.float32(), width))
        with said(self.place):
            schema = pa.schema([*fields, vector])
            table = self._base.create_table(name, schema=schema, mode="overwrite")
            table.set_unenforced_primary_key("id")
            table.create_index("text", config=FTS(language=language))
        return Rows(table, self)

    def open(self, name: str) -> Rows:
        with said(self.place):
            return Rows(self._base.open_table(name), self)

    def drop(self, name: str) -> None:
        with said(self.place):
            self._base.drop_table(name)

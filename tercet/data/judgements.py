"""A retrieval folder: documents, queries, and who was judged to answer whom, as BEIR lays it out
(Thakur et al. 2021).

`corpus.jsonl` (`_id`, `title`, `text`) and `queries.jsonl` (`_id`, `text`), packed or not, and for
each split `qrels/SPLIT.tsv` or `qrels_SPLIT.tsv` (`query-id`, `corpus-id`, `score`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tercet.data.related import Related, number_of
from tercet.data.sources import Tally, nearest
from tercet.data.tables import rows, text_of, value
from tercet.errors import InputError

CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"


@dataclass(frozen=True)
class Judgements:
    """documents and queries: id -> text, the documents' titles before their texts. judged: split ->
    query -> document -> how relevant."""

    documents: dict[str, str]
    queries: dict[str, str]
    judged: dict[str, dict[str, dict[str, int]]]

    @classmethod
    def read(cls, folder: Path | str) -> Judgements:
        """Raises InputError for a file that is missing, an id that stands twice, and a judgement of
        a query or document that is not there."""
        folder = Path(folder)
        documents, queries = _texts(folder, CORPUS), _texts(folder, QUERIES)
        splits = dict(sorted(_splits(folder)))
        if not splits:
            raise InputError(
                f"{folder}: has no judgements; qrels/train.tsv or qrels_train.tsv should hold them"
            )
        judged = {name: _judged(path, documents, queries) for name, path in splits.items()}
        return cls(documents, queries, judged)

    def split(self, name: str) -> dict[str, dict[str, int]]:
        if name not in self.judged:
            raise InputError(f"there are no judgements {name!r}; {nearest(name, self.judged)}")
        return self.judged[name]

    def pairs(self, split: str) -> list[Related]:
        """Each query of the split with each document that answers it, none that is empty."""
        return [
            Related((self.queries[query], self.documents[document]))
            for query, gains in self.split(split).items()
            for document, gain in gains.items()
            if gain > 0 and self.documents[document]
        ]


def is_retrieval_folder(path: Path | str) -> bool:
    return _file(Path(path), CORPUS) is not None


def _file(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _texts(folder: Path, name: str) -> dict[str, str]:
    path = _file(folder, name)
    if path is None:
        raise InputError(f"{folder}: has no {name} (or .gz), which a retrieval folder holds")
    texts: dict[str, str] = {}
    for number, row in rows(str(path), (), Tally()):
        where = f"{path}, row {number}"
        key = str(value(row, "_id", where))
        if key in texts:
            raise InputError(f"{where}: the _id {key!r} stood there before; remove one")
        title = text_of(row.get("title"), "title", where)
        text = text_of(value(row, "text", where), "text", where)
        texts[key] = f"{title} {text}".strip()
    return texts


def _splits(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.glob("qrels/*.tsv"):
        yield path.stem, path
    for path in folder.glob("qrels_*.tsv"):
        yield path.stem.removeprefix("qrels_"), path


def _judged(
    path: Path, documents: dict[str, str], queries: dict[str, str]
) -> dict[str, dict[str, int]]:
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for number, row in rows(str(path), ("query-id", "corpus-id", "score"), Tally()):
        where = f"{path}, row {number}"
        query, document = str(row["query-id"]), str(row["corpus-id"])
        for kind, key, known in (("query", query, queries), ("document", document, documents)):
            if key not in known or (kind == "query" and not known[key]):
                raise InputError(f"{where}: the {kind} {key!r} is not in the folder, or is empty")
        judged[query][document] = int(number_of(row["score"], "score", where))
    if not judged:
        raise InputError(f"{path}: holds no judgement; remove the file, or give some")
    return dict(judged)

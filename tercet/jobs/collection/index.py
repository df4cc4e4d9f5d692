"""The verbs `index show | tune | upgrade | delete`: looking after a collection."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from tercet.data.judgements import Judgements, is_retrieval_folder
from tercet.data.related import number_of
from tercet.data.sources import Tally
from tercet.data.tables import rows
from tercet.errors import InputError
from tercet.jobs.flags import print_json, say, unset
from tercet.train.progress import Bar, clock

if TYPE_CHECKING:
    from tercet.evaluate.retrieval import Judged

DEPTHS = (10, 20, 50)


@dataclass(frozen=True)
class Kept:
    """Which collection."""

    collection: Annotated[Positional[str], arg(metavar="COLLECTION", help_behavior_hint="")]
    """a folder that `tercet embed --to` made, or a URL of an object storage"""


def show(kept: Kept, *, json: bool = False) -> None:
    """What a collection holds, what its vectors were made with, and how it is indexed.

      tercet index show library

    Args:
        json: one JSON object instead
    """
    from tercet.represent.collection import Collection

    collection = Collection.open(kept.collection)
    told = asdict(collection.contract) | {
        "passages in it": len(collection),
        "metadata": collection.rows.metadata,
        "indexed": collection.rows.indexed,
        "bytes": size(kept.collection),
    }
    if json:
        print_json(told)
        return
    width = max(map(len, told)) + 2
    for name, value in told.items():
        print(f"{name:{width}}{value:,}" if type(value) is int else f"{name:{width}}{value}")


def size(place: str) -> int | None:
    """Bytes of the folder; of a URL nobody says."""
    folder = Path(place)
    if not folder.is_dir():
        return None
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def delete(
    kept: Kept,
    *,
    where: Annotated[str, arg(metavar="CONDITION", help_behavior_hint="")],
    json: bool = False,
) -> None:
    """Removes the passages for which a condition holds.

      tercet index delete library --where "document LIKE 'drafts/%'"

    Args:
        where: in SQL; "true" removes all
        json: one JSON object instead
    """
    from tercet.represent.collection import Collection

    collection = Collection.open(kept.collection)
    removed = collection.delete(where)
    collection.tend()
    if json:
        print_json({"removed": removed, "passages": len(collection)})
    else:
        print(f"{kept.collection}: {removed:,} passages removed, {len(collection):,} left")


def upgrade(
    kept: Kept,
    *,
    to: Annotated[str, arg(metavar="MODEL", help_behavior_hint="")],
    quiet: bool = False,
    json: bool = False,
) -> None:
    """Embeds all passages with another model, beside the vectors in use, which it then replaces.

    Until then searches go on with the old ones; after a kill the same command goes on.

      tercet index upgrade library --to better-model

    Args:
        to: a folder, or a model of the hub
        json: one JSON object instead
    """
    from tercet.represent.collection import Collection

    collection = Collection.open(kept.collection)
    total, start = len(collection), time.monotonic()
    with Bar(quiet=quiet or json, stderr=True) as bar:

        def progress(done: int, _: int) -> None:
            def facts() -> str:
                seconds = max(1e-9, time.monotonic() - start)
                return f"{done / seconds:,.0f}/s, {clock(seconds * (total / done - 1))} left"

            bar.show("embedding", done, total, facts)

        new, added = collection.upgrade(to, progress)
    if str(added.cut) and not quiet:
        say(f"{added.cut} (limit {new.model.limit:,})")
    if json:
        print_json({"model": new.contract.model, "passages": len(new)})
    else:
        print(f"{kept.collection}: {len(new):,} passages with the vectors of {new.contract.model}")


def tune(
    kept: Kept,
    *,
    queries: Annotated[str, arg(metavar="FILE", help_behavior_hint="")],
    split: Annotated[str, arg(metavar="SPLIT")] = "test",
    rerank: Annotated[str | None, unset("MODEL")] = None,
    json: bool = False,
) -> None:
    """Which way of searching serves a collection best, by queries whose answers are known.

    nDCG@10 of each, and its difference to words alone with a 95 % interval over the queries.

      tercet index tune library --queries asked.jsonl

    Args:
        queries: a table with the columns query, document (its name in the collection) and, if it
            matters how much it answers, score; or a retrieval folder
        split: the judgements of such a folder
        rerank: a cross-encoder, tried over the best 10, 20 and 50
        json: one JSON object instead
    """
    from tercet.evaluate.collections import AT, rankings
    from tercet.evaluate.retrieval import difference, retrieval
    from tercet.language_model import load
    from tercet.represent.collection import Collection
    from tercet.represent.collection.search import MODES

    collection = Collection.open(kept.collection)
    texts, judged = _asked(queries, split)
    known = collection.rows.of_documents(sorted({name for one in judged.values() for name in one}))
    here = {row["document"] for row in known.values()}
    for query, one in judged.items():
        if missing := sorted(set(one) - here):
            raise InputError(
                f"query {query!r}: the document {missing[0]!r} is not in {kept.collection}; give "
                "its name as tercet search prints it"
            )
    found = {mode: rankings(collection, texts, mode=mode, k=AT) for mode in MODES}
    if rerank is not None:
        judge = load(rerank)
        found |= {
            f"reranked {depth}": rankings(collection, texts, rerank=judge, depth=depth, k=AT)
            for depth in DEPTHS
        }
    told = {}
    for name, one in found.items():
        gain = difference(found["bm25"], one, judged)
        told[name] = {"nDCG@10": retrieval(one, judged).ndcg, **asdict(gain)}
    best = max(told, key=lambda name: told[name]["nDCG@10"])
    if json:
        print_json({"queries": len(texts), "ways": told, "best": best})
        return
    print(f"{kept.collection}: {len(texts):,} queries")
    for name, one in told.items():
        beside = f"{one['mean']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
        print(f"  {name:12}nDCG@10 {one['nDCG@10']:.4f}  {'' if name == 'bm25' else beside}")
    if all(one["low"] <= 0 for one in told.values()):
        print("Nothing is surely better than words alone here: --mode bm25 does as well.")
    else:
        print(f"Best: {best}.")


def _asked(queries: str, split: str) -> tuple[dict[str, str], Judged]:
    """Texts and judgements by the query's name; in a table the query is its own name."""
    if Path(queries).is_dir() and is_retrieval_folder(queries):
        read = Judgements.read(queries)
        judged = read.split(split)
        return {name: read.queries[name] for name in judged}, judged
    found: dict[str, dict[str, int]] = {}
    for number, row in rows(queries, (), Tally()):
        where = f"{queries}, row {number}"
        for column in ("query", "document"):
            if not str(row.get(column) or "").strip():
                raise InputError(f"{where}: has no {column!r}; give query and document")
        score = int(number_of(row.get("score", 1), "score", where))
        found.setdefault(str(row["query"]), {})[str(row["document"])] = score
    if not found:
        raise InputError(f"{queries}: is empty; give queries and the documents that answer them")
    return {text: text for text in found}, found

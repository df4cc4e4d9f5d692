"""The verb `search`: passages of a collection that answer a query, and why."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tercet.jobs.flags import one_line, print_json, say, unset


@dataclass(frozen=True)
class Question:
    """Where, and for what."""

    collection: Annotated[Positional[str], arg(metavar="COLLECTION", help_behavior_hint="")]
    """a folder that `tercet embed --to` made, or a URL of an object storage"""
    query: Annotated[Positional[str], arg(metavar="QUERY", help_behavior_hint="")]
    """what the passages should answer"""


def run(
    question: Question,
    *,
    k: Annotated[int, arg(metavar="K")] = 10,
    mode: Literal["hybrid", "dense", "bm25"] = "hybrid",
    where: Annotated[str | None, unset("CONDITION")] = None,
    rerank: Annotated[str | None, unset("MODEL")] = None,
    depth: Annotated[int, arg(metavar="N")] = 20,
    model: Annotated[str | None, unset("MODEL")] = None,
    json: bool = False,
) -> None:
    """The passages that answer a query, best first, by meaning and by words together.

    Above each: its document, and the rank and score that each way of searching gave it. Words that
    it has in common with the query are marked.

      tercet search library "How do I leave a loop early?"
      tercet search library "wars of religion" --where "year > 1600" --k 3

    Args:
        k: so many passages
        mode: dense goes by vectors alone, bm25 by words, hybrid by the ranks of both
        where: a condition on metadata in SQL, such as "year > 1990 AND author = 'Austen'"
        rerank: a cross-encoder (tercet finetune --task rank) puts the best into its own order
        depth: passages that it reads
        model: refuse, unless the collection was made with this one
        json: a JSON object a passage
    """
    from tercet.language_model import load
    from tercet.represent.collection import Collection

    collection = Collection.open(question.collection)
    if model is not None:
        collection.contract.check(load(model), question.collection)
    judge = None if rerank is None else load(rerank)
    hits = collection.search(question.query, k=k, where=where, mode=mode, rerank=judge, depth=depth)
    if not hits and not json:
        say("nothing was found; ask less of --where, or search by --mode dense")
    marks = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("**", "**")
    for number, hit in enumerate(hits, 1):
        if json:
            print_json(asdict(hit))
            continue
        parts = {"dense": hit.dense, "bm25": hit.bm25, "reranked": hit.reranked}
        why = [f"{name} {one.rank} ({one.score:.3f})" for name, one in parts.items() if one]
        facts = [f"{name} {value}" for name, value in hit.metadata.items() if value is not None]
        print("  ".join([f"{number}.", f"{hit.document}, passage {hit.place + 1}", *why, *facts]))
        print(f"   {one_line(hit.marked(*marks))}")

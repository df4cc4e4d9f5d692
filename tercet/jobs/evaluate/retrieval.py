"""The verb `evaluate retrieval`: how well a model finds what people judged to answer."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Annotated

from tyro.conf import Positional, arg

from tercet.jobs.flags import Model, print_json, say, unset


@dataclass(frozen=True)
class Judged:
    """What is searched, and what answers."""

    folder: Annotated[Positional[str], arg(metavar="FOLDER", help_behavior_hint="")]
    """corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv (or qrels_SPLIT.tsv), also packed (.gz)"""
    split: Annotated[str, arg(metavar="SPLIT")] = "test"
    """whose judgements are read"""


def run(
    model: Model,
    judged: Judged,
    *,
    collection: Annotated[str | None, unset("FOLDER")] = None,
    out: Annotated[str | None, unset("FILE")] = None,
    quiet: bool = False,
    json: bool = False,
) -> None:
    """How well a model's vectors, words alone, and both together find the documents that answer.

    A line for each: nDCG@10, MRR@10, recall@100, MAP@100, means over the judged queries. Each
    document is one passage, title before text, read as far as the model's context goes.

      tercet evaluate retrieval sentence-model scifact

    Args:
        collection: a folder that keeps the vectors for the next time
        out: keep the figures of each query there, for `tercet compare`
        json: one JSON object instead
    """
    from tercet.data.judgements import Judgements
    from tercet.evaluate.collections import searched
    from tercet.evaluate.results import Results, write
    from tercet.files import writable
    from tercet.jobs.collection.collect import filled
    from tercet.represent.collection import Collection, Item
    from tercet.represent.collection.search import MODES
    from tercet.text.passages import Passages

    if out is not None:
        writable(out)
    read = Judgements.read(judged.folder)
    answers = read.split(judged.split)
    with ExitStack() as stack:
        place = collection or f"{stack.enter_context(TemporaryDirectory())}/collection"
        network = model.load("embed")
        kept = Collection.open(place, network, passages=Passages(None))
        items = [Item(text, name) for name, text in read.documents.items() if text]
        added = filled(kept, items, len(items), quiet=quiet or json)
        if not quiet and str(added.cut):
            say(f"{added.cut} (limit {network.limit:,})")
        found, seconds = {}, {}
        for mode in MODES:
            start = time.perf_counter()
            found[mode] = searched(kept, read.queries, answers, mode)
            seconds[mode] = time.perf_counter() - start
    n = len(answers)
    figures = {mode: one.figures for mode, one in found.items()}
    told = {"documents": len(items), "queries": n, "figures": figures}
    if out is not None:
        values = {f"{m} {name}": c for m, one in found.items() for name, c in one.values.items()}
        queries = [f"{name}: {read.queries[name]}" for name in answers]
        measure = f"retrieval {judged.split}, {len(items):,} documents"
        write(out, Results(measure, model.model, queries, values), told)
    if json:
        print_json(told)
        return
    print(f"{judged.folder}, {judged.split}: {n:,} queries, {len(items):,} documents")
    names = list(found["dense"].figures)
    print(f"{'':8}" + "".join(f"{name:>12}" for name in names) + f"{'ms a query':>12}")
    for mode, one in found.items():
        line = "".join(f"{value:12.4f}" for value in one.figures.values())
        print(f"{mode:8}{line}{1000 * seconds[mode] / n:12.1f}")

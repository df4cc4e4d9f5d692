"""Learning by comparison: an own encoder's sentence vectors before and after contrastive training,
beside those of counted words; and a cross-encoder beside the order of vectors that it mends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tercet.data.documents import records
from tercet.data.duplicates import normalised
from tercet.errors import InputError
from tercet.evaluate.similarity import similarity, tfidf_similarity
from tercet.jobs.finetune import finetune
from tercet.jobs.flags import say
from tercet.jobs.reproduce.bodies import body
from tercet.jobs.reproduce.kept import Figures, Kept
from tercet.jobs.reproduce.kinds import scored_pairs
from tercet.jobs.reproduce.table import Row
from tercet.jobs.reproduce.tasks import recipe_of
from tercet.language_model import load
from tercet.train.progress import clock

POOL = "mean"  # of the encoder as it came, with which the trained one is compared


def contrastive(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """``embed`` and ``rank``: each a ``body``, and a ``recipe`` of `tercet finetune` without its
    model; ``similarity``: the scored pairs that nothing is learned from."""
    return [*_embed(entry, folder, quiet), *_rank(entry, folder, quiet)]


def _embed(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    told, measure = entry["embed"], f"{entry['similarity']['name']}, Spearman × 100"
    kept = Kept(folder / "pieces.json", say if not quiet else lambda sentence: None)
    wanted = recipe_of("the body", entry, {"task": "embed", **told["recipe"]}, folder)
    _apart(wanted.data.train, entry["similarity"]["test"])  # before the body's hour of pretraining
    model = body(told["body"], quiet)
    before = kept(f"{measure}, before", partial(_agreement, entry, model))["spearman"]
    words = kept(f"{measure}, TF-IDF", partial(_words, entry))["spearman"]
    wanted = dataclasses.replace(wanted, model=model)
    result = finetune(wanted, folder / "embed", resume=True, quiet=quiet)
    trained = partial(_agreement, entry, str(folder / "embed" / "model"))
    after = kept(f"{measure}, after {result['runs']['seed-0']['step']} steps", trained)["spearman"]
    note = (
        f"{result['data']['train']:,} pairs, none with a score; {clock(result['seconds'])} of "
        "training steps"
    )
    return [
        Row(f"{measure}: its own {POOL} pooling", before),
        Row(f"{measure}: trained contrastively", after, None, note),
        Row(f"{measure}: TF-IDF cosine", words),
        Row("contrastive training adds, points", after - before, entry["aim"], "at least"),
    ]


def _apart(learned: Sequence[str], measured: str) -> None:
    """Raises InputError where a pair that is to be measured stands among those to be learned."""
    asked = {frozenset(map(normalised, pair)) for pair in scored_pairs(measured)[0]}
    for name in learned:
        rows = list(records(name, columns=("text1", "text2")))
        both = [frozenset(map(normalised, (row["text1"], row["text2"]))) for row in rows]
        if shared := sum(pair in asked for pair in both):
            raise InputError(
                f"{name}: {shared:,} of its {len(rows):,} pairs stand in {measured} too, so that "
                "what is measured would have been learned; leave their file out of the table"
            )


def _agreement(entry: dict[str, Any], model: str) -> Figures:
    pairs, scores = scored_pairs(entry["similarity"]["test"])
    return {"spearman": 100 * similarity(load(model), pairs, scores, pool=POOL)}


def _words(entry: dict[str, Any]) -> Figures:
    pairs, scores = scored_pairs(entry["similarity"]["test"])
    counted = [text for pair in scored_pairs(entry["similarity"]["train"])[0] for text in pair]
    return {"spearman": 100 * tfidf_similarity(pairs, scores, counted)}


def _rank(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    told = entry["rank"]
    model = body(told["body"], quiet)
    wanted = recipe_of(model, entry, {"task": "rank", **told["recipe"]}, folder)
    result = finetune(wanted, folder / "rank", resume=True, quiet=quiet)
    test = result["test"]["mean"]
    note = (
        f"the {wanted.rank.depth} nearest of {result['test']['n']:,} queries put in order; "
        f"{clock(result['seconds'])} of training steps"
    )
    measure = f"{told['name']}, nDCG@10 × 100"
    return [
        Row(f"{measure}: order of vectors", 100 * test["dense_ndcg"]),
        Row(f"{measure}: reranked", 100 * test["ndcg"], None, note),
    ]

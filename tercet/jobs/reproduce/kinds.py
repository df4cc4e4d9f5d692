"""One body, trained once to say the next token and once to fill masks: what each is good for.

Both read the same files for the same floating-point operations. Which vectors of a text are taken,
the mean or the last, is chosen on validation texts for each.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet.data.documents import records
from tercet.errors import InputError
from tercet.evaluate.perplexity import pseudo_bits_per_byte, text_bits_per_byte
from tercet.evaluate.probe import probe
from tercet.evaluate.similarity import similarity
from tercet.jobs import recipe as recipes
from tercet.jobs.flags import say
from tercet.jobs.reproduce.kept import Figures, Kept
from tercet.jobs.reproduce.table import Row, trained
from tercet.jobs.train.run import Run
from tercet.jobs.train.settings import RunRecipe
from tercet.language_model import LanguageModel, load
from tercet.plan import plan
from tercet.text.read import lines
from tercet.train.progress import clock

CAUSAL, MASKED = "causal", "masked"
POOLS = {CAUSAL: ("mean", "last"), MASKED: ("mean",)}  # the last of a decoder has seen all
# What tells the two families apart; all else of the bodies must be the same.
FAMILY = {
    *("encoder_layers", "decoder_layers", "heads", "pool"),
    *("pooler_activation", "pooler_bias", "pooler_norm"),  # of a head that neither has yet
}
VOCABULARY = {"vocab_size", "bos_id", "eos_ids", "pad_id", "start_id"}
LOOKED_AT = 20  # steps, for the tokens of one


def two_kinds(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """Similarity, probe and bits per byte of both, and what each has cost."""
    runs = {CAUSAL: trained(entry[CAUSAL], folder / CAUSAL, quiet=quiet)}
    wanted = matched(*runs[CAUSAL], entry[MASKED], folder / MASKED)
    runs[MASKED] = trained(wanted, folder / MASKED, quiet=quiet)
    kept = Kept(folder / "pieces.json", say if not quiet else lambda sentence: None)
    tables: dict[str, list[Row]] = {}
    for kind, (run, result) in runs.items():
        job = Job(entry, kind, run)
        measures = {"similarity": job.similarity, "probe": job.probe, "bits": job.bits}
        for name, measure in measures.items():
            found = kept(f"{name}, {kind}", measure)
            row = Row(f"{found['measure']}, {kind}", found["figure"], None, found["note"])
            tables.setdefault(name, []).append(row)
        spent = flops_per_token(run) * result["tokens"]
        note = f"{result['step']:,} steps, {result['tokens']:,} tokens, {clock(result['seconds'])}"
        tables.setdefault("cost", []).append(Row(f"training FLOPs, {kind}", spent, None, note))
    return [row for rows in tables.values() for row in rows]


def matched(first: Run, result: dict[str, Any], recipe: str, folder: Path) -> RunRecipe:
    """The second recipe with as many steps as cost what the first run has cost.

    Raises InputError where the bodies are not the same.
    """
    run = Run(folder, recipes.load(recipe))
    run.prepare()
    for field in dataclasses.fields(run.config):
        pair = getattr(first.config, field.name), getattr(run.config, field.name)
        if field.name not in FAMILY | VOCABULARY and pair[0] != pair[1]:
            raise InputError(
                f"{recipe}: the bodies must be the same, and {field.name} is {pair[1]!r} where the "
                f"first run has {pair[0]!r}; set model.change.{field.name}"
            )
    stream = run.stream()  # special tokens around a text are read too
    read = statistics.fmean(batch.n_tokens for step in range(LOOKED_AT) for batch in stream(step))
    steps = flops_per_token(first) * result["tokens"] / (flops_per_token(run) * read)
    train = dataclasses.replace(run.recipe.train, steps=max(1, round(steps)), budget=None)
    return dataclasses.replace(run.recipe, train=train)


def flops_per_token(run: Run) -> float:
    """Of training, in whole samples: a masked model computes logits for the masked alone."""
    objective = run.recipe.objective
    targets = round(objective.rate * objective.length) if objective.kind == "masked" else None
    return plan(run.config, [objective.length], targets=targets).training_flops_per_token


@dataclass(frozen=True)
class Job:
    """What is measured of one of the two."""

    entry: dict[str, Any]
    kind: str
    run: Run

    @property
    def model(self) -> LanguageModel:
        return load(self.run.folder / "model")

    def similarity(self) -> Figures:
        """Cosines against people's scores, the pool chosen on the validation pairs."""
        scores = {pool: self._spearman("validation", pool) for pool in POOLS[self.kind]}
        best = max(scores, key=lambda pool: scores[pool])
        note = f"pool {best}; validation " + ", ".join(f"{p} {s:.1f}" for p, s in scores.items())
        figure = self._spearman("test", best)
        measure = f"{self.entry['similarity']['name']}, Spearman × 100"
        return {"measure": measure, "figure": figure, "note": note}

    def _spearman(self, split: str, pool: str) -> float:
        pairs, scores = scored_pairs(self.entry["similarity"][split])
        return 100 * similarity(self.model, pairs, scores, pool=pool)

    def probe(self) -> Figures:
        return probed(self.entry["probe"], self.model, POOLS[self.kind])

    def bits(self) -> Figures:
        """Of the held-out text: its probability, or of a masked model what comes nearest."""
        text = "\n".join(lines(_file(self.entry["text"])))
        length = self.run.recipe.objective.length
        if self.kind == CAUSAL:
            figure = text_bits_per_byte(self.model, text, length=length)
            note = f"windows of {length} tokens that slide by half"
            return {"measure": "bits per byte", "figure": figure, "note": note}
        sample = self.entry["sample"]
        figure = pseudo_bits_per_byte(self.model, text, length=length, sample=sample)
        note = (
            f"{sample:,} tokens, each guessed from both sides: no probability of the text, not to "
            "be compared with bits per byte"
        )
        return {"measure": "pseudo-bits per byte", "figure": figure, "note": note}


def probed(told: dict[str, Any], model: LanguageModel, pools: Sequence[str]) -> Figures:
    """Logistic regression on vectors, on all training texts but the last ``held_out``, which choose
    the pool."""
    (texts, labels), test = (_labelled(told[name], told["label"]) for name in ("train", "test"))
    cut = len(texts) - told["held_out"]
    train, validation = (texts[:cut], labels[:cut]), (texts[cut:], labels[cut:])
    found = [(pool, probe(model, train, validation, test, pool=pool)) for pool in pools]
    _, best = max(found, key=lambda one: one[1].validation_accuracy)
    chances = ", ".join(f"{pool} {100 * one.validation_accuracy:.1f}" for pool, one in found)
    note = f"{best.features}, C {best.strength:g}; validation {chances}"
    figure = 100 * best.test.accuracy
    measure = f"{told['name']}, probe of frozen vectors, %"
    return {"measure": measure, "figure": figure, "note": note}


def scored_pairs(name: str) -> tuple[list[tuple[str, str]], list[float]]:
    """Pairs of sentences, and how alike people call the two."""
    rows = list(records(_file(name), columns=("sentence1", "sentence2", "score")))
    pairs = [(row["sentence1"], row["sentence2"]) for row in rows]
    return pairs, [float(row["score"]) for row in rows]


def _file(name: str) -> str:
    (file,) = recipes.expanded([name])
    return file


def _labelled(name: str, label: str) -> tuple[list[str], list[Any]]:
    rows = list(records(_file(name), columns=("text", label)))
    return [row["text"] for row in rows], [row[label] for row in rows]

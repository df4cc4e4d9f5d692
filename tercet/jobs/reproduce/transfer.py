"""What pretraining is worth: an encoder fine-tuned, and the same one from scratch.

Both get the same search of rates, epochs and what the head reads, chosen on the validation texts;
the test texts are looked at by what was chosen. Beside them the frozen vectors, and words counted
by TF-IDF.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from tercet.data.documents import records
from tercet.errors import InputError
from tercet.evaluate.probe import probe, tfidf_baseline
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune.classify import of_tables
from tercet.jobs.finetune.fit import Fitted, Fitting
from tercet.jobs.finetune.rows import Table
from tercet.jobs.finetune.settings import Classify, Data, FinetuneRecipe, Tuning
from tercet.jobs.flags import say
from tercet.jobs.reproduce.kept import Figures, Kept
from tercet.jobs.reproduce.table import Row, trained
from tercet.jobs.train.run import Run
from tercet.jobs.train.settings import Model, RunRecipe
from tercet.language_model import LanguageModel, load
from tercet.model import build
from tercet.train.counted import counted_vectors
from tercet.train.log import rows as log_rows

PRETRAINED, SCRATCH = "pretrained", "from scratch"
FROZEN, WORDS = "pretrained, frozen", "TF-IDF"
SPLITS = ("train", "validation", "test")
STEPS = 0.92  # of the minutes; the rest is for tokenizer, shards, counting and evaluations
Texts = tuple[list[str], list[Any]]  # and their labels


def transfer(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """Test accuracy by the number of labels, a row for each body and for what is beside them."""
    run, result, minutes = pretrained(entry, folder, quiet)
    kept = Kept(folder / "pieces.json", say if not quiet else lambda sentence: None)
    job, rows = Job(entry, folder, run), []
    for size, epochs in entry["labels"].items():
        searched = f"{epochs} epochs, rates {entry['rates']}, read by {entry['pools']}"
        tuned = {
            body: [
                kept(
                    f"{body}, {size} labels, {searched}, seed {seed}",
                    partial(job.tuned, body, size, seed),
                )
                for seed in range(entry["seeds"])
            ]
            for body in (PRETRAINED, SCRATCH)
        }
        beside = {
            FROZEN: kept(f"{FROZEN}, {size} labels", partial(job.frozen, size)),
            WORDS: kept(f"{WORDS}, {size} labels", partial(job.words, size)),
        }
        rows += _rows(size, tuned, beside)
    note = (
        f"of {entry['cpu_minutes']} allowed; {result['step']:,} steps, {result['tokens']:,} "
        f"tokens, validation loss {result['loss']:.3f}"
    )
    return [*rows, Row("pretraining, CPU minutes at most", minutes, None, note)]


# pretraining --------------------------------------------------------------------------------------


def pretrained(
    entry: dict[str, Any], folder: Path, quiet: bool
) -> tuple[Run, dict[str, Any], float]:
    """The finished run, its result.json, and the CPU minutes that it took.

    It starts from token vectors that were counted in the run's own texts, and the counting is
    among the minutes, as are tokenizer, shards and evaluations.
    """
    place, seconds = folder / "run", folder / "cpu-seconds.txt"
    with _measured(seconds):
        begun = place / recipes.RECIPE
        if begun.exists():  # it goes on, also on other threads than it began with
            wanted = recipes.load(str(begun))
        else:
            wanted = _begun(entry, folder)
        run, result = trained(wanted, place, quiet=quiet)
    used = sum(float(line) for line in seconds.read_text(encoding="utf-8").split())
    threads = max(row["threads"] for row in log_rows(place / "log.jsonl", "event"))
    # a killed process wrote down nothing, but its steps took no more than all of its threads
    return run, result, max(used, threads * result["seconds"]) / 60


def _begun(entry: dict[str, Any], folder: Path) -> RunRecipe:
    """The recipe with a clock for its steps and the counted start; its texts are prepared."""
    seconds = STEPS * 60 * entry["cpu_minutes"] / torch.get_num_threads()
    wanted = recipes.load(entry["recipe"], [f"train.budget={seconds:.1f}s"])
    run = Run(folder / "run", wanted)
    run.prepare()
    network = build(run.config, wanted.seed)
    streams = [splits.train for splits in run.corpus.sources.values()]
    table = counted_vectors(streams, run.config.vocab_size, run.config.d_model, seed=wanted.seed)
    with torch.no_grad():
        network.tokens.weight.copy_(table)
        network.tie()
    LanguageModel(network, run.tokenizer).save(folder / "start")
    return dataclasses.replace(wanted, model=Model(folder=str(folder / "start")))


@contextmanager
def _measured(path: Path) -> Iterator[None]:
    """Adds the CPU seconds of the block, however it ends, as a line of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    started = _cpu_seconds()
    try:
        yield
    finally:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{_cpu_seconds() - started:.1f}\n")


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


# measuring ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """The pieces of the measurement."""

    entry: dict[str, Any]
    folder: Path
    run: Run

    def _texts(self, size: int) -> tuple[Texts, ...]:
        """The three splits; of the training texts the first ``size``."""
        found = []
        for split in SPLITS:
            (file,) = recipes.expanded([self.entry["data"][split]])
            rows = list(records(file, columns=("text", "label")))
            rows = rows[:size] if split == "train" else rows
            found.append(([row["text"] for row in rows], [row["label"] for row in rows]))
        if len(found[0][0]) < size:
            raise InputError(f"labels {size}: there are {len(found[0][0]):,} training texts")
        return tuple(found)

    def _body(self, body: str, seed: int) -> LanguageModel:
        """From scratch a seed begins with other weights; what was trained is there once."""
        if body == SCRATCH:
            return LanguageModel(build(self.run.config, seed), self.run.tokenizer)
        return load(self.run.folder / "model")

    def tuned(self, body: str, size: int, seed: int) -> Figures:
        """Of all rates and pools the run with the best validation accuracy; of equals the first."""
        model = self._body(body, seed)
        found = {
            (rate, pool): self._tuned(model, size, seed, rate, pool)
            for rate in self.entry["rates"]
            for pool in self.entry["pools"]
        }
        rate, pool = max(found, key=lambda one: found[one].validation.figures["accuracy"])
        best = found[rate, pool]
        assert best.test is not None
        return {
            "test": best.test.figures["accuracy"],
            "validation": best.validation.figures["accuracy"],
            "rate": rate,
            "pool": pool,
            "epoch": round(best.best_epoch),
        }

    def _tuned(self, model: LanguageModel, size: int, seed: int, rate: float, pool: str) -> Fitted:
        train = Tuning(
            epochs=self.entry["labels"][size],
            learning_rate=rate,
            bfloat16=self.run.recipe.train.bfloat16,
        )
        wanted = FinetuneRecipe(
            "", "classify", Data([""]), train, classify=Classify(kind="label", pool=pool), seed=seed
        )
        tables = {
            split: Table({"text": "text", "label": "label"}, (), self._rows(split, part))
            for split, part in zip(SPLITS, self._texts(size))
        }
        task, splits = of_tables(tables, wanted, model, lambda sentence: None)
        with TemporaryDirectory(dir=self.folder) as place:
            keep = lambda network, finished, value: None  # noqa: E731 (only the figures are wanted)
            return Fitting(Path(place), task, splits, wanted, seed, keep).run(quiet=True)

    def _rows(self, split: str, part: Texts) -> list[tuple[str, dict[str, Any]]]:
        return [
            (f"{split}, row {i}", {"text": text, "label": label})
            for i, (text, label) in enumerate(zip(*part, strict=True), 1)
        ]

    def frozen(self, size: int) -> Figures:
        found = probe(self._body(PRETRAINED, 0), *self._texts(size))
        return {"test": found.test.accuracy, "chosen": f"C {found.strength:g}"}

    def words(self, size: int) -> Figures:
        found = tfidf_baseline(*self._texts(size))
        return {"test": found.test.accuracy, "chosen": f"{found.features}, C {found.strength:g}"}


def _rows(size: int, tuned: dict[str, list[Figures]], beside: dict[str, Figures]) -> Iterator[Row]:
    """Accuracies in percent; of fine-tunings the mean over the seeds."""
    means = {}
    for body, seeds in tuned.items():
        means[body] = 100 * statistics.fmean(one["test"] for one in seeds)
        each = "; ".join(
            f"{100 * one['test']:.1f} (rate {one['rate']:g}, {one['pool']}, epoch {one['epoch']})"
            for one in seeds
        )
        yield Row(f"{size:,} labels, {body}: test accuracy, %", means[body], None, each)
    for name, one in beside.items():
        yield Row(f"{size:,} labels, {name}: %", 100 * one["test"], None, one["chosen"])
    gain = means[PRETRAINED] - means[SCRATCH]
    yield Row(f"{size:,} labels: pretraining adds, points", gain, None, "to the same from scratch")

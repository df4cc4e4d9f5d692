"""All runs of a fine-tuning, one after the other, and what they are worth together."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tercet.errors import InputError
from tercet.hf import is_adapter, library_of, row_for
from tercet.jobs.checks import choice
from tercet.jobs.finetune import curve
from tercet.jobs.finetune.card import card
from tercet.jobs.finetune.fit import SAID, Fitted, Fitting, device, watched
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.finetune.splits import cut, fold, unlearned
from tercet.jobs.finetune.task import Finished, Reader, Scores, Splits, Task
from tercet.jobs.flags import say
from tercet.jobs.precision import IN_FLOAT32, in_bfloat16
from tercet.language_model import LanguageModel, load
from tercet.model import Network
from tercet.model.lora import adapters


@dataclass
class Job:
    """A recipe with its model and data; ``run`` does the work."""

    recipe: FinetuneRecipe
    folder: Path
    model: LanguageModel
    task: Task
    splits: Splits
    quiet: bool

    @classmethod
    def of(cls, recipe: FinetuneRecipe, folder: Path, reader: Reader, *, quiet: bool) -> Job:
        """With all of the data read. Raises InputError for what is wrong with it."""
        model = load(recipe.model)
        if adapters(model.network):
            raise InputError(
                f"{recipe.model} is an adapter; merge it (tercet merge), and fine-tune the result"
            )
        if recipe.train.bfloat16 and not in_bfloat16(True, device()) and not quiet:
            say(IN_FLOAT32)
        task, splits = reader(recipe, model, (lambda sentence: None) if quiet else say)
        choice("evaluate.metric", recipe.evaluate.metric, (None, *task.metrics))
        share = recipe.data.validation
        if recipe.folds is None and recipe.ladder is None and isinstance(share, float):
            splits = cut(splits, share)  # a ladder parts the rows itself
        return cls(recipe, folder, model, task, splits, quiet)

    def run(self) -> dict[str, Any]:
        """What result.json holds, but for the curve."""
        curve.parts(self)  # what is wrong with its sizes is said before anything is learned
        result = self._result(self.fitted())
        (self.folder / "model" / "README.md").write_text(card(result), encoding="utf-8")
        return result

    def with_curve(self, result: dict[str, Any]) -> dict[str, Any]:
        """That, and the runs on fewer rows."""
        parts = curve.parts(self)
        return result | {"curve": curve.measured(self, parts, result)} if parts else result

    def fitted(self, *, kept: bool = True) -> dict[str, Fitted]:
        """Each run, to its end. kept: the best network is in ``folder/model``."""
        done: dict[str, Fitted] = {}
        for name, seed, splits in self._runs():
            if not self.quiet and (n := unlearned(splits)):
                say(f"{name}: {n:,} labels stand in its validation rows alone: it cannot find them")
            keep = self._keep(done) if kept else lambda *_: None
            fitting = Fitting(self.folder / name, self.task, splits, self.recipe, seed, keep)
            done[name] = fitting.run(quiet=self.quiet)
            if not self.quiet:
                say(f"{name}: {done[name].validation} at epoch {done[name].best_epoch:g}")
        return done

    def findings(self, best: str) -> dict[str, Any]:
        """What findings.json holds, once the runs are done: see ``Task.findings``."""
        if not self.quiet:
            say("looking for what is odd in the data (for tercet report)")
        runs = {name: splits for name, _, splits in self._runs()}
        said = {name: self.folder / name / SAID for name in runs}
        folds = [(runs[name], np.load(path)) for name, path in said.items() if path.exists()]
        model = load(self.folder / "model", device=device())
        self.model.network.to(device())
        with watched("findings", self.quiet):
            return self.task.findings(model, runs[best], folds)

    def _runs(self) -> Iterator[tuple[str, int, Splits]]:
        """Name, seed and examples of each."""
        folds, first = self.recipe.folds, self.recipe.seed
        if folds is not None:
            for number in range(folds):
                yield f"fold-{number}", first, fold(self.splits, number, folds)
            return
        for seed in range(first, first + self.recipe.seeds):
            yield f"seed-{seed}", seed, self.splits

    @property
    def metric(self) -> str:
        return self.recipe.evaluate.metric or self.task.metrics[0]

    def _keep(self, done: dict[str, Fitted]) -> Any:
        """What saves a network that is better than those of the runs before."""
        best = max(
            (one.validation.figures[self.metric] for one in done.values()), default=float("-inf")
        )

        def keep(network: Network, finished: Finished, value: float) -> None:
            if value > best or not done:
                self.save(network, finished, self.folder / "model")

        return keep

    def save(self, network: Network, finished: Finished, folder: Path) -> None:
        """The folder of a model that has learned the task."""
        tokenizer = self.model.tokenizer
        tokenizer.max_length = self.model.limit  # what was learned and measured is what is read
        model = LanguageModel(network, tokenizer, finished.extras)
        model.base = self.model.base
        if adapters(network) and row_for(network.config, finished.extras.model_type) is None:
            model = model.merged()  # no class of such a family has that head
        model.save(folder)

    def _result(self, done: dict[str, Fitted]) -> dict[str, Any]:
        best = max(done, key=lambda name: done[name].validation.figures[self.metric])
        tests = {name: one.test for name, one in done.items() if one.test is not None}
        result: dict[str, Any] = {
            "task": self.recipe.task,
            "model": self.recipe.model,
            "metric": self.metric,
            "best": best,
            "validation": together({name: one.validation for name, one in done.items()}),
            "test": together(tests) if tests else None,
            "runs": {
                name: {
                    "best_step": one.best_step,
                    "best_epoch": one.best_epoch,
                    "step": one.step,
                    "seconds": one.seconds,
                    "tokens": one.tokens,
                    "stopped": one.stopped,
                }
                for name, one in done.items()
            },
            "seconds": sum(one.seconds for one in done.values()),
            "learning_rate": self.recipe.train.rate(self.model.config.d_model),
            "adapter": self.model.base if is_adapter(self.folder / "model") else None,
            "library": library_of(self.folder / "model"),
            "facts": done[best].facts,
            "data": self.task.facts,
        }
        return result


def together(scores: dict[str, Scores]) -> dict[str, Any]:
    """Mean and standard deviation of each figure over the runs, and what each run has."""
    names = next(iter(scores.values())).figures
    values = {name: [one.figures[name] for one in scores.values()] for name in names}
    several = len(scores) > 1
    return {
        "mean": {name: statistics.fmean(found) for name, found in values.items()},
        "sd": {
            name: statistics.stdev(found) if several else None for name, found in values.items()
        },
        "runs": {name: one.figures for name, one in scores.items()},
        "sentences": {name: one.sentence for name, one in scores.items()},
        "n": next(iter(scores.values())).n,
    }

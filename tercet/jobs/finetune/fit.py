"""One run of a fine-tuning: one seed, in a folder of its own, which goes on after any interruption.

Knows steps, checkpoints and the best evaluation; what is learned is the task's.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch

from tercet.errors import InputError
from tercet.files import written
from tercet.jobs.finetune.layers import freeze, share_of
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.finetune.task import Finished, Scores, Splits, Task
from tercet.jobs.precision import in_bfloat16
from tercet.jobs.recipe import LOG, RESULT
from tercet.model import Network, build, heard
from tercet.model.lora import LoRA, adapt
from tercet.train import Checkpoints, Log, Optimizer, Recipe, Recorder, Schedule, State
from tercet.train import fit as optimise
from tercet.train.loop import Action
from tercet.train.progress import Watch

SAID = "said.npy"  # of a fold: what its model said of the examples that it had not learned from


def device() -> str:
    """Where networks learn and are measured."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def watched(label: str, quiet: bool) -> Iterator[Watch]:
    """Whoever waits sees the steps, and how far texts are read to measure by."""
    with Watch(label, quiet=quiet) as watch, heard(watch.reading):
        yield watch


@dataclass(frozen=True)
class Fitted:
    """How a run ended. ``best`` and ``seconds`` are of steps and of the time spent in them."""

    validation: Scores
    test: Scores | None
    best_step: int
    best_epoch: float
    step: int
    seconds: float
    tokens: int
    stopped: str | None  # why it ended early
    facts: dict[str, Any]  # what the task says of the finished head

    def write(self, path: Path) -> None:
        with written(path) as draft:
            draft.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Fitted | None:
        if not path.exists():
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
        for name in ("validation", "test"):
            values[name] = values[name] and Scores(**values[name])
        return cls(**values)


@dataclass(frozen=True)
class Learning:
    """The steps of a run, in a folder, from wherever it stands."""

    folder: Path
    task: Task
    splits: Splits
    recipe: FinetuneRecipe
    seed: int

    def due(self, log: Log) -> Action:
        """What is to be done at every epoch's end."""
        return self.checkpoints.save

    @cached_property
    def network(self) -> Network:
        network = self.task.network(self.seed)
        if self.recipe.train.scratch:
            network = build(network.config, self.seed)
        if self.recipe.train.freeze is not None:
            freeze(network, self.recipe.train.freeze)
        if (lora := self.recipe.train.lora) is not None:
            settings = LoRA(lora.rank, lora.alpha, lora.dropout, tuple(lora.targets))
            adapt(network, settings, self.seed)
        return network.to(device())

    @cached_property
    def optimizer(self) -> Optimizer:
        train = self.recipe.train
        return Optimizer(
            self.network,
            weight_decay=train.weight_decay,
            betas=(train.betas[0], train.betas[1]),
            share=share_of(self.network.config, train.layer_decay),
        )

    @cached_property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder / "checkpoints", self.network, self.optimizer)

    def optimise(self, state: State, watch: Watch) -> None:
        stream, train = self.task.stream(self.splits.train, self.seed), self.recipe.train
        steps = max(1, round(train.epochs * stream.draw.steps_per_epoch))
        every = self.recipe.evaluate.every or -(-steps // train.epochs)
        bfloat16 = in_bfloat16(train.bfloat16, device())
        how = Recipe(
            train.rate(self.network.config.d_model),
            steps=steps,
            schedule=Schedule(train.schedule, warmup=math.ceil(train.warmup * steps)),
            clip=train.clip,
            seed=self.seed,
            bfloat16=bfloat16,
            spike=0.0,  # on a few hundred texts losses leap
        )
        # before there is a log, for it may refuse
        objective = self.task.objective(self.splits.train)
        with Log(self.folder / LOG, step=state.step) as log:
            parameters = sum(parameter.numel() for parameter in self.network.parameters())
            learned = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
            log(
                "event",
                state.step,
                event="resumed" if state.step else "begun",
                parameters=parameters,
                learned=learned,
                steps=steps,
                threads=torch.get_num_threads(),
                bfloat16=bfloat16,
            )
            optimise(
                self.network,
                stream,
                objective,
                how,
                self.optimizer,
                state=state,
                actions=[(1, watch), (1, Lines(log)), (every, self.due(log))],
                on_stop=self.checkpoints.save,
                recorder=Recorder(self.network, self.folder / "recorder"),
            )


@dataclass(frozen=True)
class Fitting(Learning):
    """A run that is to be, or is under way, whose best epoch is kept. ``keep``: saves a network
    that is the best so far, with what the task says of it and the value of the metric."""

    keep: Callable[[Network, Finished, float], None]

    @property
    def metric(self) -> str:
        return self.recipe.evaluate.metric or self.task.metrics[0]

    def due(self, log: Log) -> Action:
        return Measure(self, log)

    def run(self, *, quiet: bool) -> Fitted:
        """To the end, from wherever it stands. Where it ends before, by Ctrl-C or at a loss that is
        no number, the best network so far is kept."""
        if done := Fitted.read(self.folder / RESULT):
            return done
        with watched(self.folder.name, quiet) as watch:
            found = self._fitted(watch)
        found.write(self.folder / RESULT)
        rmtree(self.checkpoints.folder, ignore_errors=True)  # the result stands without them
        return found

    def _fitted(self, watch: Watch) -> Fitted:
        state = self.checkpoints.load() or State()
        try:
            self.optimise(state, watch)
            return self._end(state)
        except KeyboardInterrupt:
            self._load_best(state)
            self._finish(state)
            raise
        except InputError:
            if state.best_step is not None:
                with suppress(InputError):  # why the run ended is to be said
                    self._load_best(state)
                    self._finish(state)
            raise

    def _load_best(self, state: State) -> None:
        """The best weights so far; before a first evaluation the last ones stay."""
        if state.best_step is not None:
            self.checkpoints.load(state.best_step)
        self.network.eval()

    def _finish(self, state: State) -> Finished:
        """The network, finished and kept; before a first evaluation only where nothing else is."""
        finished = self.task.finish(self.network, self.splits.validation)
        self.keep(self.network, finished, -math.inf if state.best is None else state.best)
        return finished

    def _end(self, state: State) -> Fitted:
        """The best weights, measured, finished and kept."""
        best = state.step if state.best_step is None else state.best_step
        self._load_best(state)
        validation = self.task.scores(self.network, self.splits.validation)
        test = self.task.scores(self.network, self.splits.test) if self.splits.test else None
        finished = self._finish(state)
        if self.recipe.folds is not None and finished.said is not None:
            with written(self.folder / SAID) as draft:
                np.save(draft, finished.said.numpy())
        per_epoch = self.task.stream(self.splits.train, self.seed).draw.steps_per_epoch
        return Fitted(
            validation,
            test,
            best,
            round(best / per_epoch, 2),
            state.step,
            state.seconds,
            state.tokens,
            state.stopped,
            finished.facts,
        )


@dataclass(frozen=True)
class Lines:
    """The action behind every step: a line of the log."""

    log: Log

    def __call__(self, state: State) -> None:
        facts = {"tokens": state.tokens, "seconds": round(state.seconds, 3)}
        self.log("step", state.step, **state.last, **facts)


@dataclass(frozen=True)
class Measure:
    """The action at an epoch's end: the scores of the validation examples, and a checkpoint; the
    best one's is kept. Without a better one for so long as the recipe's patience, the run ends."""

    run: Fitting
    log: Log

    def __call__(self, state: State) -> None:
        network, evaluate = self.run.network, self.run.recipe.evaluate
        network.eval()
        scores = self.run.task.scores(network, self.run.splits.validation)
        network.train()
        value = scores.figures[self.run.metric]
        beside = [scores.figures[name] for name in self.run.task.metrics]
        self.log("evaluation", state.step, **scores.figures, chosen_by=self.run.metric)
        # of few rows several epochs get equally many right: then the task's other figures decide
        if state.best is None or (value, beside) > (state.best, state.beside):
            state.best, state.best_step, state.waited = value, state.step, 0
            state.beside = beside
        else:
            state.waited += 1
            if evaluate.patience is not None and state.waited >= evaluate.patience:
                if not state.done:
                    state.stopped = (
                        f"no better {self.run.metric} in {evaluate.patience} evaluations"
                    )
        self.run.checkpoints.save(state)

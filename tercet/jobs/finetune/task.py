"""What a task is to the frame that fine-tunes: its data, its network, its loss, its scores.

The frame knows steps, seeds, folders and interruptions; a task knows texts, labels and heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from tercet.data import Stream
from tercet.hf import Extras
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.language_model import LanguageModel
from tercet.model import Network
from tercet.train.loop import Objective

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class Splits:
    """The examples of a job, each whatever its task reads, with a property ``group``: examples of
    one group (the same text, say) stay together when a split is cut."""

    train: Sequence[Any]
    validation: Sequence[Any]
    test: Sequence[Any] = ()


# Of each fold its examples, and what its model said of those that it was validated on (B, labels)
Folds = Sequence[tuple[Splits, np.ndarray]]


@dataclass(frozen=True)
class Scores:
    """What came of a measurement: figures by name, of those that may be chosen by a larger one is
    better; ``sentence`` says them to people."""

    figures: dict[str, float]
    sentence: str
    n: int  # examples

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Finished:
    """What is saved beside the weights, and what else is to be said of them."""

    extras: Extras
    facts: dict[str, Any] = field(default_factory=dict)
    said: Tensor | None = None  # (B, labels) of one label: probabilities of validation examples


class Task(Protocol):
    """A task on its data, all of which has been read and checked."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The figures that the best weights may be chosen by; the first where nobody asks."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """About the data: counts, columns, labels; for result.json and the model card."""
        ...

    def network(self, seed: int) -> Network:
        """The model's body under the task's head, as it stands before the first step."""
        ...

    def stream(self, examples: Sequence[Any], seed: int) -> Stream:
        """The steps that learn from these examples."""
        ...

    def objective(self, examples: Sequence[Any]) -> Objective: ...

    def scores(self, network: Network, examples: Sequence[Any]) -> Scores:
        """Of a network in eval mode. Draws no random numbers."""
        ...

    def finish(self, network: Network, validation: Sequence[Any]) -> Finished:
        """After the last step, under the best weights: calibration, names of labels."""
        ...

    def findings(self, model: LanguageModel, splits: Splits, folds: Folds) -> dict[str, Any]:
        """What a finished model, the best of all runs, shows of the data; see findings.py. splits:
        its own; folds: of all runs, where they were folds and have one label an example."""
        ...


Say = Callable[[str], None]
# Reads the files that a recipe names. Says on the way what a user should know of them.
Reader = Callable[[FinetuneRecipe, LanguageModel, Say], tuple[Task, Splits]]

"""The training step, objectives and optimizers. Sees batches and a model; no family, no text."""

from tercet.train.averages import Average, Averages
from tercet.train.checkpoint import Checkpoints
from tercet.train.log import Log
from tercet.train.loop import fit
from tercet.train.objectives import (
    Classification,
    CrossEntropy,
    NextSentence,
    accuracy,
    cross_entropy,
)
from tercet.train.optimizers import Optimizer
from tercet.train.parallel import World, world
from tercet.train.recorder import Recorder
from tercet.train.schedules import Schedule
from tercet.train.state import Recipe, State

__all__ = [
    "Average",
    "Averages",
    "Checkpoints",
    "Classification",
    "CrossEntropy",
    "Log",
    "NextSentence",
    "Optimizer",
    "Recipe",
    "Recorder",
    "Schedule",
    "State",
    "World",
    "accuracy",
    "cross_entropy",
    "fit",
    "world",
]

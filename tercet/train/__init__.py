"""The training step, objectives and optimizers. Sees batches and a model; no family, no text."""

from tercet.train.checkpoint import load_latest, save_step
from tercet.train.loop import Recipe, State, fit
from tercet.train.objectives import accuracy, cross_entropy
from tercet.train.optimizers import Optimizer

__all__ = [
    "Optimizer",
    "Recipe",
    "State",
    "accuracy",
    "cross_entropy",
    "fit",
    "load_latest",
    "save_step",
]

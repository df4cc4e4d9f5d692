"""The training step, objectives and optimizers. Sees batches and a model; no family, no text.

Names only, each imported when it is first asked for: a run's log can be read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tercet.train.averages import Average, Averages
    from tercet.train.checkpoint import Checkpoints
    from tercet.train.contrastive import InBatch, Ordered, SameLabel
    from tercet.train.log import Log
    from tercet.train.loop import fit
    from tercet.train.objectives import (
        Classification,
        CrossEntropy,
        NextSentence,
        Ranking,
        Regression,
        SeveralLabels,
        accuracy,
    )
    from tercet.train.optimizers import Optimizer
    from tercet.train.parallel import World, world
    from tercet.train.places import Span, Tagging
    from tercet.train.policy import PolicyGradient, Rewarded
    from tercet.train.preference import Preference
    from tercet.train.recorder import Recorder
    from tercet.train.schedules import Schedule
    from tercet.train.state import Recipe, State

__all__ = [
    "Average",
    "Averages",
    "Checkpoints",
    "Classification",
    "CrossEntropy",
    "InBatch",
    "Log",
    "NextSentence",
    "Optimizer",
    "Ordered",
    "PolicyGradient",
    "Preference",
    "Ranking",
    "Recipe",
    "Recorder",
    "Regression",
    "Rewarded",
    "SameLabel",
    "SeveralLabels",
    "Schedule",
    "Span",
    "State",
    "Tagging",
    "World",
    "accuracy",
    "fit",
    "world",
]

_HOMES = {
    "averages": ("Average", "Averages"),
    "checkpoint": ("Checkpoints",),
    "contrastive": ("InBatch", "Ordered", "SameLabel"),
    "log": ("Log",),
    "loop": ("fit",),
    "objectives": (
        *("Classification", "CrossEntropy", "NextSentence", "Ranking", "Regression"),
        *("SeveralLabels", "accuracy"),
    ),
    "optimizers": ("Optimizer",),
    "parallel": ("World", "world"),
    "places": ("Span", "Tagging"),
    "policy": ("PolicyGradient", "Rewarded"),
    "preference": ("Preference",),
    "recorder": ("Recorder",),
    "schedules": ("Schedule",),
    "state": ("Recipe", "State"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"tercet.train.{home}"), name)
    raise AttributeError(f"module 'tercet.train' has no attribute {name!r}")

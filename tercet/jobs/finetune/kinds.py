"""What a label is: one of several names, some of them at once, or a number.

A kind knows how a value of a file becomes a target, the loss, what is measured, and what a finished
head still needs. It sees logits and targets; no texts and no network but its head.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tercet.data.sources import nearest
from tercet.errors import InputError
from tercet.evaluate.classification import binary_f1, calibration_error, class_scores
from tercet.evaluate.similarity import pearson, spearman
from tercet.jobs.finetune.task import Scores
from tercet.train import Classification, Regression, SeveralLabels
from tercet.train.loop import Objective

EFFECTIVE = 0.999  # beta of Cui et al. 2019
MEASURES = 0.8  # such a share of numbers among the values, and all of them are meant to be
HALF = 0.5  # from this probability on a label of several is one of a text's


class Kind(Protocol):
    @property
    def problem(self) -> str:
        """As Hugging Face's config.json calls it."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]: ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs."""
        ...

    def target(self, value: Any, where: str) -> Any:
        """Of a value as a file has it. Raises InputError for a label that was never learned."""
        ...

    def stacked(self, targets: Sequence[Any]) -> Tensor:
        """(B,) numbers of labels or values, or (B, labels) of several."""
        ...

    def objective(self, targets: Tensor, weights: str) -> Objective: ...

    def scores(self, logits: Tensor, targets: Tensor) -> Scores: ...

    def finish(self, head: nn.Linear, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """With the logits of the validation examples: what else is stored beside the head."""
        ...


def kind_of(values: Sequence[tuple[str, Any]], told: str | None, separator: str | None) -> str:
    """label, labels or number: as told, else as the values (with their places) look. Numbers are
    measures where one has a fraction or is none (NaN), and names of classes otherwise."""
    if told is not None:
        return told
    if separator is not None or any(isinstance(value, list) for _, value in values):
        return "labels"
    numbers = [_number(value) for _, value in values]
    fractions = any(not math.isfinite(n) or n != int(n) for n in numbers if n is not None)
    if not fractions:
        return "label"
    if None in numbers:
        where, value = values[numbers.index(None)]
        there = sum(number is not None for number in numbers)
        if there < MEASURES * len(numbers):
            return "label"
        raise InputError(
            f"{where}: {value!r} is no number, and {there:,} of {len(numbers):,} rows have one; "
            "mend it, or say --set classify.kind=label if these are names"
        )
    return "number"


def learned_from(
    kind: str, values: Sequence[tuple[str, Any]], separator: str | None, *, centred: bool
) -> Kind:
    """The kind with what the training rows decide: names, or mean and scale. ``centred``: whether
    the head has a bias, which takes the mean."""
    if kind == "number":
        numbers = [Number(0.0, 1.0).target(value, where) for where, value in values]
        scale = float(np.std(numbers))
        if not scale > 0:
            raise InputError(
                f"all {len(numbers):,} training rows have the value {numbers[0]:g}; there is "
                "nothing to learn: give rows with several values"
            )
        return Number(float(np.mean(numbers)) if centred else 0.0, scale)
    if kind == "labels":
        each = {tuple(sorted(set(listed(value, separator)))) for _, value in values}
        if each == {()}:
            raise InputError("no training row has a label; is the label's column the right one?")
        if len(each) == 1:
            raise InputError(
                f"all {len(values):,} training rows have the labels {', '.join(*each)}; give rows "
                "with others, or with none"
            )
        return Several(in_order({name for names in each for name in names}), separator)
    found = {named(value, where) for where, value in values}
    if len(found) < 2:
        raise InputError(
            f"all {len(values):,} training rows have the label {min(found)!r}; give rows of two "
            "labels or more"
        )
    return One(in_order(found))


@dataclass(frozen=True)
class One:
    """One name of several."""

    names: tuple[str, ...]
    problem = "single_label_classification"

    @cached_property
    def places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy", "macro_f1", *(("f1",) if len(self.names) == 2 else ()))

    def target(self, value: Any, where: str) -> int:
        return _place(named(value, where), self.places, where)

    def stacked(self, targets: Sequence[int]) -> Tensor:
        return torch.tensor(targets)

    def objective(self, targets: Tensor, weights: str) -> Objective:
        counts = torch.bincount(targets, minlength=len(self.names)).double()
        return Classification(class_weights(counts, weights))

    def scores(self, logits: Tensor, targets: Tensor) -> Scores:
        """f1: of the second of two labels, "1" or "yes" or "positive". commonest: the accuracy of
        who always says the same."""
        guesses, truth = logits.argmax(-1).numpy(), targets.numpy()
        found = class_scores(truth.tolist(), guesses.tolist())
        figures = {
            "accuracy": found.accuracy,
            "low": found.low,
            "high": found.high,
            "macro_f1": found.macro_f1,
            "commonest": int(torch.bincount(targets).max()) / len(truth),
            "log_loss": float(F.cross_entropy(logits, targets)),
        }
        said = f"accuracy {found.accuracy:.1%} ({found.low:.1%} to {found.high:.1%}), macro F1 "
        said += f"{found.macro_f1:.3f}"
        if len(self.names) == 2:
            figures["f1"] = binary_f1(truth == 1, guesses == 1)
            said += f", F1 of {self.names[1]!r} {figures['f1']:.3f}"
        return Scores(figures, said, len(truth))

    def finish(self, head: nn.Linear, logits: Tensor, targets: Tensor) -> dict[str, float]:
        warm = temperature(lambda t: F.cross_entropy(logits / t, targets))
        best, right = (logits / warm).softmax(-1).max(-1)
        error = calibration_error(best.numpy(), (right == targets).numpy())
        return {"temperature": warm, "calibration_error": error}


@dataclass(frozen=True)
class Several:
    """Any number of names at once."""

    names: tuple[str, ...]
    separator: str | None = None
    problem = "multi_label_classification"
    metrics = ("micro_f1", "macro_f1", "exact")

    @cached_property
    def places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def target(self, value: Any, where: str) -> tuple[int, ...]:
        names = listed(value, self.separator)
        return tuple(sorted({_place(name, self.places, where) for name in names}))

    def stacked(self, targets: Sequence[tuple[int, ...]]) -> Tensor:
        """(B, labels), a byte each: of 30,000 labels 30 kB a text."""
        there = torch.zeros(len(targets), len(self.names), dtype=torch.bool)
        for row, places in zip(there, targets, strict=True):
            row[list(places)] = True
        return there

    def objective(self, targets: Tensor, weights: str) -> Objective:
        """Weighted, a label that is there counts as much as all the texts where it is not."""
        if weights == "none":
            return SeveralLabels()
        there = targets.sum(0).double().clamp(min=1)
        ratio = (len(targets) - there).clamp(min=1) / there
        return SeveralLabels(tuple((ratio.sqrt() if weights == "effective" else ratio).tolist()))

    def scores(self, logits: Tensor, targets: Tensor) -> Scores:
        guesses, truth = (logits.sigmoid() >= HALF).numpy(), targets.numpy()
        each = [binary_f1(truth[:, i], guesses[:, i]) for i in range(len(self.names))]
        figures = {
            "micro_f1": binary_f1(truth, guesses),
            "macro_f1": float(np.mean(each)),
            "exact": float((truth == guesses).all(1).mean()),
        }
        said = f"micro F1 {figures['micro_f1']:.3f}, macro F1 {figures['macro_f1']:.3f}, all labels"
        return Scores(figures, f"{said} right in {figures['exact']:.1%}", len(truth))

    def finish(self, head: nn.Linear, logits: Tensor, targets: Tensor) -> dict[str, float]:
        loss, truth = F.binary_cross_entropy_with_logits, targets.to(logits)
        return {"temperature": temperature(lambda t: loss(logits / t, truth))}


@dataclass(frozen=True)
class Number:
    """A number, learned in units of its spread (``scale``) around ``mean``, which the finished head
    gives back: its weights take them in."""

    mean: float
    scale: float
    problem = "regression"
    metrics = ("spearman", "pearson")
    names = ("value",)

    def target(self, value: Any, where: str) -> float:
        number = _number(value)
        if number is None or not math.isfinite(number):
            raise InputError(f"{where}: the value {value!r} is no number; mend or drop the row")
        return (number - self.mean) / self.scale

    def stacked(self, targets: Sequence[float]) -> Tensor:
        return torch.tensor(targets)

    def objective(self, targets: Tensor, weights: str) -> Objective:
        if weights != "none":
            raise InputError(
                f"train.class_weights {weights!r} is for labels, not for numbers; leave it out"
            )
        return Regression()

    def scores(self, logits: Tensor, targets: Tensor) -> Scores:
        guesses, truth = logits[:, 0].double().numpy(), targets.double().numpy()
        same = len(np.unique(guesses)) < 2 or len(np.unique(truth)) < 2  # no order to compare
        figures = {
            "spearman": 0.0 if same else spearman(guesses, truth),
            "pearson": 0.0 if same else pearson(guesses, truth),
            "error": float(np.sqrt(np.mean((guesses - truth) ** 2)) * self.scale),
        }
        said = f"Spearman {figures['spearman']:.4f}, Pearson {figures['pearson']:.4f}, "
        return Scores(figures, f"{said}root mean squared error {figures['error']:.3g}", len(truth))

    @torch.no_grad()
    def finish(self, head: nn.Linear, logits: Tensor, targets: Tensor) -> dict[str, float]:
        head.weight.mul_(self.scale)
        if head.bias is not None:
            head.bias.mul_(self.scale).add_(self.mean)
        return {}


def class_weights(counts: Tensor, how: str) -> tuple[float, ...] | None:
    """What an example of each label counts, 1 in the mean over the examples. balanced: all labels
    the same together; effective: the effective number of examples (Cui et al. 2019)."""
    if how == "none":
        return None
    there = counts.clamp(min=1)  # of few rows some labels have none
    raw = 1 / there if how == "balanced" else (1 - EFFECTIVE) / (1 - EFFECTIVE**there)
    return tuple((raw * counts.sum() / (raw * counts).sum()).tolist())


def temperature(loss: Any) -> float:
    """The T that logits are divided by for the least loss (Guo et al. 2017, 4.2), by golden section
    over its logarithm: from 1/8 to 8."""
    share, low, high = (math.sqrt(5) - 1) / 2, -math.log(8), math.log(8)
    while high - low > 1e-4:
        left, right = high - share * (high - low), low + share * (high - low)
        if loss(math.exp(left)) <= loss(math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def named(value: Any, where: str) -> str:
    """A label's name."""
    name = "" if value is None else str(value).strip()
    if not name or (isinstance(value, float) and math.isnan(value)):
        raise InputError(f"{where}: has no label ({value!r}); give it one or drop the row")
    if isinstance(value, list | dict):
        raise InputError(f"{where}: the label {value!r:.60} is no name; see classify.kind")
    return name


def listed(value: Any, separator: str | None) -> list[str]:
    """The names in a value: of a list, or of a text with a separator; none in an empty one, which
    NaN is too."""
    value = None if isinstance(value, float) and math.isnan(value) else value
    text = "" if value is None else str(value)
    parts = value if isinstance(value, list) else text.split(separator or "\0")
    names = [str(part).strip() for part in parts if part is not None]
    return [name for name in names if name]


def are_numbers(names: Sequence[str]) -> bool:
    """Whether labels could be read as numbers too."""
    return all(_number(name) is not None for name in names)


def alike(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Those that are one but for case and spaces, or one number."""
    found: dict[str | float, list[str]] = defaultdict(list)
    for name in names:
        number = _number(name)
        found[" ".join(name.casefold().split()) if number is None else number].append(name)
    return [tuple(group) for group in found.values() if len(group) > 1]


def in_order(names: set[str]) -> tuple[str, ...]:
    """Numbers by size, else by the alphabet."""

    def key(name: str) -> tuple[float, str]:
        number = _number(name)  # "nan" is a language and no number that could be put in order
        return (number if number is not None and math.isfinite(number) else 0.0), name

    return tuple(sorted(names, key=key))


def _place(name: str, places: dict[str, int], where: str) -> int:
    if name not in places:
        near, some = nearest(name, places), [repr(known) for known in list(places)[:50]]
        if not near.endswith("?"):
            near = f"there are {', '.join(some)}{' ...' if len(places) > len(some) else '.'}"
        raise InputError(
            f"{where}: the label {name!r} stands in no training row; {near} Add training rows of "
            "it, or drop this one"
        )
    return places[name]


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError):
        return None

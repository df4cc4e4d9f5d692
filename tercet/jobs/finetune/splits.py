"""How examples are cut into those that are learned from and those that the best epoch is chosen by,
and what the splits of files have in common.

Examples of one group stay together; the cut is a pure function of the examples' number, groups
and labels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tercet.data.order import permutation
from tercet.errors import InputError
from tercet.jobs.finetune.task import TRAIN, Say, Splits

SEED = 0  # of the cut: the same for every seed of a job, so that their figures compare


def cut(splits: Splits, share: float) -> Splits:
    """With a share of the training examples for validation. A label goes with all of its examples
    only where there are not enough others: what is not learned could not be found."""
    groups = in_groups(splits.train)
    n = max(1, round(share * len(groups)))
    if n >= len(groups):
        raise InputError(
            f"{len(groups):,} different training examples are too few to hold some back; give a "
            "validation file"
        )
    return _parted(splits, _spare_first(splits.train, groups)[:n])


def _spare_first(examples: Sequence[Any], groups: Sequence[list[int]]) -> list[list[int]]:
    """In their order those that leave an example of each label, then the others."""
    left = Counter(label for one in examples for label in _labels(one))
    spare, last = [], []
    for group in groups:
        own = Counter(label for i in group for label in _labels(examples[i]))
        if any(own[label] >= left[label] for label in own):
            last.append(group)
        else:
            left.subtract(own)
            spare.append(group)
    return [*spare, *last]


def unlearned(splits: Splits) -> int:
    """How many labels the validation examples have that no training example has."""
    train, validation = (
        {label for one in part for label in _labels(one)}
        for part in (splits.train, splits.validation)
    )
    return len(validation - train)


def _labels(example: Any) -> tuple[int, ...]:
    """Of one that is classified. A number that is learned is no label; other tasks have none."""
    target = getattr(example, "target", ())
    return target if isinstance(target, tuple) else (target,) if isinstance(target, int) else ()


def fold(splits: Splits, number: int, folds: int) -> Splits:
    """Validated on the part ``number`` of so many, with all of the other parts learned from."""
    groups = in_groups(splits.train)
    _check_folds(len(groups), folds)
    return _parted(splits, groups[number::folds])


def stratified(examples: Sequence[Any], folds: int) -> list[list[int]]:
    """The numbers of the examples in each of so many parts, every target spread evenly over them.
    With few rows, what a plain cut takes of a label more for one side is missing on the other."""
    groups = _by_target(examples)
    _check_folds(len(groups), folds)
    return [sorted(i for group in groups[part::folds] for i in group) for part in range(folds)]


def _check_folds(examples: int, folds: int) -> None:
    if examples < folds:
        fewer = f", or set folds to at most {examples:,}" if examples > 1 else ""
        raise InputError(
            f"{examples:,} different training examples are too few for {folds} folds; give more "
            f"rows{fewer}"
        )


def held_back(examples: Sequence[Any], share: float) -> list[int]:
    """The numbers of a share of the examples, every target spread evenly: of 0.4 the groups 0, 2
    and 5 of six; but for labels that would go with all of their examples, as in ``cut``."""
    groups = _by_target(examples)
    due = [math.ceil(i * share - 1e-9) for i in range(len(groups) + 1)]
    places = [at for at in range(len(groups)) if due[at] < due[at + 1]]
    rest = [at for at in range(len(groups)) if due[at] == due[at + 1]]
    ordered = _spare_first(examples, [groups[at] for at in (*places, *rest)])
    return sorted(i for group in ordered[: len(places)] for i in group)


def _by_target(examples: Sequence[Any]) -> list[list[int]]:
    return sorted(in_groups(examples), key=lambda group: examples[group[0]].target)


def overlaps(
    parts: Mapping[str, Sequence[Any]],
    what: str,
    say: Say,
    row: Callable[[Any], Any] = lambda one: one,
) -> dict[str, Any]:
    """How many rows of train come twice, and how many of the other splits have a group that train
    has too; both are said. what: the groups, in plural. row: what two equal rows have in common."""
    known = {one.group for one in parts[TRAIN]}
    twice, seen = len(parts[TRAIN]) - len({row(one) for one in parts[TRAIN]}), {}
    if twice:
        say(f"{TRAIN}: {twice:,} rows come twice or more often")
    for name, part in parts.items():
        if name == TRAIN:
            continue
        seen[name] = sum(one.group in known for one in part)
        if seen[name]:
            say(f"{name}: {seen[name]:,} of {len(part):,} {what} stand in {TRAIN} too")
    return {"twice": twice, "seen_in_train": seen}


def in_groups(examples: Sequence[Any]) -> list[list[int]]:
    """The numbers of the examples of each group, the groups in a drawn order."""
    together: dict[Any, list[int]] = {}
    for i, example in enumerate(examples):
        together.setdefault(example.group, []).append(i)
    groups = list(together.values())
    return [groups[i] for i in permutation(SEED, 0, len(groups)).tolist()]


def _parted(splits: Splits, held: list[list[int]]) -> Splits:
    out = {i for group in held for i in group}
    train, validation = (
        [one for i, one in enumerate(splits.train) if (i in out) == there]
        for there in (False, True)
    )
    return Splits(train, validation, splits.test)

"""Answers that a network has written itself, with what they are worth: read from questions at each
step, since another step's network writes others.

Knows neither network nor reward: a function that answers is handed in.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.data.answered import Answers
from tercet.data.draw import Draw, Sample
from tercet.data.shape import Batch
from tercet.data.stream import check_enough, near_equal


@dataclass(frozen=True, eq=False)
class Rollout(Sample):
    """A question and one of the answers to it. places: all tokens of the answer. reference: (n,)
    what another network says of them."""

    reward: float = 0.0
    ended: bool = True  # by itself, not at the limit
    advantage: float = 0.0
    reference: Tensor | None = None


@dataclass(frozen=True)
class Written(Answers):
    """Batches of rollouts. Their labels (B, 2) are reward and whether the answer ended."""

    def batch(self, samples: Sequence[Sample]) -> Batch:
        found, rollouts = super().batch(samples), [s for s in samples if isinstance(s, Rollout)]
        counts = torch.tensor([0 if s.places is None else len(s.places) for s in rollouts])
        worth = torch.tensor([s.advantage for s in rollouts]).repeat_interleave(counts)
        reference = [s.reference for s in rollouts if s.reference is not None]
        return dataclasses.replace(
            found,
            labels=torch.tensor([[s.reward, float(s.ended)] for s in rollouts]),
            advantages=worth,
            reference=torch.cat(reference) if reference else None,
        )


def in_parts(found: Sequence[Sample], micro_tokens: int | None) -> list[Sequence[Sample]]:
    """Of about so many tokens each, in their order; None: all in one."""
    sizes = [sample.n_tokens for sample in found]
    parts = 1 if micro_tokens is None else math.ceil(sum(sizes) / micro_tokens)
    cuts = near_equal(sizes, min(parts, len(found)))
    return [found[a:b] for a, b in zip(cuts[:-1], cuts[1:])]


def asked(sample: Sample) -> tuple[Tensor, Tensor]:
    """The tokens of a conversation before its last answer, and those of that answer."""
    assert sample.places is not None, "this draw has no answers"
    places = sample.places
    breaks = (places[1:] - places[:-1] > 1).nonzero().flatten()
    first = int(places[int(breaks[-1]) + 1] if len(breaks) else places[0])
    return sample.ids[:first], sample.ids[first : int(places[-1]) + 1]


@dataclass(frozen=True)
class Rollouts:
    """The loop's data, as a ``Stream`` is: called with a step it gives this rank's micro-batches.

    draw: of conversations, whose last answers are what is hoped for. answer: questions and the
    step -> several answers to each. A rank answers its own questions, so that all of them together
    are what one process would write; but for a question that a step holds twice on two ranks, which
    both answer alike.
    """

    draw: Draw
    answer: Callable[[Sequence[Sample], int], list[Rollout]]
    micro_tokens: int | None = None
    rank: int = 0
    world: int = 1
    shape: Written = Written()

    def __post_init__(self) -> None:
        check_enough(self.draw, self.world)

    def __call__(self, step: int) -> list[Batch]:
        questions = self.draw.samples(step)
        edges = near_equal([sample.n_tokens for sample in questions], self.world)
        return self.cut(self.answer(questions[edges[self.rank] : edges[self.rank + 1]], step))

    def cut(self, found: Sequence[Sample]) -> list[Batch]:
        """The micro-batches of a rank's answers."""
        return [self.shape.batch(part) for part in in_parts(found, self.micro_tokens)]

    def samples(self, step: int) -> list[Rollout]:
        """All that the step sees, on all ranks."""
        return self.answer(self.draw.samples(step), step)

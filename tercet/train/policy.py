"""Policy gradients by groups: of the answers to one question those with more reward than the others
should become likelier (GRPO, Shao et al. 2024, section 4.1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tercet.data import Batch
from tercet.errors import InputError
from tercet.train.objectives import target_likelihoods

SCALE = 1e-4  # added to a group's deviation: a group in which all are alike teaches nothing


def advantages(rewards: Tensor) -> Tensor:
    """(groups, answers) rewards as deviations from their group's mean, in the group's standard
    deviations (Shao et al. 2024, 4.1.2)."""
    mean, deviation = rewards.mean(1, keepdim=True), rewards.std(1, keepdim=True)
    return (rewards - mean) / (deviation + SCALE)


class Told:
    """What is seen of answers beside the loss: their rewards, the share that ended by themselves,
    and their tokens."""

    seen = ("reward", "ended", "answer_tokens")

    def __init__(self) -> None:
        self._sums = torch.zeros(2, len(self.seen), dtype=torch.float64)

    def add(self, batch: Batch) -> None:
        assert batch.labels is not None
        found = batch.labels.double().cpu()  # (B, 2)
        tokens = torch.tensor([float(batch.n_targets)], dtype=torch.float64)
        self._sums[0] += torch.cat([found.sum(0), tokens])
        self._sums[1] += len(found)

    def taken(self) -> Tensor:
        """(2, 3) the sums of ``seen`` since they were taken last, and over how many answers."""
        sums, self._sums = self._sums, torch.zeros_like(self._sums)
        return sums


class PolicyGradient(Told):
    """p / p' (kl D - A) for each token of answers that the network itself has just written:
    p' is p without a gradient, A the answer's advantage. One update an answer, so nothing is to be
    clipped; probabilities are those at the temperature of sampling. The loop divides by the tokens
    of the whole step, so that a long answer's count as much as a short one's (DAPO, Yu et al. 2025,
    section 3.3).

    kl: the weight of D, the divergence from the batch's ``reference``, estimated token by token as
    p''/p - log(p''/p) - 1 (Shao et al. 2024, equation 4); that p/p' stands before it too makes its
    gradient right on average (DeepSeek-V3.2, 2025, section 3.1).
    """

    def __init__(self, kl: float = 0.0, temperature: float = 1.0) -> None:
        if not (kl >= 0 and temperature > 0):
            raise InputError(
                f"kl {kl} must be 0 or above, such as 0.04, and temperature {temperature} above 0"
            )
        super().__init__()
        self.kl, self.temperature = kl, temperature

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        assert batch.advantages is not None, "these are no answers of the network's own"
        self.add(batch)
        logs = target_likelihoods(model, batch, self.temperature)  # (n_targets,)
        ratio, loss = (logs - logs.detach()).exp(), -batch.advantages
        if self.kl:
            assert batch.reference is not None, "the reference is missing"
            gap = batch.reference - logs
            loss = loss + self.kl * (gap.exp() - gap - 1)
        return (ratio * loss).sum()[None]


class Rewarded(Told):
    """Minus the rewards of a batch's answers, summed: the measure of a validation split."""

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        self.add(batch)
        assert batch.labels is not None
        return -batch.labels[:, :1].sum(0)

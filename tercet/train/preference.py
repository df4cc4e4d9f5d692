"""Direct preference optimisation: of two answers the chosen one should become likelier, measured
from the model that the run began with (Rafailov et al. 2023, equation 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tercet.data import Batch
from tercet.errors import InputError
from tercet.train.objectives import target_likelihoods


class Preference:
    """-log sigmoid(margin), margin = beta ((chosen - its reference) - (rejected - its reference)),
    each the sum of log-probabilities of an answer's tokens; summed over pairs.

    smoothing: the share of pairs that are taken to be labelled the wrong way round (Mitchell 2023,
    A note on DPO with noisy preferences). What is seen beside the loss, sums over pairs that
    ``taken`` gives away: whether the margin is above 0, and the margin.
    """

    seen = ("accuracy", "margin")

    def __init__(self, beta: float = 0.1, smoothing: float = 0.0) -> None:
        if not beta > 0 or not 0 <= smoothing < 0.5:
            raise InputError(
                f"beta {beta} must be above 0, and smoothing {smoothing} from 0 to below 0.5"
            )
        self.beta, self.smoothing = beta, smoothing
        self._sums = torch.zeros(2, len(self.seen), dtype=torch.float64)

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        assert batch.labels is not None, "the reference is missing"
        gained = answer_likelihoods(model, batch) - batch.labels  # (2 pairs,)
        margin = self.beta * (gained[::2] - gained[1::2])  # (pairs,)
        held = margin.detach().double().cpu()
        self._sums[0] += torch.stack([(held > 0).sum().double(), held.sum()])
        self._sums[1] += len(held)
        right, wrong = F.logsigmoid(margin), F.logsigmoid(-margin)
        return -((1 - self.smoothing) * right + self.smoothing * wrong).sum()[None]

    def taken(self) -> Tensor:
        """(2, 2) the sums of ``seen`` since they were taken last, and over how many pairs."""
        sums, self._sums = self._sums, torch.zeros_like(self._sums)
        return sums


def answer_likelihoods(model: Any, batch: Batch) -> Tensor:
    """(B,) float64: the log-probability of each sequence's targets together, in nats."""
    assert batch.select is not None
    logs = target_likelihoods(model, batch)  # (n_targets,)
    sequence = batch.layout.sequence[batch.select]
    counts = torch.bincount(sequence, minlength=batch.layout.n_sequences).tolist()
    return torch.stack([part.double().sum() for part in logs.split(counts)])

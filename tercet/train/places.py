"""What is learned at single tokens: the tags of words, and where an answer begins and ends.

Objectives as in objectives.py: they return SUMS in nats, one for each of ``batch.counts``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tercet.data import Batch
from tercet.model.layout import Layout
from tercet.train.objectives import states


@dataclass(frozen=True)
class Tagging:
    """The tag of each selected token. weights: one for each tag, by which its loss is multiplied;
    their mean over the training words should be 1, so that the loss keeps its size."""

    weights: tuple[float, ...] | None = None

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        chosen = model.heads.picked(states(model, batch), batch.select)  # (n_targets, D)
        logits = model.heads.tag(chosen).float()  # (n_targets, labels)
        weights = None if self.weights is None else logits.new_tensor(self.weights)
        return F.cross_entropy(logits, batch.targets, weights, reduction="sum")[None]


@dataclass(frozen=True)
class Span:
    """The first and the last token of each sequence's answer, each among all of its tokens (Devlin
    et al. 2019, section 4.2)."""

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        assert batch.labels is not None
        logits = model.heads.spans(states(model, batch)).float()  # (N, 2)
        rows = batch.labels + batch.layout.first[:, None]  # (B, 2)
        right = [
            model.heads.picked(logits[:, side, None], rows[:, side]).sum() for side in range(2)
        ]
        return (log_totals(logits, batch.layout).sum() - sum(right))[None]


def log_totals(x: Tensor, layout: Layout) -> Tensor:
    """(N, k) -> (B, k): the logarithm of the sum of the exponentials of each sequence's rows."""
    owners = layout.sequence
    shape = (layout.n_sequences, x.shape[1])
    with torch.no_grad():
        highest = x.new_full(shape, -torch.inf)
        highest.scatter_reduce_(0, owners[:, None].expand_as(x), x, "amax")  # (B, k)
    shares = (x - highest.index_select(0, owners)).exp()  # (N, k)
    return x.new_zeros(shape).index_add(0, owners, shares).log() + highest

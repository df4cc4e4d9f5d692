"""What a step minimises. An objective returns a SUM over the batch's targets, in nats.

The loop divides once, by all the targets of the whole step; so the gradient does not depend on
how the step was cut. One function serves the three families: they differ in their batches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tercet.data import Batch


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """The negative log-likelihood of the batch's targets: a scalar, summed, in nats."""
    return F.cross_entropy(_logits(model, batch), batch.targets, reduction="sum")


@torch.inference_mode()
def accuracy(model: nn.Module, batch: Batch, *, top: int) -> int:
    """How many targets are among the ``top`` most probable tokens."""
    best = _logits(model, batch).topk(top, dim=-1).indices  # (n_targets, top)
    return int((best == batch.targets[:, None]).any(dim=-1).sum())


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    logits = model(
        batch.tokens,
        batch.layout,
        source=batch.source,
        source_layout=batch.source_layout,
        select=batch.select,
    )
    return logits.float()  # (n_targets, V); a sum of exponentials wants all the bits

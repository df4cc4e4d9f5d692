"""What a step minimises. An objective returns SUMS in nats, (k,): one for each of ``batch.counts``.

The loop divides once, by all the targets of the whole step; so the gradient does not depend on
how the step was cut. One function serves the three families: they differ in their batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tercet.data import Batch
from tercet.errors import InputError
from tercet.train.output_loss import cross_entropy as output_loss
from tercet.train.output_loss import log_likelihoods


@dataclass(frozen=True)
class CrossEntropy:
    """The negative log-likelihood of the batch's target tokens, with label smoothing (Szegedy et
    al. 2016, section 7: a share of the probability is spread over the whole vocabulary).

    r_drop: in training each text is read twice, and what two draws of dropout say of it is drawn
    together with this weight (Liang et al. 2021).
    """

    smoothing: float = 0.0
    r_drop: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise InputError(f"smoothing {self.smoothing} must be at least 0 and below 1")
        if not self.r_drop >= 0:
            raise InputError(f"r_drop {self.r_drop} must be at least 0")

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        if not (self.r_drop and model.training):
            return self.of_states(model, states(model, batch), batch)
        twice = [self._output(model, states(model, batch), batch) for _ in range(2)]
        (x, table, bias), (other, *_) = twice
        both, share = torch.cat([x, other]), self.smoothing
        loss = output_loss(both, table, bias, batch.targets, smoothing=share, r_drop=self.r_drop)
        return loss[None]

    def of_states(self, model: Any, found: Tensor, batch: Batch) -> Tensor:
        """From the last hidden states (N, D) of all the batch's tokens."""
        x, table, bias = self._output(model, found, batch)
        return output_loss(x, table, bias, batch.targets, smoothing=self.smoothing)[None]

    def _output(self, model: Any, found: Tensor, batch: Batch) -> tuple[Tensor, Any, Any]:
        """What the output layer multiplies: states (n_targets, D), table and bias."""
        return model.heads.output_parts(model.heads.picked(found, batch.select))


cross_entropy = CrossEntropy()


@dataclass(frozen=True)
class NextSentence:
    """Masked tokens, and whether the second text follows the first (Devlin et al. 2019, 3.1)."""

    tokens: CrossEntropy = CrossEntropy()

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (2,)
        found = states(model, batch)
        masked = self.tokens.of_states(model, found, batch)
        assert batch.labels is not None
        logits = model.heads.next_sentence_logits(found, batch.layout).float()  # (B, 2)
        follows = F.cross_entropy(logits, batch.labels, reduction="sum")
        return torch.cat([masked, follows[None]])


@dataclass(frozen=True)
class Classification:
    """The label of each sequence. weights: what each label counts; None: all of them 1."""

    weights: tuple[float, ...] | None = None

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        logits, labels = _labelled(model, batch)  # (B, labels), (B,)
        weights = None if self.weights is None else logits.new_tensor(self.weights)
        return F.cross_entropy(logits, labels, weights, reduction="sum")[None]


@dataclass(frozen=True)
class SeveralLabels:
    """Each label of each sequence by itself: is it one of them? weights: what a label that is there
    counts beside one that is not."""

    weights: tuple[float, ...] | None = None

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        logits, labels = _labelled(model, batch)  # (B, labels) both
        weights = None if self.weights is None else logits.new_tensor(self.weights)
        loss = F.binary_cross_entropy_with_logits(
            logits, labels.to(logits), pos_weight=weights, reduction="sum"
        )
        return loss[None]


@dataclass(frozen=True)
class Regression:
    """A number for each sequence: squared errors."""

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        logits, labels = _labelled(model, batch)  # (B, 1), (B,)
        return F.mse_loss(logits[:, 0], labels.to(logits), reduction="sum")[None]


def _labelled(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """What a classifier says of the sequences (B, labels), and what it should."""
    assert batch.labels is not None
    return model.heads.classify(states(model, batch), batch.layout).float(), batch.labels


@dataclass(frozen=True)
class Ranking:
    """One label that says how well a text answers a query, both read together.

    Without ``batch.labels`` the first sequence of each group is the answer, and it is the softmax
    over its group that should say so (Gao et al. 2021, Rethink Training of BERT Rerankers); with
    them, 0 to 1, each group is one sequence and the label the probability that it answers.
    """

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        logits = model.heads.classify(states(model, batch), batch.layout)[:, 0].float()  # (B,)
        if batch.labels is not None:
            labels = batch.labels.to(logits)
            return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")[None]
        firsts = [group.log_softmax(0)[:1] for group in logits.split(list(batch.groups))]
        return -torch.cat(firsts).sum()[None]


def states(model: Any, batch: Batch) -> Tensor:
    """The last hidden states (N, D)."""
    return model.states(
        batch.tokens,
        batch.layout,
        source=batch.source,
        source_layout=batch.source_layout,
        types=batch.types,
    )


def target_likelihoods(model: Any, batch: Batch, temperature: float = 1.0) -> Tensor:
    """(n_targets,) float32 natural logarithms of the targets' probabilities, of logits divided by
    the temperature."""
    x, table, bias = model.heads.output_parts(
        model.heads.picked(states(model, batch), batch.select)
    )
    bias = bias if bias is None else bias / temperature
    return log_likelihoods(x / temperature, table, bias, batch.targets)


@torch.inference_mode()
def accuracy(model: Any, batch: Batch, *, top: int) -> int:
    """How many targets are among the ``top`` most probable tokens."""
    found = states(model, batch)
    logits = model.heads.logits(model.heads.picked(found, batch.select))
    best = logits.topk(top, dim=-1).indices  # (n_targets, top)
    return int((best == batch.targets[:, None]).any(dim=-1).sum())

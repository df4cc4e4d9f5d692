"""Objectives over vectors of texts: what belongs together should be near, all else of the step far.

Such a loss couples the whole step. ``backward`` therefore embeds every micro-batch without a
graph, takes the loss of all vectors and its gradient at each, and embeds again, now with a graph,
one micro-batch at a time under the same draw of dropout (Gao et al. 2021, Scaling Deep Contrastive
Learning Batch Size under Memory Limited Setup): a step of any size in the memory of one
micro-batch, and the gradient of one big batch. With several processes each takes its own part of
the step as its batch. Knows no text: two texts are the same when their tokens are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tercet.data import Batch
from tercet.errors import InputError

BLOCK = 1 << 22  # similarities held at once: 16 MiB in float32
Reading = Callable[[int], AbstractContextManager[Any]]  # of a micro-batch: its dropout, its dtype


@dataclass(frozen=True)
class Coupled:
    """What both losses share. pool: first, mean or last, of a text's states."""

    pool: str = "mean"

    def __call__(self, model: Any, batch: Batch) -> Tensor:  # (1,)
        return self.of_vectors(vectors(model, batch, self.pool), [batch])

    def of_vectors(self, found: Tensor, batches: Sequence[Batch]) -> Tensor:
        """(1,) the summed loss of the vectors (B, D) of all the batches' texts."""
        raise NotImplementedError

    def backward(
        self, model: Any, batches: Sequence[Batch], targets: Tensor, reading: Reading
    ) -> Tensor:
        """Add the step's gradient to the parameters; the summed loss (1,).

        The last micro-batch keeps its graph, so a step of one is embedded once.
        """
        found = []
        for number, batch in enumerate(batches):
            with reading(number), torch.set_grad_enabled(number == len(batches) - 1):
                found.append(vectors(model, batch, self.pool))  # (b, D)
        leaves = [part.detach().requires_grad_() for part in found]
        loss = self.of_vectors(torch.cat(leaves), batches)  # (1,)
        (loss / targets.to(loss)).sum().backward()
        found[-1].backward(leaves[-1].grad)
        for number, (batch, leaf) in enumerate(zip(batches[:-1], leaves)):
            with reading(number):
                again = vectors(model, batch, self.pool)
            again.backward(leaf.grad)
        return loss.detach()


def vectors(model: Any, batch: Batch, pool: str) -> Tensor:
    """(B, D) of the batch's texts, in float32 or finer. An encoder–decoder is read by its
    encoder."""
    read = model.states if model.encoder is None else model.encode
    pooled = model.heads.pooled(read(batch.tokens, batch.layout), batch.layout, pool)
    return pooled.to(torch.promote_types(pooled.dtype, torch.float32))


@dataclass(frozen=True)
class InBatch(Coupled):
    """Each group's first text should find its second among those of all groups, and beside them
    its own and the others' negatives, the rest of each group (van den Oord et al. 2018, InfoNCE;
    Henderson et al. 2017, multiple negatives). The logits are cosines over ``temperature``.

    symmetric: the second texts should find the first ones too; the loss is the mean of both ways.
    What is known to belong to a text is no negative of it: itself, and whatever stands second to
    the same text in any group of the step.
    """

    temperature: float = 0.05
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature {self.temperature} must be above 0, such as 0.05")

    def of_vectors(self, found: Tensor, batches: Sequence[Batch]) -> Tensor:
        groups = [size for batch in batches for size in batch.groups]
        names = _names(batches)
        first = [0, *accumulate(groups)][:-1]
        second = [place + 1 for place in first]
        others = set(first + second)
        rest = [place for place in range(len(names)) if place not in others]
        unit = F.normalize(found, dim=-1)
        loss = self._search(unit, names, first, second, rest)
        if self.symmetric:
            loss = (loss + self._search(unit, names, second, first, [])) / 2
        return loss[None]

    def _search(
        self,
        unit: Tensor,
        names: Sequence[int],
        queries: Sequence[int],
        answers: Sequence[int],
        rest: Sequence[int],
    ) -> Tensor:
        """Of queries for their answers, by their places, a block of similarities at a time."""
        blocked = _known(names, queries, answers, rest).to(unit.device)
        candidates = unit[[*answers, *rest]]  # (C, D)
        loss = unit.new_zeros(())
        size = max(1, BLOCK // len(candidates))
        for start in range(0, len(queries), size):
            rows = unit[queries[start : start + size]]  # (b, D)
            mine = blocked[:, (blocked[0] >= start) & (blocked[0] < start + len(rows))]
            places = mine[0] - start, mine[1]
            loss = loss + checkpoint(
                _found, rows, candidates / self.temperature, places, start, use_reentrant=False
            )
        return loss


def _found(rows: Tensor, candidates: Tensor, blocked: tuple[Tensor, Tensor], start: int) -> Tensor:
    """Cross-entropy of rows (b, D), whose answers are the candidates (C, D) from ``start`` on."""
    logits = (rows @ candidates.T).index_put(blocked, rows.new_tensor(-torch.inf))  # (b, C)
    answers = torch.arange(start, start + len(rows), device=rows.device)
    return F.cross_entropy(logits, answers, reduction="sum")


def _names(batches: Sequence[Batch]) -> list[int]:
    """A number for each text of the batches, the same for the same tokens."""
    texts = [
        tuple(ids.tolist()) for batch in batches for ids in batch.layout.split(batch.tokens.cpu())
    ]
    known: dict[tuple[int, ...], int] = {}
    return [known.setdefault(ids, len(known)) for ids in texts]


def _known(
    names: Sequence[int], queries: Sequence[int], answers: Sequence[int], rest: Sequence[int]
) -> Tensor:
    """(2, n) query and candidate of what is no negative, its own answer left out."""
    belongs: dict[int, set[int]] = defaultdict(set)  # the query's text -> texts
    for query, answer in zip(queries, answers):
        belongs[names[query]] |= {names[query], names[answer]}
    stands: dict[int, list[int]] = defaultdict(list)  # a text -> the candidates that say it
    for number, place in enumerate([*answers, *rest]):
        stands[names[place]].append(number)
    found = [
        (row, column)
        for row, query in enumerate(queries)
        for text in belongs[names[query]]
        for column in stands.get(text, ())
        if column != row
    ]
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 2).T


@dataclass(frozen=True)
class Ordered(Coupled):
    """CoSENT (Su 2022): of two pairs of texts, the one that people score higher should have the
    higher cosine; log(1 + sum of exp(scale * (cosine of the lower - cosine of the higher))).

    ``batch.labels`` (P,) are the scores, of which only the order counts; one loss a step, which
    stands in the sum once for each pair.
    """

    scale: float = 20.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError(f"scale {self.scale} must be above 0, such as 20")

    def of_vectors(self, found: Tensor, batches: Sequence[Batch]) -> Tensor:
        scores = torch.cat([_scores(batch) for batch in batches]).to(found.device)  # (P,)
        unit = F.normalize(found, dim=-1)
        order = scores.argsort()
        scores = scores[order].contiguous()
        near = self.scale * (unit[0::2] * unit[1::2]).sum(-1)[order]  # (P,)
        below = torch.searchsorted(scores, scores)  # how many pairs are scored lower
        lower = near.logcumsumexp(0)[below[below > 0] - 1]
        apart = F.pad(lower - near[below > 0], (1, 0))
        return len(scores) * apart.logsumexp(0)[None]


def _scores(batch: Batch) -> Tensor:
    assert batch.labels is not None and set(batch.groups) == {2}, "scores are of pairs"
    return batch.labels


@dataclass(frozen=True)
class SameLabel(Coupled):
    """Every text of the step should find those of its own label among all the others (Khosla et al.
    2020, Supervised Contrastive Learning, equation 2). The logits are cosines over ``temperature``.

    ``batch.labels`` (P,) are the labels of the groups, each of whose texts has it; one loss a step,
    which stands in the sum once for each group. A text of the same label is never a negative.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature {self.temperature} must be above 0, such as 0.1")

    def of_vectors(self, found: Tensor, batches: Sequence[Batch]) -> Tensor:
        sizes = torch.tensor([size for batch in batches for size in batch.groups])
        labels = torch.cat([_labels(batch) for batch in batches]).cpu().repeat_interleave(sizes)
        itself = torch.eye(len(labels), dtype=torch.bool)
        partners = ((labels[:, None] == labels) & ~itself).to(found)  # (T, T)
        unit = F.normalize(found, dim=-1)
        logits = (unit @ unit.T / self.temperature).masked_fill(itself.to(found.device), -torch.inf)
        # the diagonal is no partner, and 0 times infinity is no number
        said = logits.log_softmax(-1).masked_fill(itself.to(found.device), 0.0)
        each = -(said * partners).sum(-1) / partners.sum(-1).clamp(min=1)  # (T,)
        return len(sizes) * each.mean()[None]


def _labels(batch: Batch) -> Tensor:
    assert batch.labels is not None and len(batch.labels) == len(batch.groups)
    return batch.labels

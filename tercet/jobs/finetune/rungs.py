"""The rungs of the ladder: four ways from labelled texts to a network that names the label, each
dearer than the one before. Which of them is worth its price is ``ladder``'s to say.

All end in the same network, the body under a classifier that reads what the body's vectors are
pooled from, so that they differ in weights alone: in size and speed they are one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tercet.data import Stream
from tercet.data.groups import Group, Grouped, Groups
from tercet.data.order import generator
from tercet.evaluate.regression import Regression, regression
from tercet.jobs.finetune.bodies import dropping, with_body
from tercet.jobs.finetune.classify import HEAD, ClassifyTask, Example, with_classifier
from tercet.jobs.finetune.fit import Learning, watched
from tercet.jobs.finetune.kinds import class_weights
from tercet.jobs.finetune.settings import ADAPTER, Classify, Evaluate, FinetuneRecipe, Ladder, Lora
from tercet.jobs.finetune.task import Splits
from tercet.model import Network
from tercet.plan import plan
from tercet.plan.plan import Row
from tercet.represent.classify import features
from tercet.train import SameLabel, State
from tercet.train.loop import Objective

PROBE, FEW_SHOT, LORA, FULL = "probe", "few-shot", "lora", "full"
CHECKPOINT = 100  # steps between two: an epoch of few rows is shorter than writing one takes
FEW_SHOT_RATE = 0.5  # of the full fine-tuning's rate
DECAY = 0.9  # layer by layer, of the full fine-tuning's rates, where the recipe says none
Keep = Callable[[Network], None]


@dataclass(frozen=True)
class Cost:
    """Of learning once: FLOPs of the network (a regression on its vectors adds next to none), and
    seconds here."""

    flops: float
    seconds: float


class Rungs:
    """The ways to learn the task of ``recipe``, which has a ladder, from some of the examples."""

    def __init__(
        self,
        task: ClassifyTask,
        recipe: FinetuneRecipe,
        examples: Sequence[Example],
        *,
        quiet: bool,
    ) -> None:
        pool = recipe.classify.pool or pool_of(task)
        every = recipe.evaluate.every or CHECKPOINT
        self.recipe = replace(recipe, classify=Classify(pool=pool), evaluate=Evaluate(every=every))
        self.task, self.examples, self.quiet = replace(task, recipe=self.recipe), examples, quiet
        self.targets = task.targets(examples)
        self._frozen: tuple[np.ndarray, float] | None = None
        self._heads: dict[tuple[int, ...], tuple[Regression, float]] = {}

    def names(self, rows: Sequence[int]) -> list[str]:
        """From the cheapest. A few-shot rung is for few texts a label, and few in all: two pairs of
        each of 8,640 cost more than LoRA's five epochs. Each must have a vector of its own: a pair
        is read at once, and an encoder-decoder's label by its decoder."""
        counts = torch.bincount(self.targets[list(rows)])
        each = median(counts[counts > 0].tolist())
        few = each <= self._ladder.few and len(rows) <= self._ladder.rows and counts.max() > 1
        plain = self.task.model.config.family != "encoder-decoder" and not any(
            one.read.types for one in self.examples
        )
        adapted = self.task.model.config.mixer == "attention"
        return [PROBE, *([FEW_SHOT] if few and plain else []), *([LORA] if adapted else []), FULL]

    def learn(self, name: str, rows: Sequence[int], folder: Path, keep: Keep) -> Cost:
        """The rung ``name`` on the examples of these numbers; the network goes to ``keep``. It goes
        on in ``folder`` after an interruption."""
        if name == PROBE:
            return self._probe(rows, keep)
        if name == FEW_SHOT:
            return self._few_shot(rows, folder, keep)
        return self._tuned(name, rows, folder, keep)

    # the rungs -----------------------------------------------------------------------------------

    def _probe(self, rows: Sequence[int], keep: Keep) -> Cost:
        head, seconds = self._head(rows)
        keep(under(self._network(self.task.model.network), head))
        return Cost(self._flops(rows).forward_flops, seconds)

    def _few_shot(self, rows: Sequence[int], folder: Path, keep: Keep) -> Cost:
        train, after = self.recipe.train, []
        rate = self._rate * FEW_SHOT_RATE
        changed = replace(train, epochs=1, lora=None, freeze=None, learning_rate=rate)
        recipe = replace(self.recipe, train=changed)

        def headed(body: Network) -> None:
            begun = time.perf_counter()
            step_back(body, self.task.model.network, self._ladder.back)
            network = self._network(body)
            vectors = features(network, [self.examples[i].read for i in rows]).double().numpy()
            head = self._regression(vectors, self.targets[list(rows)])
            after.append(time.perf_counter() - begun)
            keep(under(network, head))

        state = self._steps(Together(*_parts(self.task, recipe)), rows, folder, headed)
        once = self._flops(rows)
        flops = once.training_flops * state.tokens / self._tokens(rows) + once.forward_flops
        return Cost(flops, state.seconds + sum(after))

    def _tuned(self, name: str, rows: Sequence[int], folder: Path, keep: Keep) -> Cost:
        """LoRA, or all weights with rates that fall layer by layer; both from the probe's head."""
        train = self.recipe.train
        per_epoch = len(rows) / min(train.rows, len(rows))  # 38 rows are 1.19 steps of 32
        epochs = max(train.epochs, math.ceil(self._ladder.steps / per_epoch))
        if name == LORA:
            how = {"lora": train.lora or Lora(), "freeze": None, "layer_decay": 1.0}
            rate = ADAPTER * self._rate
        else:
            decay = train.layer_decay if train.layer_decay < 1 else DECAY
            how, rate = {"lora": None, "layer_decay": decay}, self._rate
        changed = replace(train, epochs=epochs, learning_rate=rate, **how)
        recipe = replace(self.recipe, train=changed)
        head, _ = self._head(rows)
        state = self._steps(Begun(*_parts(self.task, recipe), head=head), rows, folder, keep)
        # of the two products of a backward pass a frozen matrix needs one
        share = 2 / 3 if name == LORA else 1.0
        times = share * state.tokens / self._tokens(rows)
        return Cost(times * self._flops(rows).training_flops, state.seconds)

    # their parts ---------------------------------------------------------------------------------

    @property
    def _ladder(self) -> Ladder:
        assert self.recipe.ladder is not None
        return self.recipe.ladder

    @property
    def _rate(self) -> float:
        """Of full fine-tuning, which the others' rates are multiples of."""
        return replace(self.recipe.train, lora=None).rate(self.task.model.config.d_model)

    def _network(self, body: Network) -> Network:
        return with_classifier(
            body,
            len(self.task.kind.names),
            pool=self.recipe.classify.pool,
            dropout=self.recipe.train.dropout,
            model_type=self.task.model.extras.model_type,
        )

    def _head(self, rows: Sequence[int]) -> tuple[Regression, float]:
        """The regression on the frozen vectors of these examples, and the seconds that both took;
        all vectors are read once."""
        if self._frozen is None:
            begun = time.perf_counter()
            network = self._network(self.task.model.network)
            with watched("the frozen vectors", self.quiet):
                found = features(network, [one.read for one in self.examples]).double().numpy()
            self._frozen = found, (time.perf_counter() - begun) / len(found)
        vectors, each = self._frozen
        if (key := tuple(rows)) not in self._heads:
            begun = time.perf_counter()
            head = self._regression(vectors[list(rows)], self.targets[list(rows)])
            self._heads[key] = head, time.perf_counter() - begun + each * len(rows)
        return self._heads[key]

    def _regression(self, vectors: np.ndarray, targets: Tensor) -> Regression:
        n_labels, how = len(self.task.kind.names), self.recipe.train.class_weights
        counts = torch.bincount(targets, minlength=n_labels).double().clamp(min=1)
        return regression(
            vectors,
            targets.numpy(),
            n_labels,
            weights=class_weights(counts, how),
            centred=self.task.model.config.family != "decoder",  # theirs have no bias
        )

    def _steps(self, task: ClassifyTask, rows: Sequence[int], folder: Path, keep: Keep) -> State:
        learned = Splits([self.examples[i] for i in rows], ())
        return Last(folder, task, learned, task.recipe, self.recipe.seed, keep).run(self.quiet)

    def _flops(self, rows: Sequence[int]) -> Row:
        """Of reading these texts once, forward alone and with the backward pass."""
        lengths = [len(self.examples[i].read.ids) for i in rows]
        return plan(self.task.model.config, lengths, targets=0).total

    def _tokens(self, rows: Sequence[int]) -> int:
        """Read where these texts are read once, by each side of the network."""
        sides = 2 if self.task.model.config.family == "encoder-decoder" else 1
        return sides * sum(len(self.examples[i].read.ids) for i in rows)


@dataclass(frozen=True)
class Last(Learning):
    """A run of so many steps, whose last weights are kept: its measure is taken elsewhere, on rows
    that chose nothing."""

    keep: Keep

    def run(self, quiet: bool) -> State:
        state = self.checkpoints.load() or State()
        with watched(f"{self.folder.parent.name}, {self.folder.name}", quiet) as watch:
            self.optimise(state, watch)
            self.network.eval()
            self.keep(self.network)
        return state


@dataclass(frozen=True)
class Begun(ClassifyTask):
    """Fine-tuning that begins under the probe's head, so that the first steps do not bend the body
    to a drawn one (Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features)."""

    head: Regression | None = None

    def network(self, seed: int) -> Network:
        assert self.head is not None
        return under(super().network(seed), self.head)


@dataclass(frozen=True)
class Together(ClassifyTask):
    """The body alone learns to lay texts of one label together, and apart from all others, as
    SetFit does (Tunstall et al. 2022): from pairs that are drawn of the labels."""

    def network(self, seed: int) -> Network:
        """The body without heads, which pools as the classifier will."""
        changes = dropping(self.model.config, self.recipe.train.dropout)
        changes |= {"pool": self.recipe.classify.pool, "heads": ()}
        config = self.model.config.replace(**changes)
        return with_body(self.model.network, config, HEAD, seed)

    def stream(self, examples: Sequence[Example], seed: int) -> Stream:
        ladder = self.recipe.ladder
        assert ladder is not None
        each = max(ladder.partners, -(-ladder.pairs // len(examples)))
        groups = [
            Group((examples[a].read.ids, examples[b].read.ids), float(examples[a].target))
            for a, b in partners(self.targets(examples), each, seed)
        ]
        rows = min(self.recipe.train.rows, len(groups))
        draw = Groups(groups, rows=rows, seed=seed)
        return Stream(draw, Grouped(), self.recipe.train.micro_tokens)

    def objective(self, examples: Sequence[Example]) -> Objective:
        assert self.recipe.ladder is not None and self.recipe.classify.pool is not None
        return SameLabel(self.recipe.classify.pool, self.recipe.ladder.temperature)


def under(network: Network, head: Regression) -> Network:
    """The network with this regression as its classifier."""
    layer = network.heads.classifier
    assert layer is not None
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(head.weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(head.bias))
    return network


def step_back(network: Network, pretrained: Network, share: float) -> None:
    """A body's learned weights, and ``share`` of the pretrained ones: of a few texts it learns the
    task and those texts as well (Wortsman et al. 2022, Robust fine-tuning of zero-shot models)."""
    before = dict(pretrained.named_parameters())
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.lerp_(before[name].to(weight), share)  # the one may lie on a GPU


def partners(targets: Tensor, each: int, seed: int) -> list[tuple[int, int]]:
    """For each text ``each`` times another one of its label, drawn; itself where there is none,
    which dropout makes two of."""
    draw, found = generator("partners", seed), []
    for _ in range(each):
        for label in targets.unique().tolist():
            own = (targets == label).nonzero()[:, 0]
            # everyone gets the one a drawn distance behind it, in a drawn order
            order = own[torch.randperm(len(own), generator=draw)]
            step = int(torch.randint(1, max(2, len(own)), (1,), generator=draw))
            found += zip(order.tolist(), order.roll(-step).tolist())
    return found


def pool_of(task: ClassifyTask) -> str:
    """What a text's vector is, as its folder says or as its family reads."""
    if task.model.config.family != "encoder":
        return "last"
    return task.model.extras.embedding.pool or "mean"


def _parts(task: ClassifyTask, recipe: FinetuneRecipe) -> tuple[Any, ...]:
    return task.model, recipe, task.kind, task.facts

"""Fine-tuning a network to label texts: a new head on the old body, and all of it trained.

The rate is chosen among those offered, and the epoch among those run, by the accuracy on the
validation texts: the same search for a pretrained body and for one from scratch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tercet.answers import CutWarning
from tercet.data import Stream
from tercet.data.labelled import Labelled, LabelledTexts
from tercet.errors import InputError
from tercet.evaluate.classification import ClassScores, class_scores
from tercet.model import Network, batches, build, flatten
from tercet.text import CutReport, Tokenizer, fit
from tercet.train import Classification, Optimizer, Recipe, Schedule, State
from tercet.train import fit as optimise

HEAD = "classifier"
BATCH_TOKENS = 4_096  # while guessing
Examples = tuple[Sequence[Sequence[int]], Sequence[Any]]  # ids of each text, and its label


@dataclass(frozen=True)
class Tuning:
    """``rows``: texts a step. The rate rises over a tenth of the steps and then falls to 0.
    ``dropout`` holds in body and head while the network learns. ``pool``: what of a text the new
    head reads, first (its [CLS], as BERT does), mean or last; None: what the model's own heads do.
    """

    learning_rate: float
    epochs: int
    rows: int = 32
    dropout: float = 0.1
    weight_decay: float = 0.01
    bfloat16: bool = False
    pool: str | None = None
    seed: int = 0  # of the head, the order and the dropout

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"epochs {self.epochs} must be 1 or more")


@dataclass(frozen=True)
class Classifier:
    """A network as it was after its best epoch. ``curve``: the validation accuracy after each."""

    network: Network
    names: tuple[Any, ...]  # of the labels
    tuning: Tuning
    validation: ClassScores
    epoch: int  # counted from 1
    curve: tuple[float, ...]
    seconds: float

    def guesses(self, texts: Sequence[Sequence[int]]) -> list[Any]:
        """The likeliest label of each text, given as ids."""
        return [self.names[i] for i in _likeliest(self.network, texts)]

    def scores(self, examples: Examples) -> ClassScores:
        return class_scores(examples[1], self.guesses(examples[0]))


def fit_classifier(
    network: Network, train: Examples, validation: Examples, tuning: Tuning
) -> Classifier:
    """Fine-tunes a copy of ``network``, which stays as it is, and keeps the best epoch.

    Raises InputError for labels of one kind only, and for texts beyond the network's context.
    """
    names = tuple(sorted(set(train[1])))
    if len(names) < 2:
        raise InputError(f"the training labels are {list(names)}; give texts of two kinds or more")
    for texts, _ in (train, validation):
        _check(texts, network)
    tuned = with_classifier(network, len(names), tuning)
    numbers = [names.index(label) for label in train[1]]
    draw = LabelledTexts(train[0], numbers, rows=tuning.rows, seed=tuning.seed)
    best = _Best(tuned, names, validation)
    steps = max(1, round(tuning.epochs * draw.steps_per_epoch))
    recipe = Recipe(
        tuning.learning_rate,
        steps=steps,
        schedule=Schedule("linear", warmup=max(1, steps // 10)),
        seed=tuning.seed,
        bfloat16=tuning.bfloat16,
        spike=0.0,  # on a few hundred texts losses leap
    )
    state = optimise(
        tuned,
        Stream(draw, Labelled()),
        Classification(),
        recipe,
        Optimizer(tuned, weight_decay=tuning.weight_decay, betas=(0.9, 0.999)),
        actions=[(max(1, -(-steps // tuning.epochs)), best)],
    )
    tuned.load_state_dict(best.weights)
    tuned.tie()
    return Classifier(
        tuned, names, tuning, best.scores, best.epoch, tuple(best.curve), state.seconds
    )


def best_classifier(
    network: Network, train: Examples, validation: Examples, tunings: Sequence[Tuning]
) -> Classifier:
    """Of several tunings the one with the best validation accuracy; of equals the first."""
    found = (fit_classifier(network, train, validation, tuning) for tuning in tunings)
    return max(found, key=lambda one: one.validation.accuracy)


def with_classifier(network: Network, n_labels: int, tuning: Tuning) -> Network:
    """A network with the same body and pooler under a new head; the heads that guessed tokens go.

    A decoder is read at the last token, which alone has seen the whole text.
    """
    old = network.config
    config = old.replace(
        heads=("pooler", HEAD) if "pooler" in old.heads else (HEAD,),
        n_labels=n_labels,
        pool=tuning.pool or ("last" if old.family == "decoder" else old.pool),
        dropout=tuning.dropout,
        head_dropout=tuning.dropout,
    )
    new = build(config, tuning.seed)
    own = {n: t for n, t in network.state_dict().items() if not n.startswith(f"heads.{HEAD}.")}
    kept = {name: own[name] for name in new.state_dict() if name in own}
    missing = new.load_state_dict(kept, strict=False).missing_keys
    assert all(name.startswith(f"heads.{HEAD}.") for name in missing), missing
    return new


def encoded(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
    """The ids of texts, special tokens included; of those beyond ``limit`` the start, and a
    CutWarning says how many."""
    report, special = CutReport(), tokenizer.special_counts
    found = [
        fit(ids, limit, "keep-start", special=special, report=report)[0].ids
        for ids in tokenizer.encode_batch(texts)
    ]
    if str(report):
        warnings.warn(f"{report} (limit {limit:,})", CutWarning, stacklevel=2)
    return found


class _Best:
    """The action at an epoch's end: guess the validation texts, and keep the best weights."""

    def __init__(self, network: Network, names: tuple[Any, ...], validation: Examples) -> None:
        self.network, self.names, self.validation = network, names, validation
        self.curve: list[float] = []

    def __call__(self, state: State) -> None:
        guesses = [self.names[i] for i in _likeliest(self.network, self.validation[0])]
        self.network.train()
        scores = class_scores(self.validation[1], guesses)
        if not self.curve or scores.accuracy > self.scores.accuracy:
            self.scores, self.epoch = scores, len(self.curve) + 1
            self.weights = {n: t.clone() for n, t in self.network.state_dict().items()}
        self.curve.append(scores.accuracy)


@torch.inference_mode()
def _likeliest(network: Network, texts: Sequence[Sequence[int]]) -> list[int]:
    """The number of the likeliest label of each text."""
    network.eval()
    device = network.tokens.weight.device
    found = torch.empty(len(texts), dtype=torch.int64)
    for rows in batches([len(ids) for ids in texts], BATCH_TOKENS):
        tokens, layout = flatten([texts[i] for i in rows], device)
        logits = network.heads.classify(network.states(tokens, layout), layout)  # (b, labels)
        found[torch.tensor(rows)] = logits.argmax(-1).cpu()
    return found.tolist()


def _check(texts: Sequence[Sequence[int]], network: Network) -> None:
    longest = max((len(ids) for ids in texts), default=0)
    if longest > network.config.context_length:
        raise InputError(
            f"a text has {longest:,} tokens and the model takes {network.config.context_length:,}; "
            "cut it (encoded does)"
        )

"""The settings of a fine-tuning: a tree of frozen dataclasses, each of which knows its
contradictions.

What a key means stands behind it. Settings that one task alone reads stand in a section of its own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from tercet.errors import InputError
from tercet.jobs.checks import choice, positive
from tercet.jobs.train.settings import Lora

CLASS_WEIGHTS = ("none", "balanced", "effective")
KINDS = ("label", "labels", "number")
POOLS = ("first", "mean", "last")
WIDTH, RATE, LARGEST = 384, 2e-4, 3e-4  # of the model that the default rate was found with

ADAPTER = 10  # times that, for an adapter


@dataclass(frozen=True)
class Data:
    """The rows: .csv, .tsv, .jsonl, .parquet (also .gz), or what else the task reads."""

    train: list[str]  # files
    validation: float | list[str] = 0.1  # a share of the training rows, or files of their own
    test: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)  # part -> column; else by its name
    overflow: str = "keep-start"  # what is kept of a text beyond the context

    def __post_init__(self) -> None:
        if not self.train:
            raise InputError("data.train: name at least one file")
        if self.validation == []:
            raise InputError(
                "data.validation []: name at least one file, or give a share between 0 and 1: the "
                "best epoch is chosen on it"
            )
        if isinstance(self.validation, float) and not 0 < self.validation < 1:
            raise InputError(
                f"data.validation {self.validation} must be files, or a share between 0 and 1: the "
                "best epoch is chosen on it"
            )
        choice("data.overflow", self.overflow, ("keep-start", "keep-end", "middle-out", "error"))


@dataclass(frozen=True)
class Tuning:
    """How long, how fast, and what of the network."""

    epochs: int = 5
    learning_rate: float | None = None  # None: by the width of the model
    rows: int = 32  # examples of a step
    micro_tokens: int = 8_192  # about so many tokens of a step are in memory at once
    warmup: float = 0.1  # the share of the steps in which the rate rises
    schedule: str = "linear"
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    clip: float = 1.0
    dropout: float = 0.1  # in body and head, while the network learns
    layer_decay: float = 1.0  # each layer's rate is this times that of the layer above it
    freeze: int | None = (
        None  # so many of the lowest layers learn nothing, nor the embedding; 0: it
    )
    lora: Lora | None = None  # rank, alpha, dropout, targets: the rest of the body learns nothing
    class_weights: str = "none"  # or balanced, effective: what rare labels count more
    bfloat16: bool = False
    scratch: bool = False  # new weights instead of the model's own: what its pretraining is worth

    def __post_init__(self) -> None:
        positive(self, "train", "epochs", "rows", "micro_tokens")
        choice("train.class_weights", self.class_weights, CLASS_WEIGHTS)
        for name in ("warmup", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"train.{name} {getattr(self, name)} must be from 0 to below 1")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"train.layer_decay {self.layer_decay} must be above 0 and at most 1")
        if self.freeze is not None and self.freeze < 0:
            raise InputError(f"train.freeze {self.freeze} must be 0 or more layers")
        if self.freeze is not None and self.lora is not None:
            raise InputError(
                f"train.freeze {self.freeze} and train.lora: an adapter freezes the whole body; "
                "choose one of the two"
            )
        if self.scratch and (self.freeze is not None or self.lora is not None):
            raise InputError(
                "train.scratch: new weights must all learn; leave train.freeze and train.lora out"
            )
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise InputError(f"train.learning_rate {self.learning_rate} must be above 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"train.betas {self.betas} must be two numbers from 0 to below 1")

    def rate(self, width: int) -> float:
        """The largest learning rate; of its own accord smaller for wider models. An adapter wants
        about ten times as much (Biderman et al. 2024, section 6; Hu et al. 2021, table 9)."""
        if self.learning_rate is None and self.lora is not None:
            return ADAPTER * min(LARGEST, RATE * (WIDTH / width) ** 2)
        return self.learning_rate or min(LARGEST, RATE * (WIDTH / width) ** 2)


@dataclass(frozen=True)
class Evaluate:
    """When the validation split is measured, by what the best weights are chosen, and when that
    ends the run."""

    metric: str | None = None  # None: the task's first
    every: int | None = None  # steps; None: an epoch
    patience: int | None = None  # evaluations without a better one; None: never ends early

    def __post_init__(self) -> None:
        positive(self, "evaluate", "every", "patience")


@dataclass(frozen=True)
class Curve:
    """The same fine-tuning on fewer rows, beside that on all: what more labels would bring."""

    sizes: list[int] = field(default_factory=list)  # training rows
    scratch: bool = False  # each size, and all rows, also with new weights instead of the model's
    steps: int = 100  # at least so many at each size, where the run on all rows has as many

    def __post_init__(self) -> None:
        positive(self, "curve", "steps")
        if self.sizes != sorted(set(self.sizes)) or min(self.sizes, default=1) < 1:
            raise InputError(f"curve.sizes {self.sizes} must be 1 or more, and each above the last")
        if self.scratch and not self.sizes:
            raise InputError("curve.scratch: name the sizes too, such as --curve 50,200,1000")


@dataclass(frozen=True)
class Classify:
    """Task classify."""

    kind: str | None = None  # label, labels (several at once), number; None: as the values look
    separator: str | None = None  # between the labels in a value
    pool: str | None = None  # what the head reads: first, mean, last; None: as its family does

    def __post_init__(self) -> None:
        choice("classify.kind", self.kind, (None, *KINDS))
        choice("classify.pool", self.pool, (None, *POOLS))
        if self.separator == "":
            raise InputError("classify.separator is empty; write what stands between labels, as |")


@dataclass(frozen=True)
class Embed:
    """Task embed. A step of any size is read in the memory of one micro-batch."""

    pool: str | None = None  # first, mean, last; None: as the model's folder says, else mean
    temperature: float = 0.05  # pairs without scores: of the softmax over the step's texts
    symmetric: bool = False  # the second texts should find the first ones too
    scale: float = 20.0  # scored pairs: what differences of cosines are multiplied by
    negatives: int = 0  # so many hard ones, found by the model before training, beside each pair
    among: int = 30  # drawn out of so many nearest
    margin: float = 0.05  # a negative's cosine is at least so far below that of the pair's own text

    def __post_init__(self) -> None:
        choice("embed.pool", self.pool, (None, *POOLS))
        positive(self, "embed", "among")
        _not_negative("embed.negatives", self.negatives)


@dataclass(frozen=True)
class Rank:
    """Task rank. Pairs without scores need negatives, which the model's own vectors find."""

    negatives: int = 4  # beside each pair
    among: int = 30  # drawn out of so many nearest
    margin: float = 0.0  # a negative's cosine is at least so far below that of the pair's own text
    depth: int = 50  # texts of a search by vectors that are put into order again, when measured
    pool: str | None = None  # what the head reads: first, mean, last; None: as the family does

    def __post_init__(self) -> None:
        choice("rank.pool", self.pool, (None, *POOLS))
        positive(self, "rank", "negatives", "among", "depth")


@dataclass(frozen=True)
class Seq2Seq:
    """Task seq2seq."""

    smoothing: float = 0.1  # of the labels
    beams: int = 4  # when translating the validation rows
    written: int = 200  # so many of them are written out and scored
    max_new_tokens: int | None = None  # of a text that is written; None: to the end of the context

    def __post_init__(self) -> None:
        positive(self, "seq2seq", "beams", "written", "max_new_tokens")


@dataclass(frozen=True)
class Ladder:
    """`--ladder`, of task classify: the cheapest of four ways to learn that is good enough."""

    all: bool = False  # every rung is climbed, those too that would have been left out
    few: int = 64  # the few-shot rung is for so many texts a label, in the median,
    rows: int = 2_000  # and so many in all; and on so many at least rungs are compared
    steps: int = 100  # that LoRA and full fine-tuning take at least, however few the rows
    pairs: int = 1_000  # few-shot: pairs of one label that are drawn at least,
    partners: int = 2  # and so many for each text where those are more
    temperature: float = 0.3  # few-shot: of the softmax over the step's texts
    back: float = 0.25  # few-shot: so far the weights go back to the pretrained ones at the end

    def __post_init__(self) -> None:
        positive(self, "ladder", "few", "rows", "steps", "pairs", "partners")
        if not 0 <= self.back <= 1:
            raise InputError(f"ladder.back {self.back} must be from 0 to 1")


def _not_negative(name: str, value: float) -> None:
    if value < 0:
        raise InputError(f"{name} {value} must be at least 0")


@dataclass(frozen=True)
class FinetuneRecipe:
    """One fine-tuning, of one seed or several."""

    model: str  # a folder, or owner/name of the hub
    task: str
    data: Data
    train: Tuning = field(default_factory=Tuning)
    evaluate: Evaluate = Evaluate()
    classify: Classify = Classify()
    embed: Embed = Embed()
    rank: Rank = Rank()
    seq2seq: Seq2Seq = Seq2Seq()
    curve: Curve = Curve()
    seed: int = 0  # of the first run: the new head, the order and the dropout
    seeds: int = 1  # runs, each with the next seed
    folds: int | None = None  # instead: so many runs, each validated on its part of the rows
    ladder: Ladder | None = None  # instead: the cheapest thing that works, see ladder.py
    about: str = ""  # a sentence for people

    def __post_init__(self) -> None:
        positive(self, "the recipe", "seeds")
        if self.folds is not None and (self.folds < 2 or self.seeds > 1):
            raise InputError(
                f"folds {self.folds} with seeds {self.seeds}: give 2 folds or more and one seed"
            )
        if self.folds is not None and self.curve.sizes:
            raise InputError(
                f"folds {self.folds} with curve.sizes {self.curve.sizes}: all sizes are measured "
                "on the same validation rows; leave folds out, seeds may stay"
            )
        if self.train.scratch and self.curve.sizes:
            raise InputError(
                "train.scratch with curve.sizes: the curve begins with the model's weights; leave "
                "train.scratch out, and --scratch draws the curve of new weights beside it"
            )
        if self.curve.scratch:
            dataclasses.replace(self.train, scratch=True)  # raises for what cannot be
        if self.folds is not None and isinstance(self.data.validation, list):
            raise InputError("folds: each fold is validated on its own rows; drop data.validation")
        if self.ladder is not None:
            self._check_ladder()
        for section in ("classify", "embed", "rank", "seq2seq"):
            own = getattr(self, section)
            if section != self.task and own != type(own)():
                raise InputError(
                    f"{section}: its settings are for the task {section}, and {self.task} reads "
                    "none of them; leave them out"
                )
        weights, overflow = self.train.class_weights, self.data.overflow
        if weights != "none" and self.task not in ("classify", "tag"):
            raise InputError(
                f"train.class_weights {weights!r} is for the tasks classify and tag; {self.task} "
                "has no classes: leave it out"
            )
        if overflow != "keep-start" and self.task != "classify":
            raise InputError(
                f"data.overflow {overflow!r} is for the task classify; tag and answer read long "
                "texts in windows, the others keep the start and count what is cut: leave it out"
            )

    def _check_ladder(self) -> None:
        if self.task != "classify":
            raise InputError(f"--ladder is for the task classify, not {self.task}; leave it out")
        if self.train.scratch:
            raise InputError(
                "train.scratch with --ladder: its rungs begin with the model's weights; leave it "
                "out"
            )
        if self.seeds > 1:
            raise InputError(f"seeds {self.seeds} with --ladder: every rung is one run; give 1")
        if self.curve.sizes:
            raise InputError(
                f"curve.sizes {self.curve.sizes} with --ladder: choose one of the two; a curve of "
                "the rung that the ladder chose is a run of its own"
            )
        if self.evaluate.metric or self.evaluate.patience:
            raise InputError(
                "evaluate.metric or evaluate.patience with --ladder: rungs are compared by "
                "accuracy, each at its last step; leave both out"
            )

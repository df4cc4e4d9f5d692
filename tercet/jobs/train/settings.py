"""The settings of a run: a tree of frozen dataclasses, each of which knows its contradictions.

What a key means stands behind it. Reading them from YAML is recipe.py's.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.jobs.checks import choice, nearest, one_of, positive

TUNING = ("instruct", "prefer", "reward")  # read conversations, and begin with a model
OBJECTIVES = ("next-token", "masked", "spans", "pairs", *TUNING)
OVERFLOWS = ("leave-out", "keep-start", "error")
PRECISIONS = ("float32", "int8", "int4")
PACKINGS = ("documents", "rows")
# settings of kind reward alone
REWARDS = ("reward", "kl", "samples", "temperature", "max_new_tokens")
MASK = "[MASK]"  # in prompts, however the tokenizer spells it
TOKENIZERS = ("bytes", "characters", "bpe", "wordpiece", "unigram")


def seconds(text: str) -> float:
    """ "90s", "30m", "1.5h" -> seconds."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    try:
        found = float(text[:-1]) * units[text[-1:]]
    except (ValueError, KeyError):
        found = 0.0
    if not found > 0:
        raise InputError(f"budget {text!r} is no time; write 90s, 30m or 1.5h")
    return found


@dataclass(frozen=True)
class Model:
    """A preset and what is changed in it, or a folder to go on from."""

    preset: str | None = None
    folder: str | None = None
    change: dict[str, Any] = field(default_factory=dict)  # fields of TransformerConfig
    precision: str = "float32"  # or int8, int4: of the frozen weights below train.lora

    def __post_init__(self) -> None:
        one_of(self, "model", "preset", "folder")
        choice("model.precision", self.precision, PRECISIONS)
        if self.folder and self.change:
            raise InputError("model: a folder's network cannot be changed; drop `change`")
        known = [f.name for f in dataclasses.fields(TransformerConfig)]
        for name in self.change:
            if name not in known:
                raise InputError(f"model.change.{name} is unknown{nearest(name, known)}")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer to learn from the run's own texts, or a folder that holds one."""

    kind: str | None = None
    vocab_size: int = 8192
    lowercase: bool = False
    folder: str | None = None

    def __post_init__(self) -> None:
        one_of(self, "tokenizer", "kind", "folder")
        choice("tokenizer.kind", self.kind, (None, *TOKENIZERS))


@dataclass(frozen=True)
class Data:
    """One source of texts, or of pairs: then ``source`` and ``target`` are two files, line by line,
    or the columns of ``files``; or of conversations, whose ``form`` is known by their columns. Or
    one that ``tercet data prepare`` has tokenised already: of its folder ``prepared`` the source of
    this name, or the only one."""

    prepared: str | None = None
    files: list[str] = field(default_factory=list)
    weight: float = 1.0  # its share of every step, where there are several
    split: str = "file"  # what a document is: file, line, paragraph, or how its title begins
    column: str = "text"  # of tables
    form: str | None = None  # of conversations: alpaca, sharegpt, messages, preference ...
    source: str | None = None
    target: str | None = None
    validation: float | list[str] = 0.05  # a share of the documents, or files of their own
    tail: float | None = None  # instead: the last share of every document
    validation_source: str | None = None
    validation_target: str | None = None

    def __post_init__(self) -> None:
        if self.prepared is not None:
            told = [name for name in vars(self) if name not in ("prepared", "weight")]
            fields = type(self).__dataclass_fields__
            if other := [n for n in told if getattr(self, n) not in (fields[n].default, [])]:
                raise InputError(
                    f"data.prepared {self.prepared} was decided on when it was prepared; leave out "
                    f"{', '.join(other)}"
                )
        elif not self.files and not (self.source and self.target):
            raise InputError("data: give files, source and target for pairs, or prepared")
        if (self.source is None) != (self.target is None):
            raise InputError(f"data: source {self.source} and target {self.target}; give both")
        if not self.weight > 0:
            raise InputError(f"data.weight {self.weight} must be above 0")
        if (self.validation_source is None) != (self.validation_target is None):
            raise InputError(
                f"data: validation_source {self.validation_source} and validation_target "
                f"{self.validation_target}; give both"
            )


@dataclass(frozen=True)
class Objective:
    """What a sample is, and what is predicted in it."""

    kind: str = "next-token"
    length: int = 256  # tokens of a sample at the most
    packing: str = "documents"  # or rows: equal, blind to where a document ends
    smoothing: float = 0.0
    r_drop: float = 0.0  # how strongly two draws of dropout are drawn together; twice the work
    bpe_dropout: float = 0.0  # pairs: the share of merges left out, words spelled anew each epoch
    rate: float = 0.15  # masked and spans: of the tokens
    whole_words: bool = False
    next_sentence: bool = False
    span: float = 3.0  # mean length
    overflow: str = "leave-out"  # of conversations beyond length; or keep-start, error
    beta: float = 0.1  # prefer: how dear it is to leave the model that the run began with
    reward: str | None = None  # reward: what an answer is worth, a function: FILE.py:NAME
    kl: float = 0.0  # reward: how dear it is to leave the model that the run began with; 0.04, say
    samples: int = 8  # reward: answers to each question of a step
    temperature: float = 1.0  # reward: at which they are sampled
    max_new_tokens: int = 64  # reward: of an answer at the most

    def __post_init__(self) -> None:
        choice("objective.kind", self.kind, OBJECTIVES)
        choice("objective.packing", self.packing, PACKINGS)
        if self.kind != "masked" and (self.whole_words or self.next_sentence):
            raise InputError(
                f"objective.kind {self.kind!r} masks nothing: whole_words and next_sentence belong "
                "to kind masked"
            )
        if not self.r_drop >= 0 or (self.r_drop and self.next_sentence):
            raise InputError(
                f"objective.r_drop {self.r_drop} is a weight from 0 up (5, say), and not for "
                "next_sentence"
            )
        if not 0 <= self.bpe_dropout < 1 or (self.bpe_dropout and self.kind != "pairs"):
            raise InputError(
                f"objective.bpe_dropout {self.bpe_dropout} is a share from 0 to below 1, and for "
                "kind pairs"
            )
        if self.length < 2:
            raise InputError(f"objective.length {self.length} must be 2 or more tokens")
        if self.span < 1:
            raise InputError(f"objective.span {self.span} must be 1 token or more")
        choice("objective.overflow", self.overflow, OVERFLOWS)
        if not self.beta > 0:
            raise InputError(f"objective.beta {self.beta} must be above 0, such as 0.1")
        if self.tunes and self.packing != "documents":
            raise InputError(
                f"objective.packing {self.packing!r}: conversations do not see each other; leave "
                "it out"
            )
        if self.kind in ("prefer", "reward") and self.r_drop:
            raise InputError(
                f"objective.r_drop {self.r_drop} is not for kind {self.kind}; leave it out"
            )
        self._check_rewards()

    def _check_rewards(self) -> None:
        own = {f.name: f.default for f in dataclasses.fields(self) if f.name in REWARDS}
        told = [name for name, default in own.items() if getattr(self, name) != default]
        if told and not self.rewards:
            raise InputError(
                f"objective.{told[0]} is for kind reward, not for {self.kind}; leave it out"
            )
        if not self.rewards:
            return
        if self.reward is None:
            raise InputError(
                "objective.reward is missing: name a function that says what an answer is worth, "
                "FILE.py:NAME"
            )
        if self.smoothing:
            raise InputError(
                f"objective.smoothing {self.smoothing} is not for kind reward; leave it out"
            )
        if self.samples < 2:
            raise InputError(
                f"objective.samples {self.samples} must be 2 or more: answers to one question are "
                "measured against each other"
            )
        if not 0 < self.temperature < math.inf:
            raise InputError(f"objective.temperature {self.temperature} must be above 0, such as 1")
        if not 0 <= self.kl < math.inf:
            raise InputError(f"objective.kl {self.kl} must be 0 or above, such as 0.04")
        if self.overflow == "keep-start":
            raise InputError(
                "objective.overflow keep-start is not for kind reward, as the function would be "
                "given answers that are cut; set leave-out or error, or raise objective.length"
            )
        positive(self, "objective", "max_new_tokens")

    @property
    def rewards(self) -> bool:
        """Whether it learns from what its own answers are worth."""
        return self.kind == "reward"

    @property
    def tunes(self) -> bool:
        """Whether it reads conversations."""
        return self.kind in TUNING


@dataclass(frozen=True)
class Batch:
    """How much a step reads, in tokens, and how much of it at once."""

    tokens: int = 8192
    micro_tokens: int | None = None  # None: all at once

    def __post_init__(self) -> None:
        positive(self, "batch", "tokens", "micro_tokens")


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter learns, and the head; the body stays (``tercet.LoRA``)."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["all"])  # or q, k, v, o, gate, up, down


@dataclass(frozen=True)
class Train:
    """How long, how fast, and by which rule."""

    learning_rate: float = 3e-3
    steps: int | None = None
    budget: str | None = None  # a time: 90s, 30m, 1.5h
    optimizer: str = "muon"
    weight_decay: float = 0.1
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    schedule: str = "stable"
    warmup: int = 20
    decay: float = 0.7
    final: float = 0.0
    clip: float = 1.0
    bfloat16: bool = False
    compile: bool = False
    recompute: bool = False
    on_trouble: str = "stop"
    spike: float = 10.0
    ema: float | None = None
    average_last: int | None = None  # snapshots, one at each evaluation
    lora: Lora | None = None  # instruct, prefer, reward: rank, alpha, dropout, targets

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.budget is None):
            raise InputError(
                f"train: steps {self.steps} and budget {self.budget}; give one of the two"
            )
        seconds(self.budget or "1s")

    @property
    def seconds(self) -> float | None:
        return None if self.budget is None else seconds(self.budget)


@dataclass(frozen=True)
class Evaluate:
    """How often the validation split is measured, and when that ends the run."""

    every: int = 250  # steps
    tokens: int | None = None  # of the validation split; None: all
    patience: int | None = None  # evaluations without a better loss; None: never ends early
    prompts: list[str] = field(default_factory=list)  # texts that the model goes on with
    max_new_tokens: int = 60

    def __post_init__(self) -> None:
        positive(self, "evaluate", "every", "tokens", "patience", "max_new_tokens")


@dataclass(frozen=True)
class Checkpoint:
    every: int = 250  # steps
    keep: int = 1  # the last so many, beside the best

    def __post_init__(self) -> None:
        positive(self, "checkpoint", "every", "keep")


@dataclass(frozen=True)
class RunRecipe:
    """One run."""

    model: Model
    data: dict[str, Data]  # by name; one source may stand by itself
    tokenizer: Vocabulary | None = None  # None: that of the model's folder
    objective: Objective = Objective()
    batch: Batch = Batch()
    train: Train = field(default_factory=lambda: Train(steps=1000))
    evaluate: Evaluate = field(default_factory=Evaluate)
    checkpoint: Checkpoint = Checkpoint()
    seed: int = 0
    about: str = ""  # a sentence for people

    def __post_init__(self) -> None:
        if not self.data:
            raise InputError("data: name at least one source")
        self._check_tuning()
        if self.objective.tunes:
            return
        if self.tokenizer is None and self.model.folder is None:
            raise InputError("tokenizer is missing")
        if len(places := {data.prepared for data in self.data.values()}) > 1:
            raise InputError(
                f"data: prepared {', '.join(map(str, places))}; all sources lie in one folder, or "
                "none is prepared"
            )
        if None not in places and not (self.vocabulary.folder or self.model.folder):
            raise InputError(
                "tokenizer: prepared data has its own; set tokenizer.folder to "
                f"{Path(str(places.pop())) / 'tokenizer'}"
            )
        for name, data in self.data.items():
            pairs = self.objective.kind == "pairs"
            if data.prepared is None and pairs != (data.source is not None):
                said = "names no source and target" if pairs else "names a source and a target"
                reads = "reads pairs" if pairs else "reads texts"
                raise InputError(
                    f"data.{name} {said}, and objective.kind {self.objective.kind!r} {reads}; "
                    "change one of the two"
                )
        for prompt in self.evaluate.prompts if self.objective.kind == "masked" else ():
            if MASK not in prompt:
                raise InputError(
                    f"evaluate.prompts {prompt!r} leaves nothing to fill in; put {MASK} into it"
                )

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer, of the model's folder where the recipe names none."""
        return self.tokenizer or Vocabulary(folder=self.model.folder)

    def _check_tuning(self) -> None:
        """What belongs to conversations alone, and what they exclude."""
        kind, tunes = self.objective.kind, self.objective.tunes
        if tunes and (self.model.folder is None or self.tokenizer is not None):
            raise InputError(
                f"objective.kind {kind!r} begins with a model and its tokenizer: set model.folder, "
                "and leave tokenizer out"
            )
        for name, data in self.data.items():
            plain = Data(files=["x"], validation=data.validation, weight=data.weight)
            other = [n for n in vars(data) if getattr(data, n) != getattr(plain, n)]
            bad = set(other) - {"files", "form"} if tunes else set(other) & {"form"}
            if bad:
                raise InputError(
                    f"data.{name}: {', '.join(sorted(bad))} is not for objective.kind {kind!r}; "
                    "leave it out"
                )
        if not tunes and (self.train.lora or self.model.precision != "float32"):
            raise InputError(
                f"train.lora and model.precision are for {', '.join(TUNING)}, not for "
                f"objective.kind {kind!r}; leave them out"
            )
        if self.model.precision != "float32" and self.train.lora is None:
            raise InputError(
                f"model.precision {self.model.precision!r}: weights of a few bits do not learn; "
                "set train.lora, or leave precision out"
            )

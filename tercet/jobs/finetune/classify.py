"""The task classify: one label, several labels or a number for a text or a pair of texts."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from tercet.data import Stream
from tercet.data.labelled import Labelled, LabelledTexts
from tercet.errors import InputError
from tercet.hf import Extras, row_for
from tercet.jobs.finetune import findings, kinds
from tercet.jobs.finetune.bodies import dropping, with_body
from tercet.jobs.finetune.kinds import Kind
from tercet.jobs.finetune.rows import Part, Table, empty, read_table
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.finetune.splits import overlaps
from tercet.jobs.finetune.task import TEST, TRAIN, VALIDATION, Finished, Folds, Say, Scores, Splits
from tercet.language_model import LanguageModel
from tercet.model import Network
from tercet.represent.classify import CUTTING, Read, Text, logits, read, start_of
from tercet.text import CutReport
from tercet.train.loop import Objective

HEAD = "classifier"
PARTS = (
    Part("text", ("text", "sentence", "sentence1", "sentence_a", "text1", "text_a", "question1")),
    Part("pair", ("sentence2", "sentence_b", "text2", "text_b", "question2"), needed=False),
    Part("label", ("label", "labels", "class", "category", "intent", "target", "score")),
)
MANY = 1_000  # labels: more are said, with their memory
MOST_KEPT = 20_000_000  # probabilities of a fold: 80 MB
MOST = 0.95  # of the rows with one label: a warning
# how tables spell that a value is not there
MISSING = {"na", "n/a", "nan", "none", "null", "?", "-"}


@dataclass(frozen=True)
class Example:
    """A text, or a pair, as the network reads it."""

    read: Read
    target: Any
    text: Text
    label: str  # as the file has it
    where: str

    @property
    def group(self) -> Hashable:
        """The text itself: the same one must not be learned and measured."""
        return self.text


@dataclass(frozen=True)
class ClassifyTask:
    """See ``Task``."""

    model: LanguageModel
    recipe: FinetuneRecipe
    kind: Kind
    facts: dict[str, Any]

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.kind.metrics

    def network(self, seed: int) -> Network:
        pool, model_type = self.recipe.classify.pool, self.model.extras.model_type
        dropout, size = self.recipe.train.dropout, len(self.kind.names)
        return with_classifier(
            self.model.network, size, pool=pool, dropout=dropout, seed=seed, model_type=model_type
        )

    def stream(self, examples: Sequence[Example], seed: int) -> Stream:
        config = self.model.config
        types = [one.read.types or [0] * len(one.read.ids) for one in examples]
        draw = LabelledTexts(
            [one.read.ids for one in examples],
            self.targets(examples),
            rows=min(self.recipe.train.rows, len(examples)),
            seed=seed,
            types=types if config.token_types and any(map(any, types)) else None,
        )
        both = config.family == "encoder-decoder"
        shape = Labelled(start_of(self.model.network) if both else None)
        return Stream(draw, shape, self.recipe.train.micro_tokens)

    def objective(self, examples: Sequence[Example]) -> Objective:
        return self.kind.objective(self.targets(examples), self.recipe.train.class_weights)

    def scores(self, network: Network, examples: Sequence[Example]) -> Scores:
        return self.kind.scores(self.logits(network, examples), self.targets(examples))

    def finish(self, network: Network, validation: Sequence[Example]) -> Finished:
        return self.calibrated(network, self.logits(network, validation), self.targets(validation))

    def calibrated(self, network: Network, said: Tensor, targets: Tensor) -> Finished:
        """By logits (B, labels) of texts that were not learned, and their targets."""
        head = network.heads.classifier
        assert head is not None
        facts, overflow = self.kind.finish(head, said, targets), self.recipe.data.overflow
        extras = replace(
            self.model.extras,
            generation={},
            labels=self.kind.names,
            problem=self.kind.problem,
            temperature=facts.get("temperature", 1.0),
            overflow=overflow if overflow in ("keep-end", "middle-out") else None,
        )
        kept = self._one_label and said.numel() <= MOST_KEPT
        return Finished(extras, facts, self._chances(said, extras) if kept else None)

    def findings(self, model: LanguageModel, splits: Splits, folds: Folds) -> dict[str, Any]:
        parts = {name: getattr(splits, name) for name in (TRAIN, VALIDATION, TEST)}
        tokens = {name: [len(one.read.ids) for one in part] for name, part in parts.items() if part}
        found = {"cut": findings.cut(self.model, splits, tokens)}
        if findings.measured(splits)[1]:
            found = {"duplicates": findings.duplicates(splits)} | found
        if not self._one_label:
            return found
        found["label_errors"] = self._label_errors(splits, folds)
        split, examples = findings.measured(splits)
        if not examples:
            return found
        said = self._chances(self.logits(model.network, examples), model.extras).numpy()
        labels = self.targets(examples).numpy()
        wrong = findings.mistakes(examples, labels, said, self.kind.names)
        return {"split": split, **wrong, **found}

    def _label_errors(self, splits: Splits, folds: Folds) -> dict[str, Any]:
        """By what the model of each fold said of the rows that it had not learned from, else by a
        cheaper one."""
        names = self.kind.names
        if not folds:
            rows = list(splits.train)
            labels = self.targets(rows).numpy()
            return findings.suspects_by_vectors(self.model, rows, labels, names)
        rows = [one for part, _ in folds for one in part.validation]
        for part, said in folds:  # a label that a fold did not learn it cannot say
            learned = {one.target for one in part.train}
            said[[one.target not in learned for one in part.validation]] = np.nan
        said = np.concatenate([said for _, said in folds])
        by = f"the models of the {len(folds)} folds, each on the rows that it had not learned from"
        return findings.suspects(rows, self.targets(rows).numpy(), said, names, by=by, of=len(rows))

    def _chances(self, logits: Tensor, extras: Extras) -> Tensor:
        return (logits / extras.temperature).softmax(-1)

    def targets(self, examples: Sequence[Example]) -> Tensor:
        return self.kind.stacked([one.target for one in examples])

    @property
    def _one_label(self) -> bool:
        return self.kind.problem == "single_label_classification"

    def logits(self, network: Network, examples: Sequence[Example]) -> Tensor:
        """(B, labels)"""
        return logits(network, [one.read for one in examples])


def classify(recipe: FinetuneRecipe, model: LanguageModel, say: Say) -> tuple[ClassifyTask, Splits]:
    """Reads what the recipe names. See ``Reader``."""
    data = recipe.data
    train = read_table(data.train, PARTS, data.columns)
    say(train.sentence)
    files = data.validation if isinstance(data.validation, list) else []
    others = {
        name: read_table(place, PARTS, train.columns)
        for name, place in (("validation", files), ("test", data.test))
        if place
    }
    return of_tables({"train": train} | others, recipe, model, say)


def of_tables(
    tables: dict[str, Table], recipe: FinetuneRecipe, model: LanguageModel, say: Say
) -> tuple[ClassifyTask, Splits]:
    """The task on rows that have been read, by split. Raises InputError for what is wrong with
    them."""
    data, train = recipe.data, tables["train"]
    skipped = {name: _drop_empty(table) for name, table in tables.items()}
    for name, count in skipped.items():
        if count:
            say(f"{name}: {count:,} rows without a text are left out")
    values = [(where, row["label"]) for where, row in train.rows]
    settings = recipe.classify
    said = kinds.kind_of(values, settings.kind, settings.separator)
    kind = kinds.learned_from(
        said, values, settings.separator, centred=model.config.family != "decoder"
    )
    _check_number_of_labels(kind, len(values), train.columns["label"], model, say)
    examples, cut = {}, {}
    for name, table in tables.items():
        examples[name], cut[name] = _examples(table, kind, model, data.overflow)
        if cut[name]:
            say(f"{name}: {cut[name]} (limit {model.limit:,}, overflow {data.overflow!r})")
    facts = _facts(examples, kind, say) | {
        "columns": train.columns,
        "kind": said,
        "labels": list(kind.names),
        "without_text": sum(skipped.values()),
        "cut": {name: text for name, text in cut.items() if text},
    }
    splits = Splits(*(examples.get(name, ()) for name in ("train", "validation", "test")))
    return ClassifyTask(model, recipe, kind, facts), splits


def _drop_empty(table: Table) -> int:
    """Takes rows without a text out; how many there were."""
    parts = [part for part in ("text", "pair") if part in table.columns]
    kept = [row for row in table.rows if not any(empty(row[1][part]) for part in parts)]
    dropped = len(table.rows) - len(kept)
    table.rows[:] = kept
    if not kept:
        raise InputError(f"no row has a text in column {table.columns['text']!r}")
    return dropped


def _examples(
    table: Table, kind: Kind, model: LanguageModel, overflow: str
) -> tuple[list[Example], str]:
    targets = [kind.target(row["label"], where) for where, row in table.rows]
    texts = [_text(row, where) for where, row in table.rows]
    report = CutReport()
    if overflow == "error":
        found = read(model.tokenizer, texts, sys.maxsize, overflow, report)
        _check_lengths(table, found, model.limit)
    else:
        found = read(model.tokenizer, texts, model.limit, overflow, report)
    rows = zip(found, targets, texts, table.rows, strict=True)
    examples = [
        Example(ids, target, text, _written(row["label"]), where)
        for ids, target, text, (where, row) in rows
    ]
    return examples, str(report)


def _check_lengths(table: Table, found: list[Read], limit: int) -> None:
    for (where, _), one in zip(table.rows, found, strict=True):
        if len(one.ids) > limit:
            raise InputError(
                f"{where}: has {len(one.ids):,} tokens and the model takes {limit:,}; shorten the "
                f"text, or set data.overflow to {', '.join(CUTTING[:-1])} or {CUTTING[-1]}"
            )


def _written(label: Any) -> str:
    return ", ".join(map(str, label)) if isinstance(label, list) else str(label).strip()


def _text(row: dict[str, Any], where: str) -> Text:
    for part, value in row.items():
        if part != "label" and not isinstance(value, str):
            raise InputError(
                f"{where}: the {part} {value!r:.40} is {type(value).__name__}, not a text; name "
                f"another column with data.columns.{part}"
            )
    return (row["text"], row["pair"]) if "pair" in row else row["text"]


def _check_number_of_labels(
    kind: Kind, rows: int, column: str, model: LanguageModel, say: Say
) -> None:
    size = len(kind.names)
    if size <= MANY and size <= rows / 2:
        return
    # weights, gradient and two moments; and what a step of 32 rows says
    memory = f"{4 * 4 * size * model.config.d_model / 2**20:,.0f} MiB for the head"
    if size > max(20, rows / 2) and kind.problem == "single_label_classification":
        number = ", or set classify.kind to number" if kinds.are_numbers(kind.names) else ""
        raise InputError(
            f"column {column!r} has {size:,} different labels in {rows:,} rows (it would take "
            f"{memory}); most stand there once, so nothing can be learned of them: name another "
            f"column{number}"
        )
    if size > MANY:
        say(f"{size:,} labels take {memory}")


def _facts(examples: dict[str, list[Example]], kind: Kind, say: Say) -> dict[str, Any]:
    """Counts of rows, of those that come twice, and of labels; what is odd is said."""
    train = examples["train"]
    facts: dict[str, Any] = {name: len(part) for name, part in examples.items()}
    facts |= overlaps(examples, "texts", say, lambda one: (one.group, one.target))
    disputed = len({(one.group, one.target) for one in train}) - len({one.group for one in train})
    if disputed:
        say(f"train: {disputed:,} texts stand there with different labels")
    facts["disputed"] = disputed
    for names in kinds.alike(kind.names):
        said = ", ".join(map(repr, names))
        say(f"train: the labels {said} are learned as different ones; make them one if they are")
    if missing := [name for name in kind.names if name.casefold() in MISSING]:
        said = ", ".join(map(repr, missing))
        say(
            f"train: {said} is learned as a label; take such rows out if it says that there is none"
        )
    if kind.problem == "single_label_classification":
        counts = Counter(kind.names[one.target] for one in train)
        name, share = counts.most_common(1)[0][0], counts.most_common(1)[0][1] / len(train)
        facts["rows_of_label"] = dict(counts.most_common())
        if share >= MOST:
            say(
                f"{share:.1%} of the training rows are {name!r}: who always says so is right as "
                "often; --set train.class_weights=balanced --set evaluate.metric=macro_f1"
            )
    return facts


def with_classifier(
    network: Network,
    n_labels: int,
    *,
    pool: str | None = None,
    dropout: float = 0.1,
    seed: int = 0,
    model_type: str | None = None,
) -> Network:
    """A network with the same body under a new head; the heads that guessed tokens go.

    pool: what of a text the head reads, first (its [CLS], as BERT does), mean or last; None: what
    the same architecture's classifier in `transformers` reads, through a pooler where it has one.
    Decoders read the last token, which alone has seen the whole text, and so do the decoders of
    encoder-decoders.
    """
    old = network.config
    changes = {"n_labels": n_labels, **dropping(old, dropout)}
    default = "first" if old.family == "encoder" else "last"
    plain = old.replace(heads=(HEAD,), pool=pool or default, **changes)
    through = plain.replace(heads=("pooler", HEAD))
    if "pooler" in old.heads and plain.pool == default:
        config = through
    else:
        options = (through, plain) if pool is None else ()
        config = next((one for one in options if row_for(one, model_type) is not None), plain)
    return with_body(network, config, HEAD, seed)

"""The task `tag`: a tag for each word, parts of speech or the beginnings and insides of entities.

The first piece of a word carries its tag. Sentences beyond the model's context are read in windows
that overlap by half, and each word counts in the one where it has most context. An encoder-decoder
is read by its encoder, of which the tagger then consists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch

from tercet.data import Stream
from tercet.data.placed import AtPlaces, Placed, PlacedWindows
from tercet.data.sources import Tally, nearest
from tercet.data.tagged import Tagged, tagged
from tercet.errors import InputError
from tercet.evaluate.tagging import Found, tag_scores
from tercet.jobs.finetune import findings
from tercet.jobs.finetune.bodies import files_of, under_head
from tercet.jobs.finetune.kinds import class_weights, in_order
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.finetune.splits import overlaps
from tercet.jobs.finetune.task import TEST, TRAIN, VALIDATION, Finished, Folds, Say, Scores, Splits
from tercet.language_model import LanguageModel
from tercet.model import Network
from tercet.represent.tag import tag_words
from tercet.represent.texts import TextReader
from tercet.text.tags import chunks, is_bio, repaired
from tercet.text.windows import pieces_of, word_windows
from tercet.train import Tagging

PARTS = ("text", "label")  # the columns of the words and of the tags
MOST_TAGS = 1_000  # beyond that, a column of something else was taken for the tags
NEARLY_ALL = 0.98  # of the words with one tag: a warning


@dataclass(frozen=True)
class TagTask:
    """See ``Task``. labels: the tags that training shows, in order."""

    model: LanguageModel
    recipe: FinetuneRecipe
    labels: tuple[str, ...]
    facts: dict[str, Any]

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("f1", "accuracy") if is_bio(self.labels) else ("accuracy",)

    def network(self, seed: int) -> Network:
        train = self.recipe.train
        return under_head(
            self.model.network, "tagger", seed, n_labels=len(self.labels), dropout=train.dropout
        )

    def stream(self, examples: Sequence[Tagged], seed: int) -> Stream:
        tokenizer, numbers = self.model.tokenizer, {tag: i for i, tag in enumerate(self.labels)}
        windows = []
        for example, pieces in zip(examples, pieces_of(tokenizer, [e.words for e in examples])):
            for window in word_windows(pieces, self.model.limit, tokenizer.around):
                tags = [numbers[example.tags[word]] for word in window.words]
                windows.append(Placed(window.ids, window.places, tags))
        rows = min(self.recipe.train.rows, len(windows))
        draw = PlacedWindows(windows, rows=rows, seed=seed)
        return Stream(draw, AtPlaces(), self.recipe.train.micro_tokens)

    def objective(self, examples: Sequence[Tagged]) -> Tagging:
        found = counted(examples)
        counts = torch.tensor([max(1, found[label]) for label in self.labels])
        return Tagging(class_weights(counts, self.recipe.train.class_weights))

    def scores(self, network: Network, examples: Sequence[Tagged]) -> Scores:
        named = tag_words(self._reader(network), [example.words for example in examples])
        guesses = [[self.labels[number] for number, _ in tags] for tags in named]
        bio = is_bio(self.labels)
        found = tag_scores([example.tags for example in examples], guesses, bio=bio)
        figures = {"accuracy": found.accuracy}
        if found.entities is not None:
            whole = found.entities
            figures |= {"f1": whole.f1, "precision": whole.precision, "recall": whole.recall}
            for kind in sorted({kind for kind, *_ in chunks(self.labels)}):
                figures[f"f1 {kind}"] = found.kinds.get(kind, Found(0, 0, 0)).f1
            figures["repaired"] = float(found.repaired)
        return Scores(figures, str(found), len(examples))

    def finish(self, network: Network, validation: Sequence[Tagged]) -> Finished:
        changes: dict[str, Any] = {"generation": {}, "problem": None, "temperature": 1.0}
        return Finished(replace(self.model.extras, labels=self.labels, **changes))

    def findings(self, model: LanguageModel, splits: Splits, folds: Folds) -> dict[str, Any]:
        """Which tags of words are taken for which."""
        split, examples = findings.measured(splits)
        named = tag_words(self._reader(model.network), [example.words for example in examples])
        counts = Counter(
            (true, self.labels[number])
            for example, tags in zip(examples, named)
            for true, (number, _) in zip(example.tags, tags)
        )
        return {"split": split, "confusion": [[*pair, n] for pair, n in sorted(counts.items())]}

    def _reader(self, network: Network) -> TextReader:
        return TextReader(network, self.model.tokenizer, self.model.limit)


def tag(recipe: FinetuneRecipe, model: LanguageModel, say: Say) -> tuple[TagTask, Splits]:
    """Reads what the recipe names: .conllu, .jsonl with two lists, or a word and its tag a line.
    See ``Reader``."""
    columns = recipe.data.columns
    for part in columns:
        if part not in PARTS:
            raise InputError(
                f"data.columns.{part} is no part of a sentence; {nearest(part, PARTS)}"
            )
    parts: dict[str, list[Tagged]] = {}
    tally, used = Tally(), {}
    for name, files in files_of(recipe.data).items():
        parts[name] = []
        for file in files:
            read = tagged(file, words=columns.get("text"), tags=columns.get("label"), tally=tally)
            say(f"{file}: {read}")
            used = used or read.columns
            parts[name] += read.sentences
    for reason, count in tally.skipped.items():
        say(f"{count:,} times {reason}: left out")
    labels, mended = in_order(set(counted(parts["train"]))), 0
    if is_bio(labels):
        mended = sum(map(_repair, parts.values()))
        labels = in_order(set(counted(parts["train"])))
        if mended:
            say(f"{mended:,} tags were illegal, I- with nothing to go on with: read as B-")
    _check(parts, labels, say)
    found = {"columns": used, "labels": list(labels), "illegal_tags": mended}
    facts = _facts(parts, say) | found
    splits = Splits(*(parts.get(name, ()) for name in (TRAIN, VALIDATION, TEST)))
    return TagTask(model, recipe, labels, facts), splits


def counted(sentences: Iterable[Tagged]) -> Counter[str]:
    """How many words have each tag."""
    return Counter(chain.from_iterable(one.tags for one in sentences))


def _repair(sentences: list[Tagged]) -> int:
    """Makes tags legal where they stand; how many were not."""
    count = 0
    for i, one in enumerate(sentences):
        tags, mended = repaired(one.tags)
        sentences[i] = replace(one, tags=tags)
        count += mended
    return count


def _check(parts: dict[str, list[Tagged]], labels: tuple[str, ...], say: Say) -> None:
    """Raises for tags of which nothing can be learned, and says what is odd about them."""
    counts = counted(parts[TRAIN])
    usual, most = counts.most_common(1)[0]
    if len(labels) < 2:
        raise InputError(f"all words have the one tag {usual!r}; there is nothing to learn")
    if len(labels) > MOST_TAGS:
        raise InputError(
            f"there are {len(labels):,} different tags in {counts.total():,} words: is this their "
            "column? Name it with --label COLUMN"
        )
    if most > NEARLY_ALL * counts.total():
        say(
            f"{most / counts.total():.1%} of the words have the tag {usual!r}; "
            "--set train.class_weights=balanced makes the others count more"
        )
    for name, part in parts.items():
        new = {tag: count for tag, count in counted(part).items() if tag not in counts}
        if new:
            said = ", ".join(map(repr, list(new)[:5]))
            say(
                f"{name}: {sum(new.values()):,} words have tags that stand in no training sentence "
                f"({said}); they count as wrong"
            )


def _facts(parts: dict[str, list[Tagged]], say: Say) -> dict[str, Any]:
    """Counts of sentences and words, of sentences that come twice, and of tags."""
    counts = {name: counted(part) for name, part in parts.items()}
    return {name: len(part) for name, part in parts.items()} | {
        "words": {name: found.total() for name, found in counts.items()},
        "words_of_tag": dict(counts[TRAIN].most_common()),
        **overlaps(parts, "sentences", say, lambda one: one.group),
    }

"""The files of the tasks `embed` and `rank`: rows of related texts, or a retrieval folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tercet.data import Stream
from tercet.data.judgements import Judgements, is_retrieval_folder
from tercet.data.related import Related, number_of
from tercet.data.sources import Tally, found, is_table
from tercet.data.tables import lines_of, text_of
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune.rows import Part, Table, empty, read_table
from tercet.jobs.finetune.settings import Data, FinetuneRecipe
from tercet.jobs.finetune.splits import overlaps
from tercet.jobs.finetune.task import TEST, TRAIN, VALIDATION, Folds, Say, Splits
from tercet.language_model import LanguageModel

PARTS = (
    Part("text", ("anchor", "query", "question", "sentence1", "text_a", "text1", "text")),
    Part("pair", ("positive", "answer", "passage", "sentence2", "text_b", "text2"), needed=False),
    Part("negative", ("negative", "hard_negative"), needed=False),
    Part("label", ("score", "similarity", "similarity_score", "label"), needed=False),
)

LEARNED = {  # by the parts that are used
    ("text",): "texts alone (SimCSE)",
    ("text", "pair"): "pairs",
    ("text", "pair", "negative"): "pairs with negatives",
    ("text", "pair", "label"): "pairs with scores",
}


@dataclass(frozen=True)
class RelatedData:
    """splits: of Related. documents: what a search may find beside the rows' own texts, by id."""

    splits: Splits
    documents: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def others(self, known: Iterable[str]) -> dict[str, str]:
        """By a name: what else a search may find, the partners in all splits and the documents."""
        found = {text: f"other {number}" for number, text in enumerate(self._searched)}
        for text in known:
            found.pop(text, None)
        return {name: text for text, name in found.items()}

    @cached_property
    def _searched(self) -> list[str]:
        rows = [*self.splits.train, *self.splits.validation, *self.splits.test]
        partners = [row.texts[1] for row in rows if row.score is None]
        return list(dict.fromkeys([*partners, *self.documents.values()]))


class RelatedTask(ABC):
    """What embed and rank have in common of a ``Task``."""

    def __init__(
        self, recipe: FinetuneRecipe, model: LanguageModel, data: RelatedData, say: Say
    ) -> None:
        self.recipe, self.model, self.data, self.say = recipe, model, data, say
        self._streams: dict[tuple[int, tuple[Related, ...]], Stream] = {}

    def stream(self, examples: Sequence[Related], seed: int) -> Stream:
        """Made once: to mine takes a pass over all texts."""
        key = seed, tuple(examples)
        if key not in self._streams:
            self._streams[key] = self._stream(examples, seed)
        return self._streams[key]

    @abstractmethod
    def _stream(self, examples: Sequence[Related], seed: int) -> Stream: ...

    def findings(self, model: LanguageModel, splits: Splits, folds: Folds) -> dict[str, Any]:
        return {}  # its figures say it all


def read_related(recipe: FinetuneRecipe, say: Say) -> RelatedData:
    """The splits of a recipe; no validation rows where it wants a share of the training rows.

    Raises InputError as ``read_table`` and ``rows_of`` do.
    """
    data = recipe.data
    folders = recipes.expanded(data.train)
    if len(folders) == 1 and is_retrieval_folder(folders[0]):
        return _of_folder(folders[0], data, say)
    table, learned = _used(_table(data.train, data.columns))
    say(f"train: {table.sentence}: {learned}")
    parts = {TRAIN: rows_of(table, TRAIN, say), VALIDATION: [], TEST: []}
    files = data.validation if isinstance(data.validation, list) else []
    for name, place in ((VALIDATION, files), (TEST, data.test)):
        if place:
            parts[name] = rows_of(_table(place, data.columns), name, say)
    facts: dict[str, Any] = {name: len(rows) for name, rows in parts.items()}
    facts |= overlaps(parts, "first texts", say)
    return RelatedData(Splits(*parts.values()), facts=facts | {"columns": table.columns})


def _table(files: list[str], columns: dict[str, str]) -> Table:
    """The rows of tables; of files of plain text the lines, each a text by itself."""
    names = found(recipes.expanded(files))
    if columns or any(map(is_table, names)):
        return read_table(files, PARTS, columns)
    lines = [
        (f"{name}, line {number}", {"text": line})
        for name in names
        for number, line in enumerate(lines_of(name, Tally()), 1)
    ]
    return Table({"text": "the lines"}, (), lines)


def _of_folder(folder: str, data: Data, say: Say) -> RelatedData:
    """The judgements of the split train, and of the split test where there is one."""
    if isinstance(data.validation, list) or data.test or data.columns:
        raise InputError(
            f"{folder} is a retrieval folder with its own splits; give data.validation as a share "
            "and neither data.test nor data.columns"
        )
    judged = Judgements.read(folder)
    documents = {name: text for name, text in judged.documents.items() if text}
    train = judged.pairs("train")
    test = judged.pairs("test") if "test" in judged.judged else []
    say(
        f"{folder}: {len(documents):,} documents, {len(train):,} pairs to learn from, "
        f"{len(test):,} for the test"
    )
    if without := len(judged.documents) - len(documents):
        say(f"{folder}: {without:,} documents without a text are left out")
    facts = {TRAIN: len(train), TEST: len(test), "documents": len(documents)}
    return RelatedData(Splits(train, [], test), documents, facts)


def _parts(columns: Collection[str]) -> tuple[str, ...]:
    """Which of these parts something is learned from: a score and a negative are of a pair, and a
    scored pair needs no negative."""
    if "pair" not in columns:
        return ("text",)
    third = next((part for part in ("label", "negative") if part in columns), None)
    return ("text", "pair") if third is None else ("text", "pair", third)


def _used(table: Table) -> tuple[Table, str]:
    """A table with the columns that are used alone, and a word on what is learned of them."""
    parts = _parts(table.columns)
    idle = [name for part, name in table.columns.items() if part not in parts]
    said = [LEARNED[parts], *(f"column {name!r} is not used" for name in idle)]
    columns = {part: table.columns[part] for part in parts}
    guessed = tuple(part for part in table.guessed if part in parts)
    return replace(table, columns=columns, guessed=guessed), "; ".join(said)


def rows_of(table: Table, name: str, say: Say = lambda sentence: None) -> list[Related]:
    """The rows of a table: with a part pair they are pairs, which a part label scores, or to which
    a part negative gives a text that is far; without, each text is its own partner.

    Empty rows are left out, and of those that are learned from repeated ones, which is said. Raises
    InputError for a score that is no finite number, and for scores that are all one.
    """
    columns, used = table.columns, _parts(table.columns)
    sides = ("text", "pair") if "pair" in used else ("text", "text")
    made, n_empty = [], 0
    for where, row in table.rows:
        texts = [text_of(row[side], columns[side], where) for side in sides]
        score = None
        if any(map(empty, texts)):
            n_empty += 1
            continue
        if "label" in used:
            score = number_of(row["label"], columns["label"], where)
        elif "negative" in used and not empty(row["negative"]):
            texts.append(text_of(row["negative"], columns["negative"], where))
        made.append(Related(tuple(texts), score))
    kept = list(dict.fromkeys(made)) if name == TRAIN else made
    for count, kind in ((n_empty, "empty"), (len(made) - len(kept), "repeated")):
        if count:
            say(f"{name}: {count:,} {kind} rows are left out")
    if not kept:
        raise InputError(f"{name}: every row has an empty text; give texts to learn from")
    if kept[0].score is not None and len({row.score for row in kept}) == 1:
        raise InputError(
            f"{name}: every score in column {columns['label']!r} is {kept[0].score:g}, so that no "
            "pair is closer than another; name another column with --label, or take it out"
        )
    return kept

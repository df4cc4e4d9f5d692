"""Sentences as words with a tag each: columns of CoNLL's kind, CoNLL-U, or .jsonl with two lists.

A file of columns has a word a line and an empty line between sentences. Its columns are separated
by tabs, or by spaces where it has no tab. Knows nothing of what the tags mean, but that it looks
for entities first where it must guess which column is meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tercet.data.sources import Tally, kind_of, nearest
from tercet.data.tables import lines_of, rows, value
from tercet.errors import InputError
from tercet.text.tags import is_bio

# What the two lists of a .jsonl row are called, the first that is there.
WORDS, TAGS = ("words", "tokens"), ("tags", "labels", "ner_tags", "pos_tags")
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
NUMBER = re.compile(r"\d+([-.]\d+)?")  # of a word; a range of words; an empty node
DOCUMENT = "-DOCSTART-"  # begins a text in CoNLL-2003's files; no word


@dataclass(frozen=True)
class Tagged:
    """A sentence of at least one word. where: its file and line."""

    words: list[str]
    tags: list[str]
    where: str

    @property
    def group(self) -> str:
        """Equal sentences are one, wherever they stand."""
        return " ".join(self.words)


@dataclass(frozen=True)
class TaggedFile:
    """The sentences of a file, and the columns that they came from: text and label."""

    sentences: list[Tagged]
    columns: dict[str, str]

    def __str__(self) -> str:
        columns = self.columns
        return (
            f"{len(self.sentences):,} sentences, words from column {columns['text']!r}, tags from "
            f"column {columns['label']!r}"
        )


def tagged(
    name: str,
    *,
    words: str | None = None,
    tags: str | None = None,
    tally: Tally | None = None,
) -> TaggedFile:
    """All sentences of a file (each kind also .gz).

    words, tags: where the two stand: a column's number, its name in CoNLL-U (upos, xpos ...) or in
    .jsonl. None: words in form, in column 1, or in words or tokens; tags in upos, in the last
    column if that names entities (BIO), else in the second, or in tags, labels, ner_tags or
    pos_tags. Raises InputError for words without a tag, unequal numbers of the two, and a column
    that is not there, naming file and line.
    """
    tally = tally or Tally()
    read = _listed if kind_of(name) == ".jsonl" else _columns
    found = read(name, words, tags, tally)
    if not found.sentences:
        raise InputError(f"{name}: holds no sentence; give a word and its tag a line")
    return found


# two lists a row ----------------------------------------------------------------------------------


def _listed(name: str, words_in: str | None, tags_in: str | None, tally: Tally) -> TaggedFile:
    sentences, columns = [], {}
    for number, row in rows(name, (), tally):
        where = f"{name}, line {number}"
        word_key = words_in or _key(row, WORDS, where)
        tag_key = tags_in or _key(row, TAGS, where)
        words, tags = (_texts(value(row, key, where), key, where) for key in (word_key, tag_key))
        if len(words) != len(tags):
            raise InputError(
                f"{where} ({' '.join(words)[:40]!r}): has {len(words)} words and {len(tags)} tags; "
                "give a tag for each word"
            )
        columns = columns or {"text": word_key, "label": tag_key}
        if words:
            sentences.append(Tagged(words, tags, where))
        else:
            tally.skipped["empty sentence"] += 1
    return TaggedFile(sentences, columns)


def _key(row: dict[str, Any], names: tuple[str, ...], where: str) -> str:
    """The first of some names that a row has; the error names the nearest to the first."""
    found = next((key for key in names if key in row), None)
    if found is None:
        raise InputError(f"{where}: has no column {names[0]!r}; {nearest(names[0], list(row))}")
    return found


def _texts(found: Any, key: str, where: str) -> list[str]:
    """A list of texts; whole numbers, by which some files name their tags, are taken as such."""
    if not isinstance(found, list):
        kind = type(found).__name__
        raise InputError(f"{where}: {key!r} is {kind} {found!r:.40}, not a list; give a list")
    for item in found:
        if isinstance(item, bool) or not isinstance(item, str | int) or item == "":
            raise InputError(f"{where}: {key!r} holds {item!r}, which is no word; give texts")
    return [str(item) for item in found]


# a word a line ------------------------------------------------------------------------------------


def _columns(name: str, words_in: str | None, tags_in: str | None, tally: Tally) -> TaggedFile:
    blocks = list(_blocks(name, tally))
    if not blocks:
        return TaggedFile([], {})
    first = blocks[0][0][1]
    if len(first) == len(CONLLU) and NUMBER.fullmatch(first[0]):
        return _conllu(name, blocks, words_in or "form", tags_in or "upos")
    width = len(first)
    for column in (words_in, tags_in):
        if column is not None and not (column.isdigit() and 1 <= int(column) <= width):
            raise InputError(f"{name}: has no column {column!r}; give a number from 1 to {width}")
    for number, cells in (line for block in blocks for line in block):
        if len(cells) != width or width < 2:
            raise InputError(
                f"{name}, line {number} ({cells[0]!r}): has {len(cells)} columns where there "
                f"should be {max(2, width)}; give each word its tag"
            )
    word = int(words_in) - 1 if words_in else 0
    tag = int(tags_in) - 1 if tags_in else _guessed(blocks, width)
    sentences = [_sentence(name, block, word, tag) for block in blocks]
    return TaggedFile(sentences, {"text": str(word + 1), "label": str(tag + 1)})


def _guessed(blocks: list[list[tuple[int, list[str]]]], width: int) -> int:
    """The place of the tags: the last column where that names entities, else the second."""
    last = (cells[-1] for block in blocks for _, cells in block)
    return width - 1 if is_bio(last) else 1


def _blocks(name: str, tally: Tally) -> Iterator[list[tuple[int, list[str]]]]:
    """The lines of each sentence: (number, cells). Where there are tabs, a line without one that
    begins with # is a comment."""
    lines = list(lines_of(name, tally))
    tab = "\t" if any("\t" in line for line in lines) else None
    block: list[tuple[int, list[str]]] = []
    for number, line in enumerate([*lines, ""], 1):
        cells = line.split(tab) if line.strip() else []
        note = line.startswith(DOCUMENT) or (tab and line.startswith("#") and tab not in line)
        if cells and not note:
            block.append((number, cells))
        elif block and not cells:
            yield block
            block = []


def _conllu(
    name: str, blocks: list[list[tuple[int, list[str]]]], words_in: str, tags_in: str
) -> TaggedFile:
    """Of the words alone: ranges (1-2 don't) and empty nodes (8.1) are no words of a sentence."""
    names = {str(i): key for i, key in enumerate(CONLLU, 1)}
    keys = [names.get(column, column.lower()) for column in (words_in, tags_in)]
    for column, key in zip((words_in, tags_in), keys):
        if key not in CONLLU:
            raise InputError(f"{name}: has no column {column!r}; {nearest(column, CONLLU)}")
    word, tag = map(CONLLU.index, keys)
    sentences = []
    for block in blocks:
        for number, cells in block:
            if len(cells) != len(CONLLU) or not NUMBER.fullmatch(cells[0]):
                raise InputError(
                    f"{name}, line {number}: not a line of CoNLL-U, a number and nine more columns "
                    "between tabs; mend the line"
                )
        words = [line for line in block if line[1][0].isdigit()]
        if words:
            sentences.append(_sentence(name, words, word, tag))
    return TaggedFile(sentences, {"text": keys[0], "label": keys[1]})


def _sentence(name: str, block: list[tuple[int, list[str]]], word: int, tag: int) -> Tagged:
    for number, cells in block:
        if not cells[word].strip() or not cells[tag].strip():
            raise InputError(f"{name}, line {number}: a word or its tag is empty; give both")
    words, tags = ([cells[place] for _, cells in block] for place in (word, tag))
    return Tagged(words, tags, f"{name}, line {block[0][0]}")

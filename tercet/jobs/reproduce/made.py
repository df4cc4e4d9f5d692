"""Tables made of the files of others: columns put together, and pairs of texts that belong together
found in files that have none. The same files give the same table."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tercet.data.documents import Document, documents, records
from tercet.data.duplicates import normalised
from tercet.data.order import permutation
from tercet.data.questions import questions
from tercet.files import written
from tercet.jobs import recipe as recipes
from tercet.jobs.reproduce.docstrings import defined
from tercet.jobs.reproduce.ruled import KINDS, found, ruled
from tercet.jobs.reproduce.talks import open_questions, shorter, talks
from tercet.text.read import lines

Rows = Iterator[dict[str, Any]]
SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])")
SHORTEST, LONGEST = 5, 40  # words of a sentence that stands for itself
STAYS = 0.6  # a thinned sentence's word does so with this chance


def make(path: Path, sources: Sequence[dict[str, Any]], *, seed: int = 0) -> str:
    """Writes a .jsonl with the rows of all sources, and returns its name.

    A source is a ``file``, ``how`` it is read (see the functions below; columns if it does not
    say), and ``most``: so many rows, drawn from all. What comes from no file names what else.
    """
    with written(path) as draft, draft.open("w", encoding="utf-8") as file:
        for source in sources:
            (name,) = recipes.expanded([source.get("file", "")])
            rows = list(HOW[source.get("how", "columns")](name, source))
            kept = permutation(seed, 0, len(rows))[: source.get("most")]
            for i in sorted(kept.tolist()):
                file.write(json.dumps(rows[i], ensure_ascii=False) + "\n")
    return str(path)


def columns(name: str, source: dict[str, Any]) -> Rows:
    """``make``: new column -> old ones, joined by blanks. ``rename``: new column -> old value ->
    new one. ``only``: old column -> the value of the rows that are taken."""
    make, only = source["make"], source.get("only", {})
    used = list(dict.fromkeys([*(old for olds in make.values() for old in olds), *only]))
    for row in records(name, columns=used):
        if all(str(row[old]) == str(value) for old, value in only.items()):
            values = {new: " ".join(str(row[old]) for old in olds) for new, olds in make.items()}
            for new, names in source.get("rename", {}).items():
                values[new] = names[values[new]]
            yield values


def same(name: str, source: dict[str, Any]) -> Rows:
    """Of lines with two columns, texts of the first that share the second: sentences with the same
    translation say nearly the same. Each is paired with the next one."""
    together: dict[str, list[str]] = defaultdict(list)
    for line in lines(name):
        text, other = line.split("\t")[:2]
        together[other].append(text)
    for texts in together.values():
        yield from _pairs(list(dict.fromkeys(texts)))


def paraphrases(name: str, source: dict[str, Any]) -> Rows:
    """Of such lines, label 1: two texts with one translation; label 0: a text and one of the three
    nearest that share none of its translations, by the vectors of the ``model``. ``near``: so many
    other texts are drawn to look among. All of ``words`` words at least, on both sides together."""
    from tercet.jobs.finetune.mining import dense_order
    from tercet.jobs.reproduce.bodies import body
    from tercet.language_model import load

    meanings, texts = defaultdict(set), {}
    for line in lines(name):
        text, other = line.split("\t")[:2]
        texts.setdefault(normalised(text), text)
        meanings[normalised(text)].add(normalised(other))
    together: dict[str, list[str]] = defaultdict(list)
    for text, others in meanings.items():
        for other in sorted(others):
            together[other].append(text)
    enough = lambda one, other: len(f"{one} {other}".split()) >= source["words"]  # noqa: E731
    pairs = dict.fromkeys(
        pair for group in together.values() for pair in zip(group, group[1:]) if enough(*pair)
    )
    asked = dict.fromkeys(text for pair in pairs for text in pair)
    draw = random.Random(0)
    more = [text for text in texts if text not in asked and enough(text, text)]
    more = draw.sample(more, min(source["near"], len(more)))
    queries = draw.sample(list(asked), min(len(asked), len(pairs)))
    found = dense_order(
        load(body(source["model"], quiet=True)),
        {text: texts[text] for text in queries},
        {text: texts[text] for text in (*asked, *more)},
        depth=10,
    )
    for one, other in pairs:
        yield {"text1": texts[one], "text2": texts[other], "label": 1}
    for text, order in found.items():
        if apart := [one for one in order if not meanings[one] & meanings[text]]:
            yield {"text1": texts[text], "text2": texts[draw.choice(apart[:3])], "label": 0}


def graded(name: str, source: dict[str, Any]) -> Rows:
    """Of pairs with a score (the three ``columns``), label 1: from ``same`` on; label 0: up to
    ``apart``; those between say neither. ``without``: column -> the value of rows left out."""
    texts, without = source["columns"], source.get("without", {})
    for row in records(name, columns=(*texts, *without)):
        one, other, score = (row[column] for column in texts)
        between = source["apart"] < float(score) < source["same"]
        if not between and all(str(row[name]) != str(value) for name, value in without.items()):
            yield {"text1": one, "text2": other, "label": int(float(score) >= source["same"])}


def answers(name: str, source: dict[str, Any]) -> Rows:
    """Questions of a file in the form of SQuAD, each with the sentence that holds its answer."""
    for one in questions(name).rows:
        text, start = one.usual
        sentence = next(s for begin, s in _sentences(one.context) if begin + len(s) > start)
        if text in sentence:
            yield {"text1": one.question, "text2": sentence}


def neighbours(name: str, source: dict[str, Any]) -> Rows:
    """Of running text, sentences with the one behind them."""
    for document in documents([name], split="line"):
        found = [s for _, s in _sentences(document.text)]
        for one, other in zip(found, found[1:]):
            if all(SHORTEST <= len(s.split()) <= LONGEST for s in (one, other)):
                yield {"text1": one, "text2": other}


def thinned(name: str, source: dict[str, Any]) -> Rows:
    """Of running text or of a ``column``, each sentence twice, with other words left out each time:
    the two know each other by the words that other sentences lack (random deletion: Wei and Zou
    2019, EDA; of both sides: Wu et al. 2020, CLEAR). How many words stay is drawn too: two sides
    of one length would know each other by it."""
    draw = random.Random(0)
    for document in _paragraphs(name, source):
        for _, sentence in _sentences(document.text):
            words = sentence.split()
            if SHORTEST <= len(words) <= LONGEST:
                one, other = (
                    [word for word in words if draw.random() < STAYS] or words for _ in range(2)
                )
                yield {"text1": " ".join(one), "text2": " ".join(other)}


def rules(name: str, source: dict[str, Any]) -> Rows:
    """Instructions over the sentences of a text or of a ``column``, ``each`` of a kind at the most.
    ``every``: only of each so-manieth line or row, counted from ``start``. ``kinds``: these
    alone."""
    every, start = source.get("every", 1), source.get("start", 0)
    texts = [document.text for document in _paragraphs(name, source)]
    given = list(found(texts[start::every]))
    seed, kinds = source.get("seed", 0), source.get("kinds", tuple(KINDS))
    order = permutation(seed, 0, len(given)).tolist()
    yield from ruled([given[i] for i in order], each=source["each"], kinds=kinds, seed=seed)


def _paragraphs(name: str, source: dict[str, Any]) -> Iterator[Document]:
    if name.endswith((".json", ".json.gz")):  # the contexts of questions, as SQuAD has them
        contexts = dict.fromkeys(one.context for one in questions(name).rows)
        return (Document(text, name, number) for number, text in enumerate(contexts, 1))
    return documents([name], split="line", column=source.get("column", "text"))


def docstrings(name: str, source: dict[str, Any]) -> Rows:
    """``modules`` of Python's own library: what their functions are for."""
    yield from defined(source["modules"])


HOW = {
    "columns": columns,
    "same": same,
    "paraphrases": paraphrases,
    "graded": graded,
    "answers": answers,
    "neighbours": neighbours,
    "thinned": thinned,
    "rules": rules,
    "docstrings": docstrings,
    "talks": talks,
    "shorter": shorter,
    "open": open_questions,
}


def _pairs(texts: Sequence[str]) -> Rows:
    for one, other in zip(texts, texts[1:]):
        yield {"text1": one, "text2": other}


def _sentences(text: str) -> Iterator[tuple[int, str]]:
    """The sentences of a text, as far as punctuation tells, and where each begins."""
    start = 0
    for end in [*(match.start() for match in SENTENCES.finditer(text)), len(text)]:
        part = text[start:end]
        begin = start + len(part) - len(part.lstrip())
        if part.strip():
            yield begin, part.strip()
        start = end

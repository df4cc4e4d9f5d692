"""Questions with choices, from the rows of files: what stands before, what may follow, what is
right.

A task is a few templates over a row's columns, taken from the published definitions (the tasks of
EleutherAI's lm-evaluation-harness, of the same names), so that figures can be compared. Knows no
tokens and no model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from string import Formatter
from typing import Any

from tercet.data.sources import Tally, nearest
from tercet.data.tables import Row, rows, value
from tercet.errors import InputError

# What may be done to a column inside a template's braces, as in {ctx_b!c}.
CONVERSIONS: dict[str, Callable[[str], str]] = {
    "c": str.capitalize,
    "h": lambda text: " ".join(text.split(" ")[:-1]),  # all words but the last
    "l": lambda text: text.split(" ")[-1],  # the last word
}


def wikihow(text: str) -> str:
    """HellaSwag's clean-up: the brackets are what WikiHow's mark-up has left."""
    titled = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", titled).replace("  ", " ")


def unheaded(text: str) -> str:
    """BoolQ's passage without a heading."""
    return text.removeprefix("Passage: ")


@dataclass(frozen=True)
class Task:
    """How a row becomes a question.

    prompt: a template. choices: a column that holds a list of them ("choices.text": in an object),
    or a template for each. answer: the column of the right one: its number from 0, its label, or
    the choice itself; "" where it is always the first. labels: what the choices are called, as
    ``choices``. before: the choices stand before the prompt, which is what is foretold: the partial
    evaluation of Trinh and Le (2018). between: what stands between the two. clean: of every text.
    metrics: what is told. group: a column whose values get a figure each.
    """

    prompt: str
    choices: str | tuple[str, ...] = "choices"
    answer: str = "gold"
    labels: str | tuple[str, ...] = ()
    before: bool = False
    between: str = " "
    clean: Callable[[str], str] = str
    metrics: tuple[str, ...] = ("acc",)
    group: str = ""

    @property
    def columns(self) -> list[str]:
        """What a row must have."""
        templates = [self.prompt, *(self.choices if isinstance(self.choices, tuple) else ())]
        found = [name for template in templates for name, _ in _parts(template) if name]
        found += [self.choices] if isinstance(self.choices, str) else []
        found += [self.labels] if isinstance(self.labels, str) else []
        return list(dict.fromkeys([*found, *([self.answer] if self.answer else [])]))


NORMED = ("acc", "acc_norm")
# The first form whose columns a row has is taken: as the sets are published, and as collected in
# files of query, choices and gold.
TASKS: dict[str, tuple[Task, ...]] = {
    "arc-easy": (
        Task(
            "Question: {question}\nAnswer:",
            *("choices.text", "answerKey", "choices.label"),
            metrics=NORMED,
        ),
        Task("{query}\nAnswer:", metrics=NORMED),
    ),
    "piqa": (
        Task("Question: {goal}\nAnswer:", ("{sol1}", "{sol2}"), "label", metrics=NORMED),
        Task("{query}Answer:", metrics=NORMED),
    ),
    "copa": (Task("{query}", between="  "),),  # two spaces, as it is published
    "winogrande": (Task("{continuation}", "context_options", before=True),),
    "hellaswag": (
        Task(
            "{activity_label}: {ctx_a} {ctx_b!c}",
            *("endings", "label"),
            clean=wikihow,
            metrics=NORMED,
        ),
        Task("{activity_label}: {ctx}", "endings", "label", clean=wikihow, metrics=NORMED),
    ),
    "boolq": (
        Task("{passage}\nQuestion: {question}?\nAnswer:", ("no", "yes"), "label"),
        Task("{query}\nAnswer:", clean=unheaded),
    ),
    "blimp": (
        Task("", ("{sentence_good}", "{sentence_bad}"), "", group="UID"),
        Task("", ("{good}", "{bad}"), "", group="UID"),
    ),
}
LAMBADA = (
    Task("{text!h}", ("{text!l}",), ""),
    Task("{context}", ("{continuation}",), ""),
)
# Of files in nobody's form: the columns that are guessed, the first that is there.
ASKED = ("question", "query", "prompt", "context", "ctx", "goal", "sentence", "text")
CHOICES = ("choices", "options", "endings", "answers")
ANSWERS = ("answer", "gold", "label", "target", "answerKey", "correct")
ALL = (*NORMED, "acc_bytes")


@dataclass(frozen=True)
class Question:
    """pairs: of each choice the context, and what may follow it. choices: the texts whose lengths
    count. answer: the number of the right one."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    choices: tuple[str, ...]
    answer: int
    group: str = ""

    @property
    def key(self) -> str:
        """Of all that is asked: equal keys, equal questions."""
        asked = json.dumps([self.pairs, self.answer], ensure_ascii=False)
        return hashlib.sha256(asked.encode()).hexdigest()[:16]


def questions(
    name: str, forms: tuple[Task, ...], limit: int | None = None
) -> tuple[Task, list[Question]]:
    """The questions of a file's rows, the first ``limit`` of them, and the form that they have.

    Raises InputError for a file without rows, a column that is missing (with the nearest name), and
    a row without choices or with an answer that is none of them.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit} must be 1 or more rows")
    read = islice(rows(name, (), Tally()), limit)
    first = next(read, None)
    if first is None:
        raise InputError(f"{name}: holds no rows; give a file with a question a row")
    task = _fitting(forms, first[1])
    return task, [
        _question(task, row, f"{name}, row {number}") for number, row in _again(first, read)
    ]


def guessed(
    name: str, *, prompt: str | None = None, choices: str | None = None, answer: str | None = None
) -> Task:
    """The form of a file in nobody's form: what is not given is guessed from its first row's
    columns.

    prompt: a template, with \\n for a new line. choices: a column with a list, or several columns
    with a choice each, separated by commas.
    """
    first = next(rows(name, (), Tally()), None)
    columns = list(first[1]) if first else []
    if prompt is None:
        prompt = f"{{{_guess('prompt', ASKED, columns, name)}}}"
    named = choices or _guess("choices", CHOICES, columns, name)
    several = tuple(f"{{{column.strip()}}}" for column in named.split(","))
    return Task(
        prompt.replace("\\n", "\n"),
        several if len(several) > 1 else named,
        answer or _guess("answer", ANSWERS, columns, name),
        metrics=ALL,
    )


def _guess(flag: str, known: tuple[str, ...], columns: list[str], name: str) -> str:
    found = next((column for column in known if column in columns), None)
    if found is None:
        raise InputError(
            f"{name}: has columns {', '.join(columns) or 'none'}, of which none is called "
            f"{', '.join(known)}; name one with --{flag}, or the task with --task"
        )
    return found


def _fitting(forms: tuple[Task, ...], row: Row) -> Task:
    """The form of which a row lacks the smallest share of the columns, the earlier of equals."""

    def lacking(form: Task) -> float:
        return sum(not _has(row, name) for name in form.columns) / len(form.columns)

    return min(forms, key=lacking)


def _has(row: Row, column: str) -> bool:
    outer, _, inner = column.partition(".")
    return column in row or (isinstance(row.get(outer), dict) and inner in row[outer])


def _again(first: tuple[int, Row], read: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    yield first
    yield from read


def _question(task: Task, row: Row, where: str) -> Question:
    prompt = task.clean(_filled(task.prompt, row, where))
    choices = tuple(task.clean(text) for text in _texts(task.choices, row, where))
    if not choices or any(not choice.strip() for choice in choices):
        raise InputError(f"{where}: has an empty choice ({choices!r:.80}); mend or leave it out")
    if task.before:
        pairs = tuple((choice, task.between + prompt) for choice in choices)
    else:
        pairs = tuple((prompt, task.between + choice) for choice in choices)
    labels = _texts(task.labels, row, where) if task.labels else []
    right = _place(_value(row, task.answer, where), choices, labels, where) if task.answer else 0
    group = str(row.get(task.group, "")) if task.group else ""
    return Question(where, pairs, choices, right, group)


def _texts(source: str | tuple[str, ...], row: Row, where: str) -> list[str]:
    if isinstance(source, tuple):
        return [_filled(template, row, where) for template in source]
    found = _value(row, source, where)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        kind = type(found).__name__
        raise InputError(
            f"{where}: {source!r} is {kind} {found!r:.40}, not a list of texts; name a column with "
            "one, or several with a text each, as a,b,c"
        )
    return found


def _place(found: Any, choices: tuple[str, ...], labels: list[str], where: str) -> int:
    """The number of the right choice. Raises InputError for none, and for a text that is one choice
    by its number or letter and another by its words."""
    said = str(found).strip() if not isinstance(found, bool) else str(int(found))
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    if said in labels:
        return labels.index(said)
    numbers = [str(i) for i in range(len(choices))]
    words = [choice.strip() for choice in choices]
    places = [names.index(said) for names in (numbers, letters, words) if said in names]
    if len({*places}) > 1 and isinstance(found, str):
        raise InputError(
            f"{where}: the answer {said!r} may be choice {choices[places[0]]!r:.40} by its place "
            f"or {choices[places[1]]!r:.40} by its text; give a number (without quotes) or "
            "a letter that is none of the texts"
        )
    if places:
        return places[0]
    raise InputError(
        f"{where}: the answer {found!r:.40} is none of the {len(choices)} choices; give its number "
        f"(0 to {len(choices) - 1}), its letter or its text"
    )


def _filled(template: str, row: Row, where: str) -> str:
    texts = []
    for column, text in _parts(template):
        if not column:
            texts.append(text)
            continue
        found = _value(row, column, where)
        if not isinstance(found, str | int | float):
            kind = type(found).__name__
            raise InputError(f"{where}: {column!r} is {kind} {found!r:.40}, not a text")
        texts.append(CONVERSIONS[text](str(found)) if text else str(found))
    return "".join(texts)


def _parts(template: str) -> Iterator[tuple[str, str]]:
    """("", text) and (column, conversion), in order."""
    try:
        for text, column, _, conversion in Formatter().parse(template):
            if text:
                yield "", text
            if column is not None:
                if not column or (conversion and conversion not in CONVERSIONS):
                    raise ValueError("braces hold the name of a column")
                yield column, conversion or ""
    except ValueError as error:
        raise InputError(
            f"the prompt {template!r} is no template ({error}); write columns in braces, as "
            "'Question: {question}\\nAnswer:'"
        ) from error


def _value(row: Row, column: str, where: str) -> Any:
    """A row's value; "a.b" is b of the object a."""
    outer, _, inner = column.partition(".")
    if column not in row and inner and isinstance(row.get(outer), dict):
        return value(row[outer], inner, f"{where}, {outer!r}")
    return value(row, column, where)


def named(task: str) -> tuple[Task, ...]:
    """The forms of a task. Raises InputError for an unknown one, with the nearest name."""
    if task not in TASKS:
        raise InputError(f"task {task!r} is unknown; {nearest(task, TASKS)}")
    return TASKS[task]

"""Conversations to learn from, and pairs of answers of which one was preferred, from the files in
which they are handed about.

The form is known by the columns of a table (.jsonl, .json, .csv, .tsv, .parquet, each also .gz, a
data set of the hub), and is said; a deck of cards gives its questions and answers. Knows no tokens
and no templates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tercet.data.sources import HUB, Names, Tally, found, kind_of, nearest
from tercet.data.tables import Row, rows, text_of, value
from tercet.errors import InputError
from tercet.text import lines
from tercet.text.messages import Message, conversation

# Who speaks, as the files call them; anybody else is looked up among the roles.
SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
LISTS = ".json"  # a file that is a list of rows
PROMPTS = ("prompt", "conversations", "messages")  # of a pair of answers, the first that is there
TURNS = ("messages", "conversations")  # columns of lists
ASKING = (*TURNS, "prompt", "instruction", "question")  # of a row without an answer, the first
BELOW = ("input", "context")  # what stands below it
ANSWERS = ("output", "response", "completion", "answer")


@dataclass(frozen=True)
class Conversation:
    """messages: a system message or none, then questions and answers in turn, an answer last.
    where: file and line."""

    messages: tuple[Message, ...]
    where: str


@dataclass(frozen=True)
class Preference:
    """prompt: messages that end with a question. chosen and rejected: two answers, unlike."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    where: str

    @property
    def both(self) -> tuple[Conversation, Conversation]:
        """The conversation with the answer that was chosen, and with the other."""
        return (
            Conversation((*self.prompt, self.chosen), f"{self.where}, chosen"),
            Conversation((*self.prompt, self.rejected), f"{self.where}, rejected"),
        )


@dataclass(frozen=True)
class Form:
    """How rows of some columns are read; of `either` one must be there."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Row, str], Sequence[Conversation | Preference]]
    either: tuple[str, ...] = ()

    def __str__(self) -> str:
        columns = (*self.columns, *(" or ".join(self.either),) * bool(self.either))
        return f"{self.name} ({', '.join(columns)})"

    def fits(self, columns: Sequence[str]) -> bool:
        either = not self.either or any(name in columns for name in self.either)
        return either and all(name in columns for name in self.columns)


@dataclass(frozen=True)
class Conversations:
    """All rows of some files, of one form."""

    form: Form
    rows: list[Conversation] | list[Preference]

    def __str__(self) -> str:
        kind = "pairs of answers" if self.preferences else "conversations"
        return f"{len(self.rows):,} {kind}, read as {self.form}"

    @property
    def preferences(self) -> list[Preference]:
        return [row for row in self.rows if isinstance(row, Preference)]

    @property
    def conversations(self) -> list[Conversation]:
        """Of pairs of answers both, the chosen one first."""
        return [
            one
            for row in self.rows
            for one in (row.both if isinstance(row, Preference) else (row,))
        ]


def conversations(files: Names, *, form: str | None = None) -> Conversations:
    """The conversations of some files, in order.

    form: the name of one of `FORMS`; without it, known by the columns of the first row.
    Raises InputError for an unknown form, columns of none, and with file and line for rows that
    are damaged: roles out of order, empty content, no answer, two answers that are the same.
    """
    named = None if form is None else _named(form)
    read: list[Any] = []
    for name in found(files, also=(LISTS,)):
        for where, row in rows_of(name):
            named = named or _guessed(row, where)
            if not named.fits(list(row)):
                raise InputError(f"{where}: has columns {', '.join(row)}, not those of {named}")
            read += named.read(row, where)
    if named is None or not read:
        raise InputError(f"{files}: holds no conversation; give at least one")
    return Conversations(named, read)


def _named(form: str) -> Form:
    names = {one.name: one for one in FORMS}
    if form not in names:
        raise InputError(f"there is no form {form!r} of conversations; {nearest(form, names)}")
    return names[form]


def form_of(row: Row) -> Form | None:
    """The form that a row's columns are of."""
    return next((one for one in FORMS if one.fits(list(row))), None)


def _guessed(row: Row, where: str) -> Form:
    form = form_of(row)
    if form is None:
        raise InputError(
            f"{where}: columns {', '.join(row)} are those of no known form: "
            f"{'; '.join(map(str, FORMS))}; rename the columns"
        )
    return form


def question(row: Row, where: str) -> list[Message] | None:
    """The messages of a row that ends with a question: one of no form, or of one whose answer is
    not there. None for a row with an answer, or with several.

    Raises InputError for columns of which none asks, and for messages as `conversation` does.
    """
    form = form_of(row)
    if form is not None and form.name in ("preference", "self-instruct"):
        return None
    asks = next((name for name in ASKING if row.get(name)), None)
    if asks is None:
        raise InputError(
            f"{where}: has columns {', '.join(row)}, of which none asks; call one prompt"
        )
    turns, is_text = _turns(row[asks], where), isinstance(row[asks], str)
    if asks in TURNS:
        if is_text or (isinstance(turns[-1], Mapping) and turns[-1].get("role") == "assistant"):
            return None
    elif form is not None and any(row.get(name) not in (None, "") for name in ANSWERS):
        return None
    if is_text:
        below = [text_of(row.get(column), column, where) for column in BELOW]
        turns = [{"role": "user", "content": _joined([row[asks], *below])}]
    return conversation([*_system(row), *turns], answered=False, name=where)


def rows_of(name: str) -> Iterator[tuple[str, Row]]:
    """Each row of a file, and where it stands. A .json file is a list of rows."""
    if name.lower().removesuffix(".gz").endswith(LISTS):
        text = "\n".join(lines(name))
        try:
            content = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{name}: not JSON ({error}); mend it, or copy it anew") from error
        if not isinstance(content, list):
            raise InputError(f"{name}: holds a {type(content).__name__}, not a list of rows")
        yield from ((f"{name}, row {i}", _object(row, name, i)) for i, row in enumerate(content, 1))
        return
    kind = kind_of(name)
    unit = {".jsonl": "line", "": "card", ".txt": "card", ".md": "card"}.get(kind, "row")
    unit = "row" if name.startswith(HUB) else unit
    for number, row in rows(name, (), Tally()):
        yield f"{name}, {unit} {number}", row


def _object(row: Any, name: str, number: int) -> Row:
    if not isinstance(row, dict):
        raise InputError(
            f"{name}, row {number}: a {type(row).__name__}, not an object with columns"
        )
    return row


# the forms ----------------------------------------------------------------------------------------


def _asked(row: Row, where: str, question: Sequence[str], answer: str) -> list[Conversation]:
    """A question made of some columns, empty ones left out, and its answer."""
    parts = [text_of(row.get(column), column, where) for column in question]
    messages = _system(row)
    messages.append({"role": "user", "content": _joined(parts)})
    said = text_of(value(row, answer, where), answer, where)
    messages.append({"role": "assistant", "content": said})
    return [_conversation(messages, where)]


def _joined(parts: Sequence[str]) -> str:
    """What asks in a row, and what stands below it."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _system(row: Row) -> list[dict[str, Any]]:
    """A column of its own, in several forms; blank is none."""
    text = row.get("system")
    if not isinstance(text, str) or not text.strip():
        return []
    return [{"role": "system", "content": text}]


def _conversation(messages: Sequence[Any], where: str) -> Conversation:
    return Conversation(tuple(conversation(messages, answered=True, name=where)), where)


def _turns(said: Any, where: str, speaker: str = "user") -> list[Any]:
    """A text, a message or a list of messages as a list of messages, with speakers as roles."""
    if isinstance(said, str):
        return [{"role": speaker, "content": said}]
    turns = [said] if isinstance(said, Mapping) else said
    if not isinstance(turns, Sequence):
        raise InputError(f"{where}: {type(said).__name__} {said!r:.40}, not a list of messages")
    return [
        {"role": SPEAKERS.get(turn["from"], turn["from"]), "content": turn.get("value")}
        if isinstance(turn, Mapping) and isinstance(turn.get("from"), str)
        else turn
        for turn in turns
    ]


def _alpaca(row: Row, where: str) -> list[Conversation]:
    return _asked(row, where, ("instruction", "input"), "output")


def _dolly(row: Row, where: str) -> list[Conversation]:
    return _asked(row, where, ("instruction", "context"), "response")


def _prompt(row: Row, where: str) -> list[Conversation]:
    return _asked(row, where, ("prompt",), "response" if "response" in row else "completion")


def _card(row: Row, where: str) -> list[Conversation]:
    return _asked(row, where, ("question",), "answer")


def _instances(row: Row, where: str) -> list[Conversation]:
    """One instruction with several inputs, each with its output."""
    instances = row["instances"]
    if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
        raise InputError(f"{where}: 'instances' is no list of objects with input and output")
    return [
        one
        for number, instance in enumerate(instances, 1)
        for one in _asked(
            {**row, **instance}, f"{where}, instance {number}", ("instruction", "input"), "output"
        )
    ]


def _messages(row: Row, where: str) -> list[Conversation]:
    return [_conversation([*_system(row), *_turns(row["messages"], where)], where)]


def _speakers(row: Row, where: str) -> list[Conversation]:
    return [_conversation([*_system(row), *_turns(row["conversations"], where)], where)]


def _preference(row: Row, where: str) -> list[Preference]:
    """Two answers: texts, messages, or whole conversations that begin alike."""
    chosen = _turns(row["chosen"], f"{where}, chosen", "assistant")
    rejected = _turns(row["rejected"], f"{where}, rejected", "assistant")
    given = next((row[name] for name in PROMPTS if row.get(name)), None)
    prompt = [*_system(row), *(_turns(given, where) if given else chosen[:-1])]
    answers = []
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if len(turns) > 1 and turns[:-1] != prompt:
            raise InputError(
                f"{where}, {name}: begins otherwise than its prompt; both must answer one"
            )
        answers.append(conversation([*prompt, *turns[-1:]], answered=True, name=f"{where}, {name}"))
    *before, first = answers[0]
    second = answers[1][-1]
    if first.content.strip() == second.content.strip():
        raise InputError(
            f"{where}: chosen and rejected are the same, {first.content[:40]!r}; leave it out"
        )
    return [Preference(tuple(before), first, second, where)]


# In this order: the first whose columns are there.
FORMS = (
    Form("preference", ("chosen", "rejected"), _preference),
    Form("messages", ("messages",), _messages),
    Form("sharegpt", ("conversations",), _speakers),
    Form("self-instruct", ("instruction", "instances"), _instances),
    Form("alpaca", ("instruction", "output"), _alpaca),
    Form("dolly", ("instruction", "response"), _dolly),
    Form("prompt", ("prompt",), _prompt, either=("response", "completion")),
    Form("cards", ("question", "answer"), _card),
)

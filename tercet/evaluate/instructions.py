"""Following instructions: a model answers prompts of which a rule can tell whether they were
obeyed. The answers come greedily by the path of ``chat``, the one that people talk with.

A row is a conversation in any form that training reads, or a prompt without an answer, with two
columns more: ``check`` (see checks.py; without it the answer must equal the row's own) and
``kind``, which gets a figure of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from tercet.data.conversations import Preference, Row, form_of, question, rows_of
from tercet.errors import InputError
from tercet.evaluate.checks import Check, check_of, obeys
from tercet.language_model import LanguageModel
from tercet.text.messages import Message

Watch = Callable[[int, int], object]  # is told how many are answered, and of how many
T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """messages: end with the question. check: what its answer must pass. where: file and line."""

    messages: tuple[Message, ...]
    check: Check
    kind: str
    where: str

    @property
    def key(self) -> str:
        """Of all that is asked: equal keys, equal prompts."""
        asked = [[(one.role, one.content) for one in self.messages], dict(self.check)]
        said = json.dumps(asked, ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Answer:
    """text: without blanks at its ends. ended: whether the model ended its turn itself, and not at
    the limit of tokens. dropped: tokens of the prompt that it did not see."""

    text: str
    obeyed: bool
    ended: bool
    dropped: int


def prompts(name: str, limit: int | None = None) -> list[Prompt]:
    """The prompts of a file's rows, the first ``limit`` of them.

    Raises InputError, with the line, for a row that asks nothing, has no answer and no check, or a
    check that is none, and for a file without rows.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit} must be 1 or more rows")
    found = [one for where, row in islice(rows_of(name), limit) for one in _prompts(row, where)]
    if not found:
        raise InputError(f"{name}: holds no rows; give a file with a prompt a row")
    return found


def _prompts(row: Row, where: str) -> Iterator[Prompt]:
    check, kind, form = _check(row.get("check"), where), _kind(row.get("kind"), where), form_of(row)
    if check is not None and (asked := question(row, where)) is not None:
        yield Prompt(tuple(asked), check, kind, where)
        return
    if form is None or (form.name == "preference" and check is None):
        raise InputError(
            f"{where}: has columns {', '.join(row)}, in which there is no answer to compare with; "
            "give one, or a check"
        )
    for one in form.read(row, where):
        if isinstance(one, Preference):
            assert check is not None
            yield Prompt(one.prompt, check, kind, one.where)
        else:
            *before, answer = one.messages
            yield Prompt(tuple(before), check or {"equals": answer.content}, kind, one.where)


def _check(value: Any, where: str) -> Check | None:
    """A check is an object, or its JSON in a table's cell, which may be empty. In tables of columns
    with types an object has the names of all rows, and null where it says nothing."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(f"{where}: the check {value!r:.60} is not JSON ({error})") from error
    elif value is None or isinstance(value, str):
        return None
    if isinstance(value, Mapping):
        value = {name: wanted for name, wanted in value.items() if wanted is not None}
    return _written(check_of(value, where), "check", where)


def _kind(value: Any, where: str) -> str:
    if value is not None and not isinstance(value, str | int):
        raise InputError(f"{where}: the kind is {type(value).__name__} {value!r:.40}; give a text")
    return _written("" if value is None else str(value), "kind", where)


def _written(value: T, name: str, where: str) -> T:
    """As it is, where a file can hold it: with no half of a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: the {name} has half a surrogate pair, {error.object[error.start]!r}; read "
            "the text anew, or take it out"
        ) from error
    return value


def answers(
    model: LanguageModel,
    asked: Sequence[Prompt],
    *,
    max_new_tokens: int,
    overflow: str = "keep-end",
    watch: Watch | None = None,
) -> list[Answer]:
    """What the model answers to each. Raises InputError, with the line, for a prompt whose last
    question alone does not fit the context: before the first is answered."""
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens {max_new_tokens} must be a whole number of 1 or more")
    how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "overflow": overflow}
    for prompt in asked:
        try:
            model.chat_stream(prompt.messages, **how).close()  # which looks, and writes nothing
        except InputError as error:
            raise InputError(f"{prompt.where}: {error}") from error
    found = []
    for number, prompt in enumerate(asked, 1):
        reply = model.chat(prompt.messages, **how)
        text, lost = reply.text.strip(), reply.sight.lost
        found.append(Answer(text, obeys(prompt.check, text), reply.finish == "stop", lost))
        if watch is not None:
            watch(number, len(asked))
    return found


def values(found: Sequence[Answer]) -> dict[str, list[float]]:
    """Metric -> 1 or 0 for each prompt: obeyed, and ended."""
    return {
        "obeyed": [float(answer.obeyed) for answer in found],
        "ended": [float(answer.ended) for answer in found],
    }


def by_kind(asked: Sequence[Prompt], found: Sequence[Answer]) -> Mapping[str, list[Answer]]:
    """The answers of each kind that has a name, in the order in which they come."""
    told: dict[str, list[Answer]] = {}
    for prompt, one in zip(asked, found, strict=True):
        if prompt.kind:
            told.setdefault(prompt.kind, []).append(one)
    return told

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
from typing import Any

from tercet.data.conversations import Row, form_of, rows_of
from tercet.errors import InputError
from tercet.evaluate.checks import Check, check_of, obeys
from tercet.language_model import LanguageModel
from tercet.text.messages import Message, conversation

Watch = Callable[[int, int], object]  # is told how many are answered, and of how many
ASKED = ("prompt", "instruction", "question")  # where a row has no answer, the first that is there


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
    check = None if row.get("check") is None else check_of(_plain(row["check"], where), where)
    kind = str(row.get("kind") or "")
    form = form_of(row)
    if check is not None and (form is None or _is_open(row)):
        yield Prompt(tuple(_asked(row, where)), check, kind, where)
        return
    if form is None or form.name == "preference":
        raise InputError(
            f"{where}: has columns {', '.join(row)}, in which there is no answer to compare with; "
            "give one, or a check"
        )
    for one in form.read(row, where):
        *before, answer = one.messages  # type: ignore[union-attr]
        own = check or {"equals": answer.content}
        yield Prompt(tuple(before), own, kind, one.where)


def _is_open(row: Row) -> bool:
    """Whether its messages end with a question."""
    said = row.get("messages")
    last = said[-1] if isinstance(said, list) and said else None
    return isinstance(last, dict) and last.get("role") == "user"


def _plain(check: Any, where: str) -> Any:
    """A check is an object, or its JSON in a table's cell."""
    if not isinstance(check, str):
        return check
    try:
        return json.loads(check)
    except ValueError as error:
        raise InputError(f"{where}: the check {check!r:.60} is not JSON ({error})") from error


def _asked(row: Row, where: str) -> list[Message]:
    """The question of a row without an answer."""
    said = row.get("messages")
    if said is None:
        name = next((name for name in ASKED if row.get(name)), None)
        if name is None:
            raise InputError(
                f"{where}: has columns {', '.join(row)}, of which none asks; call one {ASKED[0]}"
            )
        parts = [row[name], *([row["input"]] if row.get("input") else [])]
        said = [{"role": "user", "content": "\n\n".join(map(str, parts))}]
    return conversation(said, answered=False, name=where)


def answers(
    model: LanguageModel,
    asked: Sequence[Prompt],
    *,
    max_new_tokens: int,
    overflow: str = "keep-end",
    watch: Watch | None = None,
) -> list[Answer]:
    """What the model answers to each. Raises InputError, with the line, for a prompt whose last
    question alone does not fit the context."""
    found = []
    for number, prompt in enumerate(asked, 1):
        try:
            reply = model.chat(prompt.messages, max_new_tokens=max_new_tokens, overflow=overflow)
        except InputError as error:
            raise InputError(f"{prompt.where}: {error}") from error
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

"""Questions with a context that holds the answer: files in the form of SQuAD (Rajpurkar et al.
2016): JSON, articles of paragraphs of questions.

An answer is held to its context. Knows no tokens.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet.errors import InputError, undamaged
from tercet.text import lines


@dataclass(frozen=True)
class Answered:
    """A question with its true answers, (text, place in the context), at least one."""

    name: str
    question: str
    context: str
    answers: list[tuple[str, int]]

    @property
    def group(self) -> str:
        """Questions on one context belong together."""
        return self.context

    @property
    def usual(self) -> tuple[str, int]:
        """The answer that most people gave; of equals the first."""
        return Counter(self.answers).most_common(1)[0][0]


@dataclass(frozen=True)
class Questions:
    """mended: answers whose place was wrong and could be found. unanswered: questions that have no
    answer (SQuAD 2.0) and are left out."""

    rows: list[Answered]
    mended: int = 0
    unanswered: int = 0

    def __str__(self) -> str:
        said = [f"{len(self.rows):,} questions"]
        said += [f"{self.mended:,} answers stood elsewhere than was said"] if self.mended else []
        said += [f"{self.unanswered:,} without an answer left out"] if self.unanswered else []
        return "; ".join(said)


def questions(name: str) -> Questions:
    """All questions of a .json file (also .gz) in the form of SQuAD.

    An answer that does not stand where the file says, but in one other place of its context, is
    mended and counted. Raises InputError for other answers and for what is no such file, naming
    the question.
    """
    try:
        text = "\n".join(lines(name))
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{name}: not JSON ({error}); give a file in the form of SQuAD") from error
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise InputError(
            f"{name}: has no list 'data'; the form of SQuAD is data, paragraphs, context and qas"
        )
    found, mended, unanswered = [], 0, 0
    with undamaged(Path(name)):
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for record in paragraph["qas"]:
                    if not record.get("answers"):
                        unanswered += 1
                        continue
                    row, count = _answered(record, paragraph["context"], name, text)
                    found.append(row)
                    mended += count
    if not found:
        raise InputError(f"{name}: holds no question with an answer; give at least one")
    return Questions(found, mended, unanswered)


def _answered(record: dict, context: str, name: str, file: str) -> tuple[Answered, int]:
    """A question, and how many of its answers were mended. file: its text, for the line."""
    answers, mended = [], 0
    if wrong := _wrong(record, context):
        raise InputError(f"{_where(record['id'], name, file)}: {wrong}; correct it")
    for answer in record["answers"]:
        text, start = answer["text"], answer["answer_start"]
        if not text.strip():
            where = _where(record["id"], name, file)
            raise InputError(f"{where}: has an empty answer; take it out")
        if start < 0 or not context.startswith(text, start):
            times = context.count(text)
            if times != 1:
                found = f"{times} times" if times else "not"
                raise InputError(
                    f"{_where(record['id'], name, file)}: the answer {text[:60]!r} does not stand "
                    f"at character {start} and {found} elsewhere in its context; correct "
                    "answer_start"
                )
            start, mended = context.index(text), mended + 1
        answers.append((text, start))
    return Answered(str(record["id"]), record["question"], context, answers), mended


def _wrong(record: dict, context: Any) -> str | None:
    """What of a question is missing or of the wrong kind."""
    question, answers = record.get("question"), record["answers"]
    for name, value in (("question", question), ("context", context)):
        if not isinstance(value, str):
            return f"its {name} is {value!r:.40}, not a text"
    if not isinstance(answers, list):
        return f"its answers are {answers!r:.40}, not a list"
    for answer in answers:
        if not isinstance(answer, dict):
            return f"the answer {answer!r:.60} is no object with 'text' and 'answer_start'"
        for key, kind, called in (("text", str, "text"), ("answer_start", int, "whole number")):
            value = answer.get(key)
            if not isinstance(value, kind) or isinstance(value, bool):
                return f"{key!r} of the answer {answer!r:.60} is {value!r:.40}, not a {called}"
    return None


def _where(question: object, name: str, file: str) -> str:
    """The file, and the line that names the question; a file may be a single line."""
    written = re.escape(json.dumps(question, ensure_ascii=False))
    found = re.search(rf'"id"\s*:\s*{written}', file)
    line = f"line {file.count(chr(10), 0, found.start()) + 1}, " if found else ""
    return f"{name}, {line}question {question!r}"

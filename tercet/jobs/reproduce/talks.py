"""Rows made of other people's conversations: short answers to learn from, and open questions that
ask for an answer of one sentence, with two answers of which one obeys, or with the check alone."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tercet.data.conversations import conversations
from tercet.text.passages import sentences

Rows = Iterator[dict[str, Any]]
ASKED = 40  # words of a question at the most
SHORTEST, LONGEST = 3, 40  # words of the one sentence
SHOWN = 4  # sentences of the answer that is too long, at the most
CIRCLE, ROUNDS = 3, 8  # the last so many words, so many times more
ENDS = (".", "!", "?")
LISTED = re.compile(r"(^|\s)\d+[.)]\s")  # an item of a list, and not a sentence
CONSTRAINT = "one sentence"  # the kind
WORDINGS = ("Answer in one sentence.", "Reply with one sentence.", "Use one sentence only.")
CHECK = {"sentences": 1, "ends": list(ENDS)}


def talks(name: str, source: dict[str, Any]) -> Rows:
    """Questions with answers of ``words`` at the most."""
    for question, answer in _single(name, source):
        if len(answer.split()) <= source["words"]:
            yield {"instruction": question, "input": "", "output": answer}


def shorter(name: str, source: dict[str, Any]) -> Rows:
    """Of answers that have several sentences, the first alone is chosen: before them all; before
    its own beginning, or the model would learn that nothing is short enough; and before a beginning
    that runs in circles, as small models do."""
    for question, answer in _single(name, source):
        parts = [part.strip() for part in sentences(answer)]
        first, whole = parts[0], " ".join(parts[:SHOWN])
        fits = SHORTEST <= len(first.split()) <= LONGEST and first.endswith(ENDS)
        if len(parts) > 1 and fits and "\n" not in answer and not LISTED.search(answer):
            chosen = {"prompt": _constrained(question), "chosen": first}
            yield {**chosen, "rejected": whole}
            yield {**chosen, "rejected": _broken_off(first)}
            yield {**chosen, "rejected": _circling(first)}


def _broken_off(sentence: str) -> str:
    words = sentence.split()
    return " ".join(words[: random.Random(sentence).randrange(1, len(words))])


def _circling(sentence: str) -> str:
    words = _broken_off(sentence).split()
    last = " ".join(words[-CIRCLE:])
    return " ".join([*words, *[last] * ROUNDS])


def open_questions(name: str, source: dict[str, Any]) -> Rows:
    """Questions whose answer must be one whole sentence, of the rows, and nowhere else in the file
    (dolly has some twice)."""
    counts = Counter(question for question, _ in _single(name, {**source, "rows": (None, None)}))
    for question, _ in _single(name, source):
        if counts[question] == 1:
            yield {"prompt": _constrained(question), "check": CHECK, "kind": CONSTRAINT}


def _constrained(question: str) -> str:
    return f"{question} {random.Random(question).choice(WORDINGS)}"


def _single(name: str, source: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Conversations of a question and an answer, of the ``rows`` from one number to another."""
    start, stop = source.get("rows", (None, None))
    for one in conversations(name, form=source.get("form")).conversations[start:stop]:
        said = [message.content.strip() for message in one.messages if message.role != "system"]
        if len(said) == 2 and len(said[0].split()) <= ASKED:
            yield said[0], _running(said[1])


def _running(answer: str) -> str:
    """Where every line is a whole sentence or more, they stand one behind the other."""
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    return " ".join(lines) if all(line.endswith(ENDS) for line in lines) else answer

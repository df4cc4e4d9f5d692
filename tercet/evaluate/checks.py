"""Whether an answer obeys what was asked, by rules that a program can decide (as in IFEval, Zhou et
al. 2023). A check is plain data, so that it can stand in a row of a file beside its prompt:
{"equals": "old road"}, {"sentences": 1, "without": ["very"]}. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tercet.errors import InputError
from tercet.text.passages import sentences

Check = Mapping[str, Any]  # name -> value; all of them must hold


def texts(value: Any) -> list[str]:
    """One text, or several."""
    return [value] if isinstance(value, str) else value


def _is_json(answer: str) -> bool:
    try:
        json.loads(answer, parse_constant=_refused)
    except (ValueError, RecursionError):
        return False
    return True


def _refused(name: str) -> None:
    """NaN and Infinity, which Python reads and the standard (RFC 8259) has not."""
    raise ValueError(name)


def _has(answer: str, part: str) -> bool:
    return part.casefold() in answer.casefold()


def n_sentences(answer: str) -> int:
    return sum(bool(sentence.strip()) for sentence in sentences(answer))


# name -> whether an answer, blanks at its ends left out, does what the value says
CHECKS: dict[str, Callable[[Any, str], bool]] = {
    "equals": lambda value, answer: answer in [text.strip() for text in texts(value)],
    "contains": lambda value, answer: all(_has(answer, part) for part in texts(value)),
    "without": lambda value, answer: not any(_has(answer, part) for part in texts(value)),
    "starts": lambda value, answer: answer.startswith(tuple(t.lstrip() for t in texts(value))),
    "ends": lambda value, answer: answer.endswith(tuple(t.rstrip() for t in texts(value))),
    "sentences": lambda value, answer: n_sentences(answer) == value,
    "most_words": lambda value, answer: 0 < len(answer.split()) <= value,
    "least_words": lambda value, answer: len(answer.split()) >= value,
    "lowercase": lambda value, answer: answer.islower() == value,
    "uppercase": lambda value, answer: answer.isupper() == value,
    "json": lambda value, answer: _is_json(answer) == value,
}
NUMBERS = {"sentences", "most_words", "least_words"}
YES_OR_NO = {"lowercase", "uppercase", "json"}


def check_of(value: Any, where: str) -> Check:
    """A check as it stands in a row. Raises InputError, beginning with ``where``, for an unknown
    name and for a value of another kind than the name wants. A blank text is none: every answer
    holds it."""
    if not isinstance(value, Mapping) or not value:
        raise InputError(
            f"{where}: the check {value!r:.60} is no object with a name and a value or more; write "
            f'{{"equals": "..."}}, or another of {", ".join(CHECKS)}'
        )
    for name, wanted in value.items():
        if name not in CHECKS:
            raise InputError(f"{where}: check {name!r} is unknown; there are {', '.join(CHECKS)}")
        if name in NUMBERS:
            fits, kind = type(wanted) is int and wanted >= 1, "a whole number from 1"
        elif name in YES_OR_NO:
            fits, kind = isinstance(wanted, bool), "true or false"
        else:
            fits, kind = _all_texts(wanted), "a text, or a list of texts, none of them blank"
        if not fits:
            raise InputError(f"{where}: check {name!r} has {wanted!r:.60}; give {kind}")
    return value


def _all_texts(value: Any) -> bool:
    listed = texts(value)
    return isinstance(listed, list) and bool(listed) and all(map(_is_text, listed))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def obeys(check: Check, answer: str) -> bool:
    """Whether an answer passes all of a check. An empty answer passes none."""
    answer = answer.strip()
    return bool(answer) and all(CHECKS[name](value, answer) for name, value in check.items())

"""What a caller hands to a LanguageModel, checked before anything is computed, and what he is told
of texts that were cut.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from tercet.answers import CutWarning, Generation, slides
from tercet.errors import InputError
from tercet.generate import Sampling
from tercet.text import CutReport


def listed(texts: str | Sequence[str]) -> tuple[list[str], bool]:
    """The texts, and whether it was one alone."""
    one = isinstance(texts, str)
    several = isinstance(texts, Iterable) and not isinstance(texts, str | bytes)
    given = [string(text) for text in (texts if several else [texts])]
    if not given:
        raise InputError("an empty list holds no text; give at least one")
    return given, one


def check_single(text: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"one text is wanted, a string, not {text!r} ({type(text).__name__})")


def string(text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"a text must be a string, not {text!r} ({type(text).__name__})")
    return text


def texts_or_pairs(texts: str | tuple[str, str] | Sequence[Any]) -> tuple[list[Any], bool]:
    """Texts or pairs of them, none empty, and whether it was one alone."""
    one = isinstance(texts, str | tuple)
    given = [texts] if one else [*texts] if isinstance(texts, Iterable) else [texts]
    if not given:
        raise InputError("an empty list holds no text; give at least one")
    for number, text in enumerate(given, 1):
        _check_filled(text, "the text" if one else f"text {number}")
    return given, one


def _check_filled(text: Any, name: str) -> None:
    parts = text if isinstance(text, tuple) else (text,)
    if isinstance(text, tuple) and len(text) != 2:
        raise InputError(f"{name} is a tuple of {len(text)}; a pair has two texts")
    for part in parts:
        if not string(part).strip():
            raise InputError(f"{name} is empty ({part!r}); give at least one word")


def warn_of_cuts(report: CutReport, policy: str) -> None:
    if str(report):
        warnings.warn(f"{report} (overflow {policy!r})", CutWarning, stacklevel=3)


def warn_of_slides(answers: Sequence[Generation]) -> None:
    if said := slides(answers):
        warnings.warn(said, CutWarning, stacklevel=3)


def check_samples(samples: int, sampling: Sampling) -> None:
    if type(samples) is not int or samples < 1:
        raise InputError(f"samples {samples!r} must be a whole number of 1 or more")
    if samples > 1 and sampling.temperature == 0:
        raise InputError(
            f"samples {samples} at temperature 0 would be one text; set a temperature, such as 0.8"
        )


def stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(stop, str | Sequence):
        raise InputError(f"stop {stop!r} must be a string, or a list of them")
    return (stop,) if isinstance(stop, str) else tuple(stop)

"""Two texts read as one: their ids together, cut to what a model takes. No network."""

from __future__ import annotations

from typing import NamedTuple

from tercet.errors import InputError
from tercet.text.overflow import CutReport
from tercet.text.tokenizer import Tokenizer


class TextPair(NamedTuple):
    """ids of both texts with the special tokens between and around; types: 0 or 1, of each."""

    ids: list[int]
    types: list[int]


def fitted_pair(
    tokenizer: Tokenizer, first: str, second: str, limit: int, report: CutReport
) -> TextPair:
    """The first text whole, and of the second one its beginning, as far as ``limit`` allows.

    What is cut is counted in the report. Raises InputError for an empty text, and where the first
    text leaves no room for a token of the second.
    """
    for text in (first, second):
        if not text.strip():
            raise InputError(f"a text of a pair is empty ({text!r}); give at least one word")
    ids, types = tokenizer.encode_pair(first, second)
    lost = max(0, len(ids) - limit)
    report.add(len(ids), lost)
    if lost:
        if lost >= len(tokenizer.encode(second, special=False)):
            raise InputError(
                f"the first text of a pair has so many tokens that none of the second fits into "
                f"{limit:,}: {first[:60]!r}; shorten it"
            )
        stop = len(ids) - tokenizer.special_counts[1]  # where the second text ends
        ids, types = (part[: stop - lost] + part[stop:] for part in (ids, types))
    return TextPair(ids, types)

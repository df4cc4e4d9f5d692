"""Checks of answers: each holds for what obeys and for nothing else, and what is no check is
refused with its line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import InputError
from tercet.evaluate.checks import CHECKS, check_of, obeys

# check -> an answer that obeys it, and one that does not
CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"equals": "old road"}, "  old road\n", "Old road"),
    ({"equals": ["Yes", "Yes."]}, "Yes.", "Yes!"),
    ({"equals": " padded "}, "padded", "padde"),
    ({"contains": ["River", "ROAD"]}, "a road by the river", "a road"),
    ({"without": "never"}, "It is always so.", "It is Never so."),
    ({"starts": "I"}, "I am here.", "We are here."),
    ({"starts": [" Yes, ", "No, "]}, "Yes, it is.", "Yes it is."),
    ({"ends": [".", "!"]}, "Go!", "Go?"),
    ({"ends": " so.\n"}, "It is so.", "Also."),
    ({"sentences": 1}, "Mr. Smith paid 3.50 for it.", "He went. She stayed."),
    ({"sentences": 2}, "He went. She stayed.", "He went."),
    ({"most_words": 3}, "one two three", "one two three four"),
    ({"least_words": 3}, "one two three", "one two"),
    ({"lowercase": True}, "all small", "All small"),
    ({"lowercase": False}, "Not all small", "all small"),
    ({"lowercase": True}, "in 1607, small", "1607 ..."),
    ({"uppercase": True}, "ALL CAPITALS", "all CAPITALS"),
    ({"uppercase": True}, "IN 1607!", "1607 ..."),
    ({"json": True}, '{"a": [1, 2]}', "{a: 1}"),
    ({"json": True}, "-1.5e3", "NaN"),
    ({"json": True}, '"Infinity"', "[1, Infinity]"),
    ({"json": False}, "plain words", "[1]"),
    ({"sentences": 1, "ends": "."}, "One.", "One"),
]


@pytest.mark.parametrize(("check", "good", "bad"), CASES)
def test_what_obeys_passes_and_what_does_not_fails(
    check: dict[str, Any], good: str, bad: str
) -> None:
    assert check_of(check, "here") == check
    assert obeys(check, good) and not obeys(check, bad)
    assert not obeys(check, "") and not obeys(check, " \n")


def test_every_check_is_tried() -> None:
    assert {name for check, _, _ in CASES for name in check} == set(CHECKS)


@given(st.text(), st.text())
def test_equals_is_equality_without_blanks_at_the_ends(wanted: str, answer: str) -> None:
    same = wanted.strip() == answer.strip() != ""
    assert obeys({"equals": wanted}, answer) == same


@given(st.lists(st.text("ab.", min_size=1), min_size=1), st.integers(1, 9))
def test_words_are_counted_between_blanks(words: list[str], most: int) -> None:
    answer = " ".join(words)
    assert obeys({"most_words": most}, answer) == (len(words) <= most)
    assert obeys({"least_words": most}, answer) == (len(words) >= most)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_json_is_what_a_program_can_read(value: Any) -> None:
    assert obeys({"json": True}, json.dumps(value))


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({}, "is no object with a name"),
        ("equals", "is no object with a name"),
        ({"equal": "a"}, "check 'equal' is unknown; there are equals"),
        ({"equals": 3}, "check 'equals' has 3; give a text"),
        ({"contains": []}, "give a text, or a list of texts"),
        ({"contains": ["a", 1]}, "give a text, or a list of texts"),
        ({"without": ""}, "give a text, or a list of texts"),
        ({"contains": ["a", " "]}, "give a text, or a list of texts"),
        ({"sentences": 0}, "give a whole number from 1"),
        ({"most_words": True}, "give a whole number from 1"),
        ({"json": "yes"}, "give true or false"),
    ],
)
def test_what_is_no_check_is_refused_with_its_line(check: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"^f.jsonl, line 3: .*{said}"):
        check_of(check, "f.jsonl, line 3")

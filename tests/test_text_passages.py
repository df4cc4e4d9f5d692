"""Documents in passages: whole sentences, no more tokens than asked for, nothing lost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import InputError
from tercet.text.passages import Passages, passages, sentences


def words(texts):
    return [len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]


def cut(text, **policy):
    return passages(text, Passages(**policy), words)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("One. Two! Three? Four", 4),
        ("Mr. Darcy met Dr. J. Watson at 3.5 p.m. exactly.", 1),
        ('"Is it?" she said. "It is."', 3),
        ("He said (in vain.) Then he left.", 2),
        ("a line\nanother line", 1),
        ("a title\n\nA text", 2),
        ("今日は。明日は。", 2),
    ],
)
def test_sentences(text, number):
    assert len(sentences(text)) == number
    assert "".join(sentences(text)) == text


def test_passages_are_whole_sentences_up_to_the_limit():
    text = "One two three. Four five six. Seven eight nine ten."
    assert cut(text, tokens=8) == ["One two three. Four five six.", "Seven eight nine ten."]


def test_neighbours_overlap_by_whole_sentences():
    text = " ".join(f"Word number {i}." for i in range(6))
    found = cut(text, tokens=12, overlap=4)
    assert found[0].endswith("Word number 2.") and found[1].startswith("Word number 2.")


def test_headings_stand_before_what_is_below_them():
    text = "# Loops\nThey repeat.\n## While\nAs long as it holds.\n## For\n# Functions\nCall them."
    assert cut(text, tokens=40) == [
        "Loops\nThey repeat.",
        "Loops > While\nAs long as it holds.",
        "Loops\nFor",
        "Functions\nCall them.",
    ]
    assert len(cut(text, tokens=40, headings=False)) == 1


def test_no_heading_is_lost():
    text = (
        "# The very long heading of zebra things\r\nBody.\r\n# C#\n## Deep\nMore.\n```\n# code\n```"
    )
    assert cut(text, tokens=16) == [
        "The very long heading of zebra things\n\nBody.",
        "C# > Deep\nMore.\n```\n# code\n```",
    ]


def test_a_sentence_beyond_the_limit_is_cut_between_words():
    found = cut("word " * 50, tokens=8)
    assert max(words(found)) <= 8 and " ".join(found).split() == ["word"] * 50


def test_without_a_limit_a_document_is_a_passage():
    assert cut(" # A title\nand text. More. ", tokens=None) == ["# A title\nand text. More."]
    assert cut("  \n ", tokens=None) == [] == cut("  \n ", tokens=8)


@given(st.text(alphabet="ab .!?\n#", max_size=200), st.integers(4, 20), st.data())
def test_nothing_is_lost_and_nothing_is_too_long(text, tokens, data):
    overlap = data.draw(st.integers(0, tokens // 2))
    found = cut(text, tokens=tokens, overlap=overlap, headings=False)
    assert all(size <= tokens or len(one) == 1 for size, one in zip(words(found), found))
    joined = "".join("".join(found).split())
    if overlap == 0:
        assert joined == "".join(text.split())
    assert all(one.strip() == one and one for one in found)


@pytest.mark.parametrize(
    "bad", [{"tokens": 3}, {"tokens": 8, "overlap": 5}, {"tokens": 8, "overlap": -1}]
)
def test_a_policy_that_cannot_be_kept_is_refused(bad):
    with pytest.raises(InputError, match="tokens: give"):
        Passages(**bad)

"""Texts that stand in two places: the search against the comparison of all pairs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.data.duplicates import _grams, _jaccard, normalised, twins


def test_what_is_the_same():
    texts = ["Who’s  there?", "No one.", "!?", "日本語の文", "naïve Café", ""]
    known = [
        "nothing",
        "who s there",
        "!?",
        "日本語 の文。",
        "日本語の文。",
        "NAÏVE café!!",
        "who's there",
    ]
    found = {twin.text: (twin.other, twin.same) for twin in twins(texts, known)}
    assert found == {0: (1, True), 2: (2, True), 3: (4, True), 4: (5, True)}
    assert normalised("A–b,  C!") == "a b c" and normalised(" ?! ") == "?!"


def test_one_letter_of_a_long_text_and_one_word_of_a_short_one():
    long = "the old river keeps the red house and the new road finds a blue tree"
    found = twins([long, "the red house"], [long.replace("river", "rover"), "the blue house"])
    assert [(twin.text, twin.other, twin.same) for twin in found] == [(0, 0, False)]
    assert 0.8 <= found[0].similarity < 1


@pytest.mark.parametrize("near", [0.5, 0.8, 0.95])
@given(seed=st.integers(0, 10_000))
def test_the_index_misses_nothing_and_invents_nothing(near: float, seed: int):
    draw = random.Random(seed)
    words = "the a one two red blue old new house tree river road".split()
    base = [" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(12)]

    def changed(text: str) -> str:
        letters = list(text)
        for _ in range(draw.randint(0, 3)):
            letters[draw.randrange(len(letters))] = draw.choice("abcde ")
        return "".join(letters)

    texts, known = [changed(text) for text in base], [changed(text) for text in base * 2]
    plain, others = list(map(normalised, texts)), list(map(normalised, known))
    expected = {}
    for i, text in enumerate(plain):
        similar = [
            1.0 if text == other else _jaccard(_grams(text), _grams(other)) for other in others
        ]
        if max(similar) >= near:
            expected[i] = max(similar), text in others
    found = twins(texts, known, near=near)
    assert {twin.text: (twin.similarity, twin.same) for twin in found} == expected
    for twin in found:
        assert not twin.same or plain[twin.text] == others[twin.other]
    order = [(not twin.same, -twin.similarity) for twin in found]
    assert order == sorted(order)

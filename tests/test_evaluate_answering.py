"""Exact match and F1 of answers, beside the published script of SQuAD 1.1.

SQUAD_SCRIPT names that script (evaluate-v1.1.py) where it is at hand. Without it the test that
compares case by case is skipped; its totals over the same cases are written down here.
"""

from __future__ import annotations

import importlib.util
import os
import random

import pytest

from tercet.errors import InputError
from tercet.evaluate.answering import answer_scores, exact_match, f1, plain

WORDS = (
    *("the", "The", "a", "an", "An", "THE", "cat", "cats", "Cat,", "sat", "on", "mat.", "a-b"),
    *("1,000", "$5", "U.S.", "“quoted”", "naïve", "İ", "—", "...", "'s", "it's", "(x)", "thea"),
)
SPACES = (" ", "  ", "\n", "\t", "\u00a0", "-", "")
OFFICIAL = {"exact_match": 24.3, "f1": 39.70487734487739}  # of the 1,000 cases below


def phrase(draw: random.Random, most: int) -> str:
    count = draw.randrange(most + 1)
    return "".join(f"{draw.choice(WORDS)}{draw.choice(SPACES)}" for _ in range(count))


def case(number: int) -> tuple[list[str], str]:
    """True answers, and a guess that often shares words with them."""
    draw = random.Random(number)
    answers = [phrase(draw, 5) for _ in range(draw.randrange(1, 5))]
    guess = phrase(draw, 5) if draw.random() < 0.4 else draw.choice(answers)
    return answers, f"{phrase(draw, 1)}{guess}{phrase(draw, 1)}"


def test_scores_are_those_of_the_published_script_on_1000_random_cases() -> None:
    path = os.environ.get("SQUAD_SCRIPT")
    if not path:
        pytest.skip("SQUAD_SCRIPT does not name SQuAD's evaluate-v1.1.py")
    spec = importlib.util.spec_from_file_location("squad", path)
    assert spec is not None and spec.loader is not None
    official = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(official)
    questions = [case(number) for number in range(1000)]
    for answers, guess in questions:
        scores = answer_scores([answers], [guess])
        best = official.metric_max_over_ground_truths
        assert scores.exact == best(official.exact_match_score, guess, answers)
        assert scores.f1 == pytest.approx(best(official.f1_score, guess, answers), abs=1e-12)
        assert plain(guess) == official.normalize_answer(guess)
    records = [
        {"id": str(i), "answers": [{"text": text} for text in answers]}
        for i, (answers, _) in enumerate(questions)
    ]
    guesses = {str(i): guess for i, (_, guess) in enumerate(questions)}
    assert official.evaluate([{"paragraphs": [{"qas": records}]}], guesses) == pytest.approx(
        OFFICIAL, abs=1e-9
    )


def test_totals_are_those_that_the_published_script_gave() -> None:
    questions = [case(number) for number in range(1000)]
    scores = answer_scores([answers for answers, _ in questions], [guess for _, guess in questions])
    assert (100 * scores.exact, 100 * scores.f1) == pytest.approx(
        (OFFICIAL["exact_match"], OFFICIAL["f1"]), abs=1e-9
    )


def test_what_is_not_compared() -> None:
    assert plain("  The   Cat's, (a) hat!\n") == "cats hat"
    assert exact_match("the U.S.", "US") and not exact_match("thecat", "cat")
    assert f1("cat cat dog", "cat bird") == pytest.approx(2 / 5)
    assert f1("the", "the") == f1("", "") == 0.0 and exact_match("the", "a")
    scores = answer_scores([["x", "cat dog"], ["no"]], ["cat", "yes"])
    assert (scores.exact, scores.n) == (0.0, 2) and scores.f1 == pytest.approx(1 / 3)
    assert str(scores) == "exact match 0.00%, F1 33.33% (2 questions)"


@pytest.mark.parametrize(
    ("truth", "guesses", "said"),
    [
        ([["a"]], [], "0 guesses for 1 questions"),
        ([], [], "0 guesses for 0 questions"),
        ([["a"], []], ["a", "b"], "question 2 has no true answer"),
    ],
)
def test_what_cannot_be_scored(truth: list, guesses: list, said: str) -> None:
    with pytest.raises(InputError, match=said):
        answer_scores(truth, guesses)

"""F1 of entities and accuracy of tags, beside seqeval."""

from __future__ import annotations

import random

import pytest

from tercet.errors import InputError
from tercet.evaluate.tagging import Found, tag_scores
from tercet.text.tags import Chunk, chunks, is_bio, repaired

KINDS = ("person", "creative-work", "group")
TAGS = ("O", *(f"{mark}-{kind}" for mark in "BI" for kind in KINDS))


def drawn(draw: random.Random, length: int) -> list[str]:
    """Tags at random, so that many are illegal; half of the words stand outside."""
    return [draw.choice(TAGS) if draw.random() < 0.5 else "O" for _ in range(length)]


def case(number: int) -> tuple[list[list[str]], list[list[str]]]:
    """Some sentences with their true tags and guesses that are often right."""
    draw = random.Random(number)
    truth = [drawn(draw, draw.randrange(1, 12)) for _ in range(draw.randrange(1, 5))]
    guesses = [
        [tag if draw.random() < 0.7 else draw.choice(TAGS) for tag in tags] for tags in truth
    ]
    return truth, guesses


def test_scores_are_those_of_seqeval_on_1000_random_cases() -> None:
    seqeval = pytest.importorskip("seqeval.metrics", reason="the package seqeval is not installed")
    for number in range(1000):
        truth, guesses = case(number)
        scores = tag_scores(truth, guesses, bio=True)
        assert scores.accuracy == pytest.approx(seqeval.accuracy_score(truth, guesses))
        assert scores.entities is not None
        if not scores.kinds:
            assert seqeval.f1_score(truth, guesses, zero_division=0) == scores.entities.f1 == 0
            continue
        theirs = seqeval.classification_report(truth, guesses, output_dict=True, zero_division=0)
        for name, found in {**scores.kinds, "micro avg": scores.entities}.items():
            row = theirs[name]
            assert (found.precision, found.recall, found.f1) == pytest.approx(
                (row["precision"], row["recall"], row["f1-score"])
            )
            assert found.truth == row["support"]
        for tags in truth:
            pieces = [(chunk.kind, chunk.start, chunk.stop - 1) for chunk in chunks(tags)]
            assert pieces == _entities(tags)


def _entities(tags: list[str]) -> list[tuple[str, int, int]]:
    from seqeval.metrics.sequence_labeling import get_entities  # type: ignore[import-not-found]

    return get_entities(tags)


def test_illegal_tags_begin_an_entity_and_are_counted() -> None:
    tags = ["I-a", "I-a", "O", "I-b", "I-a", "B-a", "I-b", "I", "I"]
    mended = ["B-a", "I-a", "O", "B-b", "B-a", "B-a", "B-b", "B", "I"]
    assert repaired(tags) == (mended, 5)
    assert repaired(mended) == (mended, 0)
    assert chunks(tags) == chunks(mended)
    assert chunks(["O", "B-a", "I-a", "B-a"]) == [Chunk("a", 1, 3), Chunk("a", 3, 4)]
    assert tag_scores([["B-a", "I-a", "O"]], [["I-a", "I-a", "O"]]).entities == Found(1, 1, 1)
    assert tag_scores([["B-a", "I-a", "O"]], [["I-a", "I-a", "O"]]).repaired == 1


def test_an_entity_is_found_whole_or_not_at_all() -> None:
    truth = [["B-a", "I-a", "O", "B-b"], ["O", "B-b"]]
    guesses = [["B-a", "O", "O", "B-b"], ["B-b", "I-b"]]
    scores = tag_scores(truth, guesses)
    assert scores.entities == Found(truth=3, said=3, right=1)
    assert tag_scores([["O"]], [["O"]], bio=True).entities == Found(0, 0, 0)
    assert tag_scores([["O"]], [["O"]]).entities is None
    assert scores.kinds == {"a": Found(1, 1, 0), "b": Found(2, 2, 1)}
    assert (scores.entities.f1, scores.accuracy) == (1 / 3, 0.5)
    assert "F1 33.33% (precision 33.33%, recall 33.33%; 3 entities)" in str(scores)


def test_parts_of_speech_have_an_accuracy_alone() -> None:
    assert not is_bio(["NOUN", "O"]) and not is_bio(["O", "O"]) and is_bio(["O", "B-x"])
    assert not is_bio(["B-", "O"]) and is_bio(["B", "I", "O"])
    scores = tag_scores([["NOUN", "VERB"], ["X"]], [["NOUN", "NOUN"], ["X"]])
    assert (scores.accuracy, scores.words, scores.entities) == (2 / 3, 3, None)
    assert str(scores).startswith("accuracy 66.67% (")


@pytest.mark.parametrize(
    ("truth", "guesses", "said"),
    [
        ([["O"]], [], "0 guesses for 1 sentences"),
        ([["O"], ["O", "O"]], [["O"], ["O"]], "sentence 2: 1 tags were guessed for 2 words"),
        ([], [], "no word to score"),
    ],
)
def test_what_cannot_be_scored(truth: list, guesses: list, said: str) -> None:
    with pytest.raises(InputError, match=said):
        tag_scores(truth, guesses)

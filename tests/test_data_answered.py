"""Conversations in the flat stream: what is read, what is learned, in which order."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.data import Answers, Choices, Talks, Tokens

conversation = st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=9)
talks = st.lists(conversation, min_size=2, max_size=8)


def made(rows: list[list[tuple[int, bool]]]) -> tuple[Tokens, list[list[tuple[int, bool]]]]:
    """As a corpus has them: nothing is learned that follows nothing, the last token always is."""
    whole = [[(7, False), *row, (8, True)] for row in rows]
    return Tokens.of(
        [[2 * token + learned for token, learned in row] for row in whole], None
    ), whole


def expected(rows: list[list[tuple[int, bool]]]) -> set[tuple[int, int, int, int]]:
    """(sequence, position, what is read there, what follows) of everything that is learned."""
    return {
        (number, at - 1, row[at - 1][0], token)
        for number, row in enumerate(rows)
        for at, (token, learned) in enumerate(row)
        if learned
    }


def found(batch) -> set[tuple[int, int, int, int]]:
    at = batch.select
    parts = (batch.layout.sequence[at], batch.layout.positions[at], batch.tokens[at], batch.targets)
    return set(zip(*(part.tolist() for part in parts)))


@given(talks)
def test_each_answer_is_learned_where_it_stands(rows):
    tokens, whole = made(rows)
    draw = Talks(tokens, 40)
    batch = Answers().batch([draw.sample(0, number) for number in range(len(rows))])
    assert found(batch) == expected(whole)
    assert batch.layout.lengths == tuple(len(row) - 1 for row in whole)
    assert batch.counts == (sum(learned for row in whole for _, learned in row),)


@given(talks)
def test_pairs_are_two_sequences_and_their_reference(rows):
    tokens, whole = made(rows[: len(rows) // 2 * 2])
    reference = np.arange(len(whole), dtype=np.float64).reshape(-1, 2)
    draw = Choices(tokens, 60, reference=reference)
    batch = Answers().batch([draw.sample(0, number) for number in range(len(draw))])
    assert found(batch) == expected(whole)
    assert batch.groups == (2,) * len(draw) and batch.counts == (len(draw),)
    assert batch.labels is not None and batch.labels.tolist() == reference.flatten().tolist()
    halves = [Answers().batch([draw.sample(0, number)]) for number in range(len(draw))]
    assert torch.equal(torch.cat([half.tokens for half in halves]), batch.tokens)


@given(talks, st.integers(5, 60), st.integers(0, 3))
def test_an_epoch_holds_every_conversation_once(rows, step_tokens, seed):
    tokens, _ = made(rows)
    draw = Talks(tokens, step_tokens, seed)
    keys = [sample.key for part in draw.epoch(1) for sample in part]
    assert sorted(keys) == [(1, number) for number in range(len(rows))]
    steps = [sample.key for step in range(20) for sample in draw.samples(step)]
    assert steps[: len(rows)] == [s.key for part in draw.epoch(0) for s in part]
    assert [s.key for s in Talks(tokens, step_tokens, seed).samples(7)] == [
        s.key for s in draw.samples(7)
    ]

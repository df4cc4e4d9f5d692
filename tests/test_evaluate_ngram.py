"""N-grams: distributions, and the same numbers as the paper's formulas written out."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tercet.errors import InputError
from tercet.evaluate.ngram import NGram, unigram_top

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
SHAKESPEARE = DATA / "tinyshakespeare"
needs_data = pytest.mark.skipif(not SHAKESPEARE.is_dir(), reason=f"no folder {SHAKESPEARE}")


def text(n: int = 900) -> np.ndarray:
    """A pattern, then noise; token 8 never occurs."""
    pattern = np.tile(np.array([0, 1, 2, 3, 0, 2, 1, 4]), n // 16)
    return np.concatenate([pattern, np.random.default_rng(0).integers(0, 8, n // 2)])


class Slow:
    """Chen and Goodman's equations over dictionaries of tuples."""

    def __init__(self, tokens: list[int], vocab_size: int, order: int) -> None:
        self.vocab_size, self.order, self.counts = vocab_size, order, {}
        every = {
            k: Counter(tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1))
            for k in range(1, order + 1)
        }
        for k in range(1, order):
            self.counts[k] = Counter(gram[1:] for gram in every[k + 1])
        self.counts[order] = every[order]

    def discounts(self, k: int) -> list[float]:
        n = Counter(self.counts[k].values())
        y = n[1] / (n[1] + 2 * n[2])
        return [0.0] + [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]

    def probability(self, word: int, context: tuple[int, ...]) -> float:
        k = len(context) + 1
        lower = self.probability(word, context[1:]) if context else 1 / self.vocab_size
        followers = {gram[-1]: n for gram, n in self.counts[k].items() if gram[:-1] == context}
        if not followers:
            return lower
        discounts, total = self.discounts(k), sum(followers.values())
        count = followers.get(word, 0)
        reserved = sum(discounts[min(n, 3)] for n in followers.values())
        return (count - discounts[min(count, 3)] + reserved * lower) / total


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_same_as_the_equations_written_out(order: int):
    rng = np.random.default_rng(1)
    again = [np.tile(rng.zipf(1.5, size) % 400, n) for n, size in ((2, 90), (3, 40), (4, 20))]
    tokens = np.concatenate([rng.zipf(1.5, 3_000) % 400, *again])
    held_out = np.concatenate([tokens[-90:-60], rng.zipf(1.4, 30) % 402])
    slow = Slow(tokens.tolist(), 402, order)
    found = np.exp(NGram(tokens, 402, order=order).log_probabilities(held_out))
    assert found.shape == (59,)
    for i, value in enumerate(found, 1):
        context = tuple(held_out[max(0, i - order + 1) : i].tolist())
        assert value == pytest.approx(slow.probability(int(held_out[i]), context), rel=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_probabilities_of_a_context_sum_to_one(order: int):
    model = NGram(text(), 9, order=order)
    contexts = [(0, 1, 2, 3), (4, 4, 4, 4), (8, 8, 8, 8), (3, 8, 0, 1), (2, 1, 4, 0), (1,), (8,)]
    for context in contexts:
        last = [model.log_probabilities(np.array([*context, word]))[-1] for word in range(9)]
        assert np.exp(last).sum() == pytest.approx(1)
    assert np.exp(model.log_probabilities(np.array([0, 1, 2, 3, 0]))[-1]) > (
        0.7 if order > 2 else 0.1
    )


def test_more_context_foretells_a_pattern_better():
    costs = [-NGram(text(), 9, order=n).log_probabilities(text()[:400]).mean() for n in range(1, 6)]
    assert costs == sorted(costs, reverse=True) and costs[0] > 3 * costs[2]


def test_keys_beyond_64_bits():
    """Five tokens of a vocabulary of 16k would need 70 bits."""
    tokens = np.random.default_rng(2).zipf(1.3, 50_000) % 16_384
    model = NGram(tokens, 16_384, order=5)
    every = np.arange(0, 16_384, 16)
    rows = np.concatenate([np.concatenate([tokens[100:104], [word]]) for word in every])
    found = np.exp(model.log_probabilities(rows)[3::5])
    alone = [
        np.exp(model.log_probabilities(np.array([*tokens[100:104], word]))[-1]) for word in every
    ]
    assert np.allclose(found, alone) and 0 < found.sum() <= 1


@needs_data
def test_real_text():
    """Characters of tinyshakespeare, first 90 % against the last 10 %: falls with every order."""
    file = next(path for path in SHAKESPEARE.iterdir() if path.suffix == ".txt")
    characters = np.frombuffer(file.read_bytes(), dtype=np.uint8).astype(np.int64)
    cut = len(characters) * 9 // 10
    bits = [
        -NGram(characters[:cut], 128, order=n).log_probabilities(characters[cut:]).mean()
        / math.log(2)
        for n in (1, 3, 5)
    ]
    assert bits[0] > 4.7 and 2.7 < bits[1] < 3.1 and 2.0 < bits[2] < 2.4, bits


@pytest.mark.parametrize(
    ("tokens", "order", "message"),
    [
        ([0, 1, 9], 2, "0 to 9 do not fit a vocabulary of 9"),
        ([0, -1], 2, "-1 to 0 do not fit"),
        ([0, 1], 3, "2 tokens, fewer than the order 3"),
        ([0, 1], 0, "order 0 must be 1 or more"),
    ],
)
def test_refusals(tokens: list[int], order: int, message: str):
    with pytest.raises(InputError, match=message):
        NGram(np.array(tokens), 9, order=order)


def test_the_unigrams_guesses():
    assert unigram_top(np.array([1, 1, 2, 2, 3]), np.array([1, 2, 3, 3]), 2) == 0.5

"""Texts of four subjects with vectors around four directions, and topics compared."""

from __future__ import annotations

import numpy as np

from tercet import Topics

SUBJECTS = {
    "sea": "ship harbour sail captain anchor",
    "kitchen": "bread oven butter flour yeast",
    "sky": "star planet comet telescope orbit",
    "garden": "rose hedge spade compost tulip",
}
REAL = [
    *("How do I bake bread without yeast?", "The oven was too hot and the cake burned."),
    *("Knead the dough and let it rise overnight.", "Butter, flour and sugar for the biscuits."),
    *("Which flour is best for pizza dough?", "My sourdough bread does not rise."),
    *("A recipe for chocolate cake with almonds.", "Roll out the pastry and fill it with jam."),
    *("The moons of Jupiter seen through a telescope.", "A comet passes the sun next week."),
    *("How far is the nearest star?", "The rover landed on Mars this morning."),
    *("Astronomers found a planet that is like the Earth.", "The rocket reached its orbit."),
    *("Galaxies move away from each other.", "An eclipse of the moon tonight."),
    *("The striker scored twice in the final.", "Our goalkeeper was injured in the match."),
    *("They won the championship after extra time.", "The referee showed a red card."),
    *("The coach picked a young team for the cup.", "A penalty decided the football game."),
    *("Fans cheered when the midfielder scored.", "The league match ended in a draw."),
]


def blob(subject: int, count: int, seed: int = 0, width: int = 24) -> np.ndarray:
    """Vectors around a direction of the subject's own."""
    middle = np.random.default_rng(1000 + subject).normal(size=width)
    return (middle + np.random.default_rng(seed).normal(0, 0.25, (count, width))).astype("f4")


def pile(each: int = 75) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Texts of four subjects of which each has words of its own, and a few that are alone."""
    texts, parts, truth = [], [], []
    draw = np.random.default_rng(0)
    for number, words in enumerate(SUBJECTS.values()):
        chosen = [draw.choice(words.split(), 3, replace=False) for _ in range(each)]
        texts += [f"the {a} and the {b} of a {c}, {i}" for i, (a, b, c) in enumerate(chosen)]
        parts.append(blob(number, each, seed=number))
        truth += [number] * each
    alone = [f"nothing like number {i}" for i in range(2)]
    lone = draw.normal(size=(2, 24)).astype("f4") * 2
    return texts + alone, np.concatenate([*parts, lone]), np.array(truth + [-1] * 2)


TEXTS, VECTORS, TRUTH = pile()


def same(one: Topics, other: Topics) -> None:
    assert np.array_equal(one.topics, other.topics)
    assert np.array_equal(one.probabilities, other.probabilities)
    assert np.array_equal(one.found.vectors, other.found.vectors)
    assert one.table == other.table and one.texts == other.texts

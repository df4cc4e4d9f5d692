"""How topics are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tercet.errors import InputError

SEEDS = 1 << 32


@dataclass(frozen=True)
class TopicSettings:
    """The same texts, vectors and settings give the same topics, bit for bit."""

    method: Literal["hdbscan", "kmeans"] = "hdbscan"
    """hdbscan finds how many topics there are, and leaves what belongs to none; kmeans makes k"""
    k: int | None = None
    """topics, for kmeans"""
    min_size: int | None = None
    """texts of a topic at the least, for hdbscan; None: as suits their number"""
    components: int = 50
    """of the principal components of the vectors, so many are kept"""
    neighbours: int = 15
    """of each text, for the layout and for what predict says; more: broader topics"""
    dimensions: int = 5
    """of the layout in which texts are clustered"""
    seed: int = 0
    stability: int = 0
    """further seeds, each for topics anew: every topic gets a score, how well it is found again"""

    def __post_init__(self) -> None:
        if self.method not in ("hdbscan", "kmeans"):
            raise InputError(f"method {self.method!r} is unknown; use hdbscan or kmeans")
        if (self.method == "kmeans") != (self.k is not None):
            wrong = "kmeans needs k" if self.k is None else f"k {self.k} belongs to kmeans"
            raise InputError(f"{wrong}; give method='kmeans' and k, or neither")
        if self.method == "kmeans" and self.min_size is not None:
            raise InputError(f"min_size {self.min_size} belongs to hdbscan, kmeans makes k topics")
        least = {"k": 2, "min_size": 2, "components": 2, "neighbours": 2, "dimensions": 2}
        for name, low in (least | {"seed": 0, "stability": 0}).items():
            value = getattr(self, name)
            if value is None and name in ("k", "min_size"):
                continue
            if type(value) is not int or not low <= value < SEEDS:
                raise InputError(f"{name} {value!r} must be a whole number from {low} on")

        if self.seed + self.stability >= SEEDS:
            raise InputError(
                f"seed {self.seed} and stability {self.stability}: the last of the further seeds "
                f"would be {self.seed + self.stability}, and {SEEDS - 1} is the largest; take a "
                "smaller seed"
            )

    def smallest(self, n_texts: int) -> int:
        """Texts of a topic at the least: a 250th of all, but 5 to 100. Chosen on the training split
        of 20 newsgroups (docs/clustering.md)."""
        return self.min_size or max(5, min(100, n_texts // 250))

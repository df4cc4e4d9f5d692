"""Texts that stand in two places, word for word or nearly so: a measurement on texts that were
learned measures memory.

Two texts are the same where only case, spaces and punctuation differ, and nearly the same where
their sets of five-character strings have a Jaccard similarity of 0.8 or more (Broder 1997). It is
mostly estimated, by MinHash; here the search is exact, in nearly linear time: two such sets have at
least one of their rarest members in common, so only these are indexed (prefix filtering, Chaudhuri
et al. 2006).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

GRAM = 5
NEAR = 0.8
COMPARED = 2_000  # characters of a text that are compared for nearness
CANDIDATES = 200  # looked at for one text: the bound where thousands are alike


@dataclass(frozen=True)
class Twin:
    """A text, and its nearest among the others, by their numbers. similarity: 1 for the same."""

    text: int
    other: int
    similarity: float
    same: bool


def twins(texts: Sequence[str], others: Iterable[str], *, near: float = NEAR) -> list[Twin]:
    """Of each text that has one its nearest among the others; the same ones first, then the
    nearest. Of equals the first. The others are read once; time grows with their characters."""
    plain = [normalised(text) for text in texts]
    sets = [_grams(text) for text in plain]
    rarity = Counter(gram for grams in sets for gram in grams)
    index: dict[str, list[int]] = defaultdict(list)
    alike: dict[str, list[int]] = defaultdict(list)
    for number, (text, grams) in enumerate(zip(plain, sets)):
        alike[text].append(number)
        for gram in _rarest(grams, rarity, near):
            index[gram].append(number)
    best: dict[int, Twin] = {}
    seen: set[str] = set()  # of the others: only the first of equals can be the nearest
    for other, text in enumerate(map(normalised, others)):
        if text in seen:
            continue
        seen.add(text)
        for number in alike.get(text, ()):
            best[number] = Twin(number, other, 1.0, True)
        grams = _grams(text)
        found = (n for gram in _rarest(grams, rarity, near) for n in index.get(gram, ()))
        for number in _first(found, CANDIDATES):
            known = best.get(number)
            similarity = _jaccard(sets[number], grams)
            if similarity >= near and (known is None or similarity > known.similarity):
                best[number] = Twin(number, other, similarity, False)
    return sorted(best.values(), key=lambda twin: (not twin.same, -twin.similarity, twin.text))


def _first(found: Iterable[int], most: int) -> dict[int, None]:
    """The first so many different ones; no more is read."""
    kept: dict[int, None] = {}
    for one in found:
        kept[one] = None
        if len(kept) == most:
            break
    return kept


def normalised(text: str) -> str:
    """Without case, punctuation and repeated spaces; a text of nothing else stays as it is."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(words) or text.strip()


def _grams(text: str) -> set[str]:
    text = text[:COMPARED]
    return {text[i : i + GRAM] for i in range(max(1, len(text) - GRAM + 1))}


def _rarest(grams: set[str], rarity: Mapping[str, int], near: float) -> list[str]:
    """So many that a set without any of them shares too few to be near: of n members near * n must
    be shared. In one order for all sets."""
    shared = math.ceil(Fraction(str(near)) * len(grams))  # 0.8 * 15 is above 12 as a float
    order = sorted(grams, key=lambda gram: (rarity.get(gram, 0), gram))
    return order[: len(grams) - shared + 1]


def _jaccard(one: set[str], two: set[str]) -> float:
    shared = len(one & two)
    return shared / (len(one) + len(two) - shared)

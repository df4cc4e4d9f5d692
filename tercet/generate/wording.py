"""What the texts of a beam search must not and must say: n-grams that come back, words that are
forbidden, words that are forced. Knows ids, not text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tercet.errors import InputError

Word = tuple[int, ...]


@dataclass(frozen=True)
class Wording:
    """no_repeat_ngram: no n tokens in a row come twice, prompt included (Paulus et al. 2018,
    section 2.5); 0 allows all. forbidden: words that never stand in a text. forced: words that
    each text holds, each in one of several spellings. A word is its tokens in a row: it is met in a
    longer word that begins with them too, and not where other tokens spell it.
    """

    no_repeat_ngram: int = 0
    forbidden: tuple[Word, ...] = ()
    forced: tuple[tuple[Word, ...], ...] = ()

    def __post_init__(self) -> None:
        if type(self.no_repeat_ngram) is not int or self.no_repeat_ngram < 0:
            raise InputError(
                f"no_repeat_ngram {self.no_repeat_ngram!r} must be a whole number; 0 is none"
            )
        words = [*self.forbidden, *(spelling for word in self.forced for spelling in word)]
        if any(not word for word in words) or any(not word for word in self.forced):
            raise InputError("a forbidden or forced word has no tokens; leave it out")

    def banned(self, before: Sequence[int], ids: Sequence[int]) -> set[int]:
        """Tokens that may not follow ``ids``, which were written behind ``before``."""
        found, n, text = set(), self.no_repeat_ngram, [*before, *ids]
        if n:
            last = text[len(text) - n + 1 :]
            for i in range(len(text) - n + 1):
                if text[i : i + n - 1] == last:
                    found.add(text[i + n - 1])
        for word in self.forbidden:
            if _ends_with(text, word[:-1]):
                found.add(word[-1])
        return found

    def progress(self, ids: Sequence[int]) -> tuple[int, int, set[int]]:
        """Of the forced words: those that ``ids`` lack, how many of their tokens stand, and the
        tokens that would go on with one. A word half written counts if it stands at the end."""
        missing, met, following = 0, 0, set()
        begun = 0
        for word in self.forced:
            if any(_holds(ids, spelling) for spelling in word):
                met += max(map(len, word))
                continue
            missing += 1
            for spelling in word:
                n = max(n for n in range(len(spelling)) if _ends_with(ids, spelling[:n]))
                begun = max(begun, n)
                following |= {spelling[0], spelling[n]}
        return missing, met + begun, following


NO_WORDING = Wording()


def share(banks: Sequence[int], scores: Sequence[float], n: int) -> list[int]:
    """The n candidates to go on with, best score first, the banks served in turn.

    Those with equally many forced tokens are a bank: in one race of all, a search would leave out
    the words that cost most (Post & Vilar 2018, section 3).
    """
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    waiting: dict[int, list[int]] = {}
    for i in order:
        waiting.setdefault(banks[i], []).append(i)
    chosen: list[int] = []
    while len(chosen) < n and waiting:
        for bank in sorted(waiting, reverse=True):
            chosen.append(waiting[bank].pop(0))
            if not waiting[bank]:
                del waiting[bank]
            if len(chosen) == n:
                break
    return sorted(chosen, key=lambda i: -scores[i])


def _ends_with(ids: Sequence[int], word: Word) -> bool:
    return len(word) <= len(ids) and tuple(ids[len(ids) - len(word) :]) == word


def _holds(ids: Sequence[int], word: Word) -> bool:
    return any(tuple(ids[i : i + len(word)]) == word for i in range(len(ids) - len(word) + 1))

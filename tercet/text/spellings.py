"""Other spellings of words in a byte-pair vocabulary, to train on: BPE-dropout (Provilkov et al.
2020).

A word is spelled by merging its characters pair by pair, the commonest pair first. Where each merge
is left out now and then, a model meets the parts of words too, and the same word in many guises.
The `tokenizers` library does this as well, but from a random source that nobody can seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tercet.errors import InputError
from tercet.text.tokenizer import Tokenizer
from tercet.text.words import word_pieces

WAYS = 16  # spellings of a word that are drawn once and then taken by turns


class Spellings:
    """``dropout``: the share of merges left out. Words and their spellings are tuples of ids."""

    def __init__(self, tokenizer: Tokenizer, dropout: float, seed: int = 0) -> None:
        model = tokenizer.description.get("model", {})
        if model.get("type") != "BPE" or model.get("end_of_word_suffix"):
            kind = model.get("type", "SentencePiece")
            raise InputError(
                f"bpe_dropout {dropout} is for byte-level BPE; this tokenizer is of kind {kind}"
            )
        self.dropout, self.seed = dropout, seed
        merges = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
        self._ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}
        self._ids: dict[str, int] = model["vocab"]
        plain = {piece: n for piece, n in self._ids.items() if tokenizer.written(n) is not None}
        self._pieces = {n: piece for piece, n in plain.items()}  # without special tokens
        self._places = word_pieces(tokenizer)
        self._known: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def words(self, ids: Sequence[int]) -> list[tuple[int, ...]]:
        """The ids of a text, word by word."""
        words: list[list[int]] = []
        before = None
        for token in ids:
            place = self._places[token]
            goes_on = not place.begins and before is not None and before.open
            if goes_on or (words and not place.begins and not place.joins):
                words[-1].append(token)
            else:
                words.append([token])
            before = place
        return [tuple(word) for word in words]

    def ways(self, word: tuple[int, ...]) -> list[tuple[int, ...]]:
        """WAYS spellings of a word, which may be equal: a pure function of word and seed."""
        if word not in self._known:
            draw = random.Random(f"{self.seed} {word}")
            self._known[word] = [self._spelled(word, draw) for _ in range(WAYS)]
        return self._known[word]

    def respelled(self, ids: Sequence[int], choices: Sequence[int]) -> list[int]:
        """The same text otherwise; of ``choices``, numbers below WAYS, a word takes the next."""
        words = zip(self.words(ids), choices)
        return [token for word, choice in words for token in self.ways(word)[choice]]

    def _spelled(self, word: tuple[int, ...], draw: random.Random) -> tuple[int, ...]:
        if any(token not in self._pieces for token in word):
            return word  # a special token
        parts = list("".join(self._pieces[token] for token in word))
        while len(parts) > 1:
            open_ = [
                (self._ranks[pair], at)
                for at, pair in enumerate(zip(parts, parts[1:]))
                if pair in self._ranks and draw.random() >= self.dropout
            ]
            if not open_:
                break
            _, at = min(open_)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        found = tuple(self._ids.get(part, -1) for part in parts)
        return word if -1 in found else found

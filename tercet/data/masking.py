"""Masked language modelling's noise: which tokens are hidden, and as what they are read.

Knows token ids and where words begin; no network, and no batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tercet.errors import InputError
from tercet.text import Tokenizer
from tercet.text.words import Piece, word_pieces


class Words:
    """Where words begin among token ids: a table of the vocabulary's pieces."""

    def __init__(self, pieces: list[Piece]) -> None:
        table = torch.tensor(pieces, dtype=torch.bool)  # (V, 3)
        self._begins, self._joins, self._open = table.unbind(1)

    def starts(self, ids: Tensor) -> Tensor:
        """(N,) ids -> (N,) bool: does a word begin here? The first token begins one."""
        starts = torch.ones_like(ids, dtype=torch.bool)
        starts[1:] = self._begins[ids[1:]] | (self._joins[ids[1:]] & ~self._open[ids[:-1]])
        return starts


@dataclass(frozen=True, eq=False)
class Masking:
    """BERT's masking (Devlin et al. 2019, section 3.1) of single tokens or, with ``words``, of
    whole words: then all tokens of a chosen word are targets.

    Every token or word is chosen with the probability ``rate``, so that in both cases ``rate`` of
    all tokens are targets; of those ``replaced`` read as the mask token, ``shuffled`` as a random
    one, and the rest as themselves. That is drawn token by token in whole words too, as in the
    paper's own code. ``protected`` ids are never targets, and no word reaches across them.
    ``cls_id`` and ``sep_id`` are put around the texts that are read, where there are such.
    """

    mask_id: int
    vocab_size: int
    rate: float = 0.15
    replaced: float = 0.8
    shuffled: float = 0.1
    protected: tuple[int, ...] = ()
    words: Words | None = None
    cls_id: int | None = None
    sep_id: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise InputError(f"a masking rate of {self.rate} must be above 0 and at most 1")

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, rate: float = 0.15, whole_words: bool = False) -> Masking:
        """With the tokenizer's special tokens, none of which is a target.

        Raises InputError for a tokenizer without a mask token.
        """
        if tokenizer.mask_id is None:
            raise InputError(
                "the tokenizer has no mask token; train one with the special tokens of an encoder"
            )
        known = (getattr(tokenizer, f"{role}_id") for role in tokenizer.roles)
        return cls(
            tokenizer.mask_id,
            tokenizer.vocab_size,
            rate,
            protected=tuple(sorted({token for token in known if token is not None})),
            words=Words(word_pieces(tokenizer)) if whole_words else None,
            cls_id=tokenizer.cls_id,
            sep_id=tokenizer.sep_id,
        )

    def __call__(self, ids: Tensor, first: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) a stream of texts -> what is read (N,), and which places are targets (N,) bool.

        first: (B,) where the texts begin. noise: (3, N) numbers from 0 to 1, all that is random.
        """
        chosen = (noise[0][self.units(ids, first)] < self.rate) & self.free[ids]
        read = torch.where(chosen & (noise[1] < self.replaced), self.mask_id, ids)
        swapped = chosen & (noise[1] >= self.replaced)
        swapped &= noise[1] < self.replaced + self.shuffled
        return torch.where(swapped, (noise[2] * self.vocab_size).long(), read), chosen

    def units(self, ids: Tensor, first: Tensor) -> Tensor:
        """(N,) what is chosen as a whole: for each token the place where its word begins, or its
        own. ``first``: (B,) where the texts begin."""
        places = torch.arange(len(ids))
        if self.words is None:
            return places
        starts, free = self.words.starts(ids), self.free[ids]
        starts |= ~free
        starts[1:] |= ~free[:-1]
        starts[first] = True
        return torch.where(starts, places, 0).cummax(0).values

    @cached_property
    def free(self) -> Tensor:
        """(V,) bool: may this id be a target?"""
        free = torch.ones(self.vocab_size, dtype=torch.bool)
        ends = [token for token in (self.cls_id, self.sep_id) if token is not None]
        free[[*self.protected, *ends]] = False
        return free

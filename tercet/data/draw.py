"""Draws: which samples a step sees, cut out of a token stream. What becomes of them is shape.py's.

Every draw is a pure function of (seed, step): it does not know how a step is cut into
micro-batches, nor how many processes there are.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from tercet.data.order import CountOrder, Drawn, TokenOrder, generator
from tercet.data.shards import Tokens
from tercet.errors import InputError


@dataclass(frozen=True, eq=False)
class Sample:
    """A stretch of text, two, or a group of texts. ``key`` names it among all that a run ever
    sees."""

    key: tuple[int, ...]  # (epoch, number); in a mixture (draw, epoch, number)
    ids: Tensor  # (T,)
    targets: Tensor | None = None  # the token behind each of ids, (T,), or (T - 1,) at a text's end
    second: Tensor | None = None  # (S,) the translation, or the second text of a pair
    places: Tensor | None = None  # (n,) those of ids at which something is to be learned
    label: float | Tensor | None = None  # 1: the second text comes from elsewhere; 0: it follows
    sizes: tuple[int, ...] = ()  # tokens of each text of a group, where ids are all of them
    types: Tensor | None = None  # (T,) which text of a pair each of ids belongs to
    document: int = 0  # where ids lie: the document, and the place in the stream
    start: int = 0

    @property
    def n_tokens(self) -> int:
        return self.ids.numel() + (0 if self.second is None else self.second.numel())


class Draw:
    """What all draws have: an order, and a sample for each (epoch, number) of it."""

    order: CountOrder | TokenOrder
    left_out: int = 0  # samples that are too long for it

    def sample(self, epoch: int, number: int) -> Sample:
        raise NotImplementedError

    def samples(self, step: int) -> list[Sample]:
        """All that a step sees, on all ranks and in all micro-batches."""
        return self._taken(self.order.step(step))

    def epoch(self, epoch: int) -> Iterator[list[Sample]]:
        """Every sample of an epoch once, about a step's at a time: to read a split through."""
        return map(self._taken, self.order.epoch(epoch))

    def share(self, weight: float) -> Draw:
        """This draw with steps of another size."""
        part = copy.copy(self)
        part.order = self.order.share(weight)
        return part

    @property
    def step_tokens(self) -> float:
        """Tokens of a step, within one sample."""
        return self.order.step_tokens

    @property
    def fewest(self) -> int:
        """Samples that every step has at least."""
        return self.order.fewest

    @property
    def steps_per_epoch(self) -> float:
        return self.order.steps_per_epoch

    def _taken(self, drawn: Drawn) -> list[Sample]:
        return [self.sample(epoch, number) for epoch, number in drawn]


class Rows(Draw):
    """Equal rows of the whole stream, whatever documents they fall on, which see each other.

    Every epoch starts at another token, so that it cuts elsewhere; the start moves by up to a row,
    and a target stands behind each token, so an epoch has one row less than would fit.
    """

    def __init__(self, tokens: Tokens, length: int, rows: int, seed: int = 0) -> None:
        _positive(length=length, rows=rows)
        n_samples = tokens.n_tokens // length - 1
        if n_samples < 1:
            raise InputError(
                f"the text has {tokens.n_tokens} tokens, too few for one row of {length}; "
                "give more text or shorten the rows"
            )
        self.tokens, self.length, self.seed = tokens, length, seed
        self.order = CountOrder(n_samples, rows, length, seed)

    def sample(self, epoch: int, number: int) -> Sample:
        start = _offset(self.seed, epoch, self.length) + number * self.length
        span = self.tokens.take(start, start + self.length + 1)
        document = int(np.searchsorted(self.tokens.starts, start, "right")) - 1
        return Sample((epoch, number), span[:-1], span[1:], document=document, start=start)


@lru_cache(maxsize=64)
def _offset(seed: int, epoch: int, length: int) -> int:
    """Where an epoch's first row starts: 0 to ``length`` - 1."""
    return int(torch.randint(length, (1,), generator=generator("offset", seed, epoch)))


class Pieces(Draw):
    """Documents cut into pieces of at most ``length`` tokens from their beginning on.

    An epoch holds every piece once, and a step about ``step_tokens`` tokens of them. Where the
    stream has separators, a document's begins its first piece, and the next one is its last target;
    ``bare``: the separators are left out of the pieces, for what reads a text to both sides.
    """

    def __init__(
        self,
        tokens: Tokens,
        length: int,
        step_tokens: float,
        seed: int = 0,
        *,
        bare: bool = False,
    ) -> None:
        _positive(length=length, step_tokens=step_tokens)
        self.tokens, self.length, self.seed = tokens, length, seed
        self.starts, self.lengths, self.documents = _pieces(tokens, length, bare=bare)
        self.order = TokenOrder(self.lengths, step_tokens, seed)

    def sample(self, epoch: int, number: int) -> Sample:
        start, document = int(self.starts[number]), int(self.documents[number])
        stop = start + int(self.lengths[number])
        end = int(self.tokens.starts[document] + self.tokens.lengths[document])
        goes_on = stop < end or self.tokens.separator is not None
        span = self.tokens.take(start, stop + goes_on)
        ids = span[: stop - start]
        return Sample((epoch, number), ids, span[1:], document=document, start=start)


def _pieces(
    tokens: Tokens, length: int, *, bare: bool, least: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) start, length and document of each piece that has at least ``least`` tokens."""
    before = 1 if bare and tokens.separator is not None else 0
    counts = -(-(tokens.lengths - before) // length)  # of each document
    documents = np.repeat(np.arange(len(tokens), dtype=np.int32), counts)
    within = np.arange(len(documents)) - (np.cumsum(counts) - counts)[documents]
    starts = tokens.starts[documents] + before + within * length
    ends = (tokens.starts + tokens.lengths)[documents]
    lengths = np.minimum(ends - starts, length).astype(np.int32)
    kept = lengths >= least
    if not kept.any():
        raise InputError(
            f"{len(tokens):,} documents of {tokens.n_tokens:,} tokens have no piece of {least} "
            f"{'token' if least == 1 else 'tokens'} or more; give more text"
        )
    return starts[kept], lengths[kept], documents[kept]


class SentencePairs(Draw):
    """Two stretches of text each, for next-sentence prediction (Devlin et al. 2019, section 3.1).

    A piece of a document is cut in two at a random place. In one half of the pieces, and in the
    next epoch in the other half, the second text is a stretch of another document instead (label 1;
    what it replaces is not read in that epoch). ``length``: tokens of both together. Separators are
    left out.
    """

    def __init__(self, tokens: Tokens, length: int, step_tokens: float, seed: int = 0) -> None:
        _positive(length=length, step_tokens=step_tokens)
        self.tokens, self.seed = tokens, seed
        self.starts, self.lengths, self.documents = _pieces(tokens, length, bare=True, least=2)
        if self.documents[0] == self.documents[-1]:
            raise InputError(
                "next-sentence prediction needs a second document to take texts from; the corpus "
                "has one: split it into documents"
            )
        self.order = TokenOrder(self.lengths, step_tokens, seed)

    def sample(self, epoch: int, number: int) -> Sample:
        draw = generator("pair", self.seed, epoch, number)
        start, length = int(self.starts[number]), int(self.lengths[number])
        cut = 1 + _below(length - 1, draw)
        ids, document = self.tokens.take(start, start + cut), int(self.documents[number])
        label = (epoch + number) % 2
        if label:
            second = self._elsewhere(document, length - cut, draw)
        else:
            second = self.tokens.take(start + cut, start + length)
        key = (epoch, number)
        return Sample(key, ids, second=second, label=label, document=document, start=start)

    def _elsewhere(self, document: int, length: int, draw: torch.Generator) -> Tensor:
        """At most ``length`` tokens out of a piece of another document."""
        first, last = np.searchsorted(self.documents, [document, document + 1])
        number = _below(len(self.documents) - int(last - first), draw)
        number += int(last - first) if number >= first else 0
        size = min(length, int(self.lengths[number]))
        start = int(self.starts[number]) + _below(int(self.lengths[number]) - size + 1, draw)
        return self.tokens.take(start, start + size)


def _below(limit: int, draw: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=draw))


class TextPairs(Draw):
    """Translation pairs: the documents of ``tokens`` are source and target by turns.

    A step takes about ``step_tokens`` tokens, both sides counted, or exactly ``rows`` pairs.
    longest: pairs with a side of more tokens than this, its end token counted, are left out;
    ``left_out`` says how many.
    """

    def __init__(
        self,
        tokens: Tokens,
        step_tokens: float | None,
        seed: int = 0,
        *,
        rows: int | None = None,
        longest: int | None = None,
    ) -> None:
        if (step_tokens is None) == (rows is None):
            raise InputError(f"step_tokens {step_tokens}, rows {rows}: give one of the two")
        if len(tokens) % 2:
            raise InputError(
                f"{len(tokens)} texts are not pairs: a source is without its target; give as many "
                "targets as sources"
            )
        self._before = 0 if tokens.separator is None else 1
        sides = (tokens.lengths - self._before).reshape(-1, 2)  # (pairs, 2)
        fits = np.full(len(sides), True) if longest is None else sides.max(1) < longest
        self.tokens, self.left_out = tokens, int((~fits).sum())
        self.pairs = np.flatnonzero(fits)
        if not len(self.pairs):
            raise InputError(
                f"none of {len(sides):,} pairs has at most {longest} tokens on each side; give "
                "more pairs or a greater length"
            )
        sizes = np.maximum(1, sides.sum(1)[self.pairs])
        if rows is not None:
            _positive(rows=rows)
            self.order = CountOrder(len(sizes), rows, float(sizes.mean()), seed)
        else:
            assert step_tokens is not None
            _positive(step_tokens=step_tokens)
            self.order = TokenOrder(sizes, step_tokens, seed)

    def sample(self, epoch: int, number: int) -> Sample:
        source = 2 * int(self.pairs[number])
        start, middle = self.tokens.starts[source : source + 2].tolist()
        stop = middle + int(self.tokens.lengths[source + 1])
        both = self.tokens.take(start, stop)
        ids, second = both[self._before : middle - start], both[middle - start + self._before :]
        return Sample((epoch, number), ids, second=second, document=source, start=start)


class Mixture(Draw):
    """Several draws, each with its share of every step's tokens, in proportion to the weights.

    From the first step on, each draw's tokens are within one sample of its share. Keys begin with
    the number of the draw. ``draws`` have the size of the whole step each.
    """

    def __init__(self, draws: Sequence[Draw], weights: Sequence[float]) -> None:
        if not draws or len(draws) != len(weights) or min(weights) < 0 or not sum(weights) > 0:
            raise InputError(
                f"weights {list(weights)} for {len(draws)} sources: give one for each, at least 0, "
                "not all of them 0"
            )
        whole = sum(weights)
        self.parts = {
            i: draw.share(weight / whole)
            for i, (draw, weight) in enumerate(zip(draws, weights))
            if weight
        }

    def samples(self, step: int) -> list[Sample]:
        return [s for i, part in self.parts.items() for s in _renamed(i, part.samples(step))]

    def epoch(self, epoch: int) -> Iterator[list[Sample]]:
        """Every sample of every draw once, by turns: who stops early has read of each its share."""
        turns = zip_longest(*(part.epoch(epoch) for part in self.parts.values()))
        return (_renamed(i, found) for turn in turns for i, found in zip(self.parts, turn) if found)

    def share(self, weight: float) -> Mixture:
        part = copy.copy(self)
        part.parts = {i: draw.share(weight) for i, draw in self.parts.items()}
        return part

    @property
    def step_tokens(self) -> float:
        return sum(part.step_tokens for part in self.parts.values())

    @property
    def fewest(self) -> int:
        return sum(part.fewest for part in self.parts.values())

    @property
    def left_out(self) -> int:  # type: ignore[override]
        return sum(part.left_out for part in self.parts.values())

    @property
    def steps_per_epoch(self) -> float:
        """Until every draw has been read once."""
        return max(part.steps_per_epoch for part in self.parts.values())


def _renamed(number: int, samples: list[Sample]) -> list[Sample]:
    return [dataclasses.replace(sample, key=(number, *sample.key)) for sample in samples]


def _positive(**settings: float) -> None:
    for name, value in settings.items():
        if not value >= 1:
            raise InputError(f"{name} {value} must be at least 1")

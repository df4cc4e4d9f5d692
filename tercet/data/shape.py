"""Shapes: samples become a batch over the flat token stream, whatever family is trained.

Randomness is keyed by what it is for, the seed and the sample, so that no cut of a step changes a
batch's content. Knows neither networks nor losses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from tercet.data import spans
from tercet.data.draw import Sample
from tercet.data.masking import Masking
from tercet.data.order import generator
from tercet.errors import InputError
from tercet.model.layout import Layout
from tercet.text import Tokenizer
from tercet.text.spellings import WAYS, Spellings


@dataclass(frozen=True, eq=False)
class Batch:
    """What an objective sees. ``select``: the rows of the stream that ``targets`` belong to;
    None: all of them, or none where ``labels`` of the sequences are all that is to be learned.

    ``source`` and its layout are what the encoder of an encoder-decoder reads. ``types``: which
    text of a pair each token belongs to. ``groups``: how many sequences, one behind the other,
    belong together, where that is what is to be learned; ``labels`` are what is known of them.
    ``advantages``: how much likelier each target should become; then ``labels`` are what is told
    of the sequences beside. ``reference``: what another model says of the targets, in nats.
    """

    tokens: Tensor  # (N,)
    layout: Layout
    targets: Tensor  # (n_targets,)
    select: Tensor | None = None  # (n_targets,)
    source: Tensor | None = None  # (M,)
    source_layout: Layout | None = None
    types: Tensor | None = None  # (N,)
    labels: Tensor | None = None  # (B,), (B, labels) or (groups,)
    advantages: Tensor | None = None  # (n_targets,)
    reference: Tensor | None = None  # (n_targets,)
    groups: tuple[int, ...] = ()
    keys: tuple[tuple[int, ...], ...] = ()  # the key of each sample

    @property
    def n_targets(self) -> int:
        return self.targets.numel()

    @property
    def counts(self) -> tuple[int, ...]:
        """What each term of the loss is a sum over: tokens, labels, both, or groups."""
        if self.groups:
            return (len(self.groups),)
        if self.labels is None or self.advantages is not None:
            return (self.targets.numel(),)
        tokens = () if self.select is None else (self.targets.numel(),)
        return (*tokens, self.labels.numel())

    @property
    def n_tokens(self) -> int:
        """Tokens read, on both sides: what tokens per second counts."""
        return self.tokens.numel() + (0 if self.source is None else self.source.numel())

    def to(self, device: torch.device | str) -> Batch:
        device = torch.device(device)
        if self.tokens.device == device:
            return self
        moved = {
            field.name: value.to(device)
            if isinstance(value, Tensor)
            else Layout(value.lengths, value.past, device)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor | Layout)
        }
        return dataclasses.replace(self, **moved)


class Shape(Protocol):
    """How samples are read and what is to be learned of them."""

    @property
    def added(self) -> int:
        """Tokens that a sequence has more than its text, at most."""
        ...

    def batch(self, samples: Sequence[Sample]) -> Batch: ...


@dataclass(frozen=True)
class Causal:
    """The next token at every place. Where nothing follows a text, its last token has no target."""

    @property
    def added(self) -> int:
        return 0

    def batch(self, samples: Sequence[Sample]) -> Batch:
        layout = Layout([sample.ids.numel() for sample in samples])
        tokens = torch.cat([sample.ids for sample in samples])
        targets = [_next(sample) for sample in samples]
        select = None
        if any(after.numel() < n for after, n in zip(targets, layout.lengths)):
            rows = [at + torch.arange(t.numel()) for at, t in zip(layout.starts, targets)]
            select = torch.cat(rows)
        return Batch(tokens, layout, torch.cat(targets), select, keys=_keys(samples))


def _next(sample: Sample) -> Tensor:
    assert sample.targets is not None, "this draw has no next tokens"
    return sample.targets


@dataclass(frozen=True)
class Masked:
    """Texts with some tokens hidden, which are the only targets; other ones in every epoch.

    The masking's [CLS] and [SEP] stand around a text, [CLS] a [SEP] b [SEP] around two.
    ``next_sentence``: whether the second one follows is to be learned too.
    """

    masking: Masking
    seed: int = 0
    next_sentence: bool = False

    def __post_init__(self) -> None:
        if self.next_sentence and (self.masking.cls_id is None or self.masking.sep_id is None):
            raise InputError(
                "next-sentence prediction needs a tokenizer with [CLS] and [SEP]; train one with "
                "the special tokens of an encoder"
            )

    @property
    def added(self) -> int:
        return self._cls.numel() + self._sep.numel() * (2 if self.next_sentence else 1)

    def batch(self, samples: Sequence[Sample]) -> Batch:
        parts = [self._parts(sample) for sample in samples]
        layout = Layout([sum(part.numel() for part in sequence) for sequence in parts])
        whole = torch.cat([part for sequence in parts for part in sequence])
        noise = [
            torch.rand(3, n, dtype=torch.float64, generator=generator("mask", self.seed, *s.key))
            for s, n in zip(samples, layout.lengths)
        ]
        read, chosen = self.masking(whole, layout.first, torch.cat(noise, 1))
        select = chosen.nonzero().flatten()
        return Batch(
            read,
            layout,
            whole[select],
            select,
            types=self._types(samples) if any(s.second is not None for s in samples) else None,
            labels=torch.tensor([s.label for s in samples]) if self.next_sentence else None,
            keys=_keys(samples),
        )

    def _parts(self, sample: Sample) -> list[Tensor]:
        second = [] if sample.second is None else [sample.second, self._sep]
        return [self._cls, sample.ids, self._sep, *second]

    def _types(self, samples: Sequence[Sample]) -> Tensor:
        """(N,) 1 for the second text and its end."""
        ends = self._sep.numel()
        first = [self._cls.numel() + s.ids.numel() + ends for s in samples]
        second = [0 if s.second is None else s.second.numel() + ends for s in samples]
        lengths = torch.tensor([first, second]).T.flatten()  # (2 B,)
        return (torch.arange(len(lengths)) % 2).repeat_interleave(lengths)

    @cached_property
    def _cls(self) -> Tensor:
        return _one(self.masking.cls_id)

    @cached_property
    def _sep(self) -> Tensor:
        return _one(self.masking.sep_id)


@dataclass(frozen=True)
class Translation:
    """Pairs for an encoder-decoder. The decoder reads ``start_id`` and the target, and should say
    the target and ``end_id``; sources end with ``end_id`` too.

    ``spellings`` of source and target: words are spelled otherwise in every epoch, as far as a text
    then has at most ``longest`` tokens.
    """

    start_id: int
    end_id: int
    spellings: tuple[Spellings, Spellings] | None = None
    longest: int | None = None
    seed: int = 0

    @property
    def added(self) -> int:
        return 1

    def batch(self, samples: Sequence[Sample]) -> Batch:
        pairs = [(self._spelled(s, s.ids, 0), self._spelled(s, _second(s), 1)) for s in samples]
        return _both_sides(pairs, self.start_id, self.end_id, samples)

    def _spelled(self, sample: Sample, ids: Tensor, side: int) -> Tensor:
        if self.spellings is None:
            return ids
        draw = generator("spelling", self.seed, side, *sample.key)
        choices = torch.randint(WAYS, (ids.numel(),), generator=draw).tolist()
        other = self.spellings[side].respelled(ids.tolist(), choices)
        if self.longest is not None and len(other) + self.added > self.longest:
            return ids
        return torch.tensor(other, dtype=ids.dtype)


def _second(sample: Sample) -> Tensor:
    assert sample.second is not None, "this draw has no pairs"
    return sample.second


@dataclass(frozen=True)
class Spans:
    """T5's span corruption: the encoder reads a text in which each dropped span is one sentinel,
    the decoder should say each sentinel and what it stands for."""

    sentinels: tuple[int, ...]
    start_id: int
    end_id: int
    seed: int = 0
    rate: float = spans.RATE
    length: float = spans.LENGTH

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1 or self.length < 1:
            raise InputError(
                f"spans of {self.length} tokens over {self.rate} of a text: the length must be at "
                "least 1, the share above 0 and below 1"
            )

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        *,
        start_id: int,
        seed: int = 0,
        rate: float = spans.RATE,
        length: float = spans.LENGTH,
    ) -> Spans:
        """With the tokenizer's sentinels and end. Raises InputError where it has no end token."""
        if tokenizer.eos_id is None:
            raise InputError(
                "the tokenizer has no token that ends a text; train one with the special tokens of "
                "an encoder-decoder"
            )
        marks = spans.sentinels(tokenizer)
        return cls(marks, start_id, tokenizer.eos_id, seed, rate, length)

    @property
    def added(self) -> int:
        return 1

    def lengths(self, n_tokens: int) -> tuple[int, int]:
        """Tokens that the encoder and the decoder read of a text of ``n_tokens``."""
        dropped, n_spans = spans.amounts(n_tokens, self.rate, self.length)
        return n_tokens - dropped + n_spans + 1, dropped + n_spans + 1

    def batch(self, samples: Sequence[Sample]) -> Batch:
        pairs = [spans.corrupt(self.parts(sample), self._marks) for sample in samples]
        return _both_sides(pairs, self.start_id, self.end_id, samples)

    def parts(self, sample: Sample) -> tuple[Tensor, ...]:
        """What is kept, dropped, kept, dropped ... of a text; a text of one token is kept."""
        draw = generator("spans", self.seed, *sample.key)
        n = sample.ids.numel()
        return sample.ids.split(spans.span_lengths(n, self.rate, self.length, draw))

    @cached_property
    def _marks(self) -> Tensor:
        return torch.tensor(self.sentinels)


def _both_sides(
    pairs: Sequence[tuple[Tensor, Tensor]], start_id: int, end_id: int, samples: Sequence[Sample]
) -> Batch:
    """What is said is what is read, a token later."""
    start, end = _one(start_id), _one(end_id)
    return Batch(
        torch.cat([ids for _, target in pairs for ids in (start, target)]),
        Layout([1 + target.numel() for _, target in pairs]),
        torch.cat([ids for _, target in pairs for ids in (target, end)]),
        source=torch.cat([ids for source, _ in pairs for ids in (source, end)]),
        source_layout=Layout([source.numel() + 1 for source, _ in pairs]),
        keys=_keys(samples),
    )


def _keys(samples: Sequence[Sample]) -> tuple[tuple[int, ...], ...]:
    return tuple(sample.key for sample in samples)


def _one(token: int | None) -> Tensor:
    return torch.tensor([] if token is None else [token], dtype=torch.int64)

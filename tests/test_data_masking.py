"""What is hidden from a network: rates, whole words for every kind of tokenizer, and spans."""

from __future__ import annotations

import math
import re
from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tercet.data import Batch, Masked, Masking, Pieces, SentencePairs, Spans, Stream, Tokens
from tercet.data.masking import Words
from tercet.data.order import generator
from tercet.data.spans import amounts, sentinels, span_lengths
from tercet.errors import InputError
from tercet.jobs.quickstart.corpus import topics
from tercet.text import Special, Tokenizer, train_tokenizer
from tercet.text.words import word_pieces

MILLION = 1_000_000
KINDS = ("wordpiece", "bpe", "unigram")


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    texts = list(topics().values())
    return train_tokenizer(texts, kind=kind, vocab_size=900, special="encoder")  # type: ignore[arg-type]


@cache
def corpus_of(kind: str) -> Tokens:
    """Real text, again and again, a million tokens."""
    documents = tokenizer_of(kind).encode_batch(list(topics().values()), special=False)
    repeats = -(-MILLION // sum(map(len, documents)))
    return Tokens.of(documents * repeats, None)


def words_of(kind: str, ids: list[int]) -> list[tuple[int, ...]]:
    """The places of each word's tokens, found in the text and not in the vocabulary's pieces."""
    tokenizer = tokenizer_of(kind)
    if kind == "wordpiece":
        groups: list[tuple[int, ...]] = []
        for place, piece in enumerate(tokenizer.pieces(ids)):
            inside = piece.startswith("##") and bool(groups)
            groups[-1:] = [(*groups[-1], place)] if inside else [*groups[-1:], (place,)]
        return groups
    data = [(tokenizer.written(token) or (b"?", None))[0] for token in ids]
    places = [place for place, part in enumerate(data) for _ in part]  # of each byte
    text = b"".join(data).decode(errors="surrogateescape")
    edges = [0]  # where each character begins among the bytes
    for character in text:
        edges.append(edges[-1] + len(character.encode(errors="surrogateescape")))
    return [
        tuple(sorted(set(places[edges[word.start()] : edges[word.end()]])))
        for word in re.finditer("[^\\W_]+", text)
    ]


def within(count: int, among: int, rate: float) -> None:
    """At most three standard deviations from the rate."""
    deviation = math.sqrt(among * rate * (1 - rate))
    assert abs(count - among * rate) <= 3 * deviation, (count, among * rate, deviation)


def samples_and_batch(kind: str, masking: Masking) -> tuple[Batch, Tensor]:
    """One step of a million tokens, and what they were."""
    stream = Stream(Pieces(corpus_of(kind), 510, MILLION, seed=7), Masked(masking, seed=7))
    (batch,) = stream(0)
    ends = [torch.tensor([token]) for token in (masking.cls_id, masking.sep_id)]
    samples = stream.samples(0)
    return batch, torch.cat([part for s in samples for part in (ends[0], s.ids, ends[1])])


@pytest.mark.parametrize(("kind", "whole"), list(product(KINDS, (False, True))))
def test_rates_over_a_million_tokens(kind: str, whole: bool):
    masking = Masking.of(tokenizer_of(kind), whole_words=whole)
    batch, original = samples_and_batch(kind, masking)
    assert batch.select is not None and batch.n_tokens >= MILLION
    assert torch.equal(original[batch.select], batch.targets)
    free = ~torch.isin(original, torch.tensor(masking.protected))
    assert free[batch.select].all()
    kept = torch.ones(len(original), dtype=torch.bool)
    kept[batch.select] = False
    assert torch.equal(batch.tokens[kept], original[kept])
    # words are chosen as a whole: the variance is that of their lengths' squares
    sizes = torch.cat([_sizes(masking, row) for row in batch.layout.split(original)]).double()
    deviation = math.sqrt(0.15 * 0.85 * float((sizes**2).sum()))
    assert int(free.sum()) == int(sizes.sum()) and (sizes.max() > 3 if whole else sizes.max() == 1)
    assert abs(len(batch.targets) - 0.15 * float(free.sum())) <= 3 * deviation
    read, n = batch.tokens[batch.select], len(batch.targets)
    size = masking.vocab_size
    within(int((read == masking.mask_id).sum()), n, 0.8 + 0.1 / size)
    within(int((read == batch.targets).sum()), n, 0.1 + 0.1 / size)
    swapped = read[(read != masking.mask_id) & (read != batch.targets)]
    within(int((swapped < size // 2).sum()), len(swapped), (size // 2) / size)


def _sizes(masking: Masking, row: Tensor) -> Tensor:
    """How many free tokens each unit of a row has, specials left out."""
    free = ~torch.isin(row, torch.tensor(masking.protected))
    counts = torch.bincount(masking.units(row, torch.tensor([0]))[free])
    return counts[counts > 0]


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_masked_whole(kind: str):
    masking = Masking.of(tokenizer_of(kind), whole_words=True)
    stream = Stream(Pieces(corpus_of(kind), 400, 40_000, seed=1), Masked(masking, seed=1))
    (batch,) = stream(0)
    hidden = torch.zeros(batch.n_tokens, dtype=torch.bool)
    hidden[batch.select] = True
    mixed = long = 0
    for sample, places, read in zip(
        stream.samples(0), batch.layout.split(hidden), batch.layout.split(batch.tokens)
    ):
        ids = sample.ids.tolist()
        for word in words_of(kind, ids):
            if any(ids[place] in masking.protected for place in word):
                continue
            chosen = {bool(places[1 + place]) for place in word}
            assert len(chosen) == 1, [tokenizer_of(kind).pieces([ids[place]]) for place in word]
            if chosen == {True} and len(word) > 1:
                long += 1
                # mask, random or kept is drawn token by token, as in the paper's code
                mixed += len({bool(read[1 + p] == masking.mask_id) for p in word}) == 2
    assert long > 200 and mixed > long / 10


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("wordpiece", "unbelievably (well-read) folks, aren't", 11),
        ("bpe", " unbelievably (well-read) folks, snake_case 3.14!", 15),
        ("bpe", "naïve привет", 2),  # letters that are cut into bytes stay together
        ("bpe", "中文", 2),  # and characters without spaces are words by themselves
        ("bpe", " 中文", 3),  # a space that belongs to no word
    ],
)
def test_how_many_words_there_are(kind: str, text: str, expected: int):
    tokenizer = tokenizer_of(kind)
    ids = torch.tensor(tokenizer.encode(text, special=False))
    starts = Words(word_pieces(tokenizer)).starts(ids)
    shown = [
        ("|" if start else "") + piece
        for start, piece in zip(starts.tolist(), tokenizer.pieces(ids.tolist()))
    ]
    assert int(starts.sum()) == expected, "".join(shown)


def test_no_word_reaches_into_the_next_text_or_across_a_special_token():
    tokenizer = tokenizer_of("bpe")
    one, mask = tokenizer.encode("e", special=False), tokenizer.mask_id
    masking = Masking.of(tokenizer, whole_words=True)
    ids = torch.tensor([*one, *one, *one, *one, mask, *one])
    assert masking.units(ids, torch.tensor([0])).tolist() == [0, 0, 0, 0, 4, 5]
    assert masking.units(ids, torch.tensor([0, 2])).tolist() == [0, 0, 2, 2, 4, 5]


def test_masks_change_with_the_epoch_and_with_nothing_else():
    tokenizer = tokenizer_of("bpe")
    masked = Masked(Masking.of(tokenizer), seed=1)
    draw = Pieces(corpus_of("bpe"), 100, 1000)
    first, later = draw.sample(0, 5), draw.sample(1, 5)
    assert torch.equal(first.ids, later.ids)
    assert torch.equal(masked.batch([first]).tokens, masked.batch([draw.sample(0, 5)]).tokens)
    assert not torch.equal(masked.batch([first]).select, masked.batch([later]).select)  # type: ignore[arg-type]
    other = Masked(Masking.of(tokenizer), seed=2).batch([first])
    assert not torch.equal(masked.batch([first]).select, other.select)  # type: ignore[arg-type]


def test_pairs_have_types_and_labels():
    tokenizer = tokenizer_of("wordpiece")
    masked = Masked(Masking.of(tokenizer), seed=1, next_sentence=True)
    draw = SentencePairs(corpus_of("wordpiece"), 20, 200)
    samples = draw.samples(0)
    batch = masked.batch(samples)
    assert batch.types is not None and batch.labels is not None and batch.select is not None
    assert batch.labels.tolist() == [sample.label for sample in samples]
    assert batch.counts == (len(batch.targets), len(samples)) and masked.added == 3
    original = batch.tokens.clone()
    original[batch.select] = batch.targets
    for sample, ids, types in zip(
        samples, batch.layout.split(original), batch.layout.split(batch.types)
    ):
        assert sample.second is not None
        first, second = sample.ids.tolist(), sample.second.tolist()
        assert ids.tolist() == [
            *(tokenizer.cls_id, *first, tokenizer.sep_id),
            *(*second, tokenizer.sep_id),
        ]
        assert types.tolist() == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    plain = train_tokenizer(["a b c"] * 9, vocab_size=300, special=Special({"mask": "<mask>"}))
    with pytest.raises(InputError, match=r"needs a tokenizer with \[CLS\] and \[SEP\]"):
        Masked(Masking.of(plain), next_sentence=True)
    assert Masked(Masking.of(plain)).added == 0


def test_a_tokenizer_without_a_mask_and_a_rate_of_nothing():
    with pytest.raises(InputError, match="has no mask token"):
        Masking.of(train_tokenizer(["a b c"] * 9, vocab_size=300))
    with pytest.raises(InputError, match="rate of 0"):
        Masking(0, 9, rate=0)


# spans -------------------------------------------------------------------------------------------


def test_the_lengths_are_the_papers():
    """Raffel et al. 2020: 512 tokens are read and 114 said of 568, in their code's own count."""
    spans = Spans((9, 8, 7), start_id=0, end_id=1)
    assert spans.lengths(568) == (512, 114)
    assert amounts(568) == (85, 28) and amounts(1) == (0, 0) and amounts(2) == (1, 1)
    assert amounts(4, rate=0.9) == (3, 1) and amounts(10, rate=0.9, length=1) == (9, 1)


@given(
    n=st.integers(0, 400),
    rate=st.floats(0.05, 0.95),
    length=st.floats(1, 12),
    seed=st.integers(0, 9),
)
@settings(max_examples=100, deadline=None)
def test_kept_and_dropped_spans_fill_the_text(n: int, rate: float, length: float, seed: int):
    parts = span_lengths(n, rate, length, generator("x", seed))
    dropped, spans = amounts(n, rate, length)
    assert sum(parts) == n and all(part > 0 for part in parts)
    assert sum(parts[1::2]) == dropped and len(parts[1::2]) == spans
    assert len(parts) == 2 * spans or n < 2


def test_rates_and_lengths_of_spans_over_a_million_tokens():
    draws = [span_lengths(512, 0.15, 3.0, generator("x", i)) for i in range(MILLION // 512 + 1)]
    dropped = [n for parts in draws for n in parts[1::2]]
    assert abs(sum(dropped) / sum(map(sum, draws)) - 0.15) < 0.15 / 512 * 4  # rounded once a text
    assert abs(sum(dropped) / len(dropped) - 3.0) < 3.0 / 25
    # 77 tokens in 26 spans, all ways equally probable: a span is 1 long with 25 of 76
    within(sum(n == 1 for n in dropped), len(dropped), 25 / 76)


@pytest.mark.parametrize(("items", "parts"), [(4, 2), (5, 3), (6, 6)])
def test_all_ways_to_cut_are_equally_probable(items: int, parts: int):
    """Kept and dropped spans alike; 2 × items tokens, half of them dropped, in ``parts`` spans."""
    draw, n = generator("cut"), 3000
    found: dict[tuple[int, ...], int] = {}
    for _ in range(n):
        lengths = span_lengths(2 * items, 0.5, items / parts, draw)
        for way in (tuple(lengths[::2]), tuple(lengths[1::2])):
            assert len(way) == parts and sum(way) == items
            found[way] = found.get(way, 0) + 1
    ways = math.comb(items - 1, parts - 1)
    assert len(found) == ways
    for count in found.values():
        assert abs(count - 2 * n / ways) <= 4 * math.sqrt(2 * n / ways)


def test_source_and_target_make_the_text_again():
    marks = tuple(range(999, 899, -1))  # beyond the vocabulary, so that none occurs in the text
    shape = Spans(marks, start_id=0, end_id=1, seed=3)
    for sample in Pieces(corpus_of("bpe"), 300, 3000).samples(0):
        batch = shape.batch([sample])
        assert batch.source is not None
        assert (batch.source.numel(), batch.tokens.numel()) == shape.lengths(len(sample.ids))
        assert batch.tokens.tolist() == [0, *batch.targets.tolist()[:-1]]
        said = batch.targets.tolist()
        assert said[-1] == 1 and batch.source.tolist()[-1] == 1
        hidden: dict[int, list[int]] = {}
        for token in said[:-1]:
            if token == marks[len(hidden)]:
                hidden[token] = span = []
            else:
                span.append(token)
        text = [t for x in batch.source.tolist()[:-1] for t in hidden.get(x, [x])]
        assert text == sample.ids.tolist()


def test_spans_change_with_the_epoch_and_with_nothing_else():
    shape, draw = Spans(tuple(range(900, 950)), 0, 1), Pieces(corpus_of("bpe"), 100, 1000)
    lengths = [
        [len(part) for part in shape.parts(draw.sample(epoch, number))]
        for epoch, number in ((0, 5), (1, 5), (0, 6), (0, 5))
    ]
    assert lengths[0] == lengths[3] and lengths[0] not in lengths[1:3]


def test_sentinels_are_the_extra_ids_or_the_last_ids():
    extra = tuple(f"<extra_id_{i}>" for i in range(3))
    special = Special({"eos": "</s>"}, extra=extra)
    tokenizer = train_tokenizer(["a b c"] * 9, vocab_size=300, special=special)
    assert sentinels(tokenizer) == tuple(tokenizer.id_of(token) for token in extra)
    plain = tokenizer_of("bpe")
    size = plain.vocab_size
    assert sentinels(plain, 3) == (size - 1, size - 2, size - 3)
    with pytest.raises(InputError, match="28 spans to drop, and there are 3 sentinels"):
        tokens = Tokens.of([[5] * 568], None)
        Spans.of(tokenizer, start_id=0).batch(Pieces(tokens, 600, 600).samples(0))
    with pytest.raises(InputError, match="no token that ends a text"):
        Spans.of(plain, start_id=0)
    with pytest.raises(InputError, match="the length must be at least 1"):
        Spans((1,), 0, 1, length=0.5)

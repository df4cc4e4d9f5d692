"""Other spellings of words: they say the same, and are a pure function of seed and sample."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.data import Translation
from tercet.data.draw import Sample
from tercet.errors import InputError
from tercet.text import Tokenizer, train_tokenizer
from tercet.text.spellings import WAYS, Spellings

TEXTS = ["the lower the newest, the widest: 1999's low-new wide lowest", "naïve 你好 🙂 wider"] * 40


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, vocab_size=300, special="encoder-decoder")


@given(st.text(), st.integers(0, WAYS - 1), st.sampled_from([0.0, 0.1, 0.5, 0.9]))
def test_another_spelling_is_the_same_text(tokenizer, text, way, dropout):
    ids = tokenizer.encode(text, special=False)
    found = Spellings(tokenizer, dropout).respelled(ids, [way] * len(ids))
    assert tokenizer.decode(found) == tokenizer.decode(ids)
    if not dropout:
        assert found == ids


def test_words_are_whole_and_special_tokens_stand(tokenizer):
    ids = tokenizer.encode("the lowest</s>", special=False)
    spelled = Spellings(tokenizer, 0.5)
    words = [tokenizer.decode(word, skip_special=False) for word in spelled.words(ids)]
    assert words == ["the", " lowest", "</s>"]
    assert set(spelled.ways((tokenizer.eos_id,))) == {(tokenizer.eos_id,)}


def test_merges_are_left_out_as_often_as_said(tokenizer):
    """A word of 7 characters: of its 6 merges a share p is refused at each try."""
    word = tuple(tokenizer.encode(" newest", special=False))
    mean = {}
    for dropout in (0.0, 0.1, 0.5, 1 - 1e-9):
        found = [w for seed in range(60) for w in Spellings(tokenizer, dropout, seed).ways(word)]
        mean[dropout] = sum(map(len, found)) / len(found)
    assert mean[0.0] == len(word) and mean[1 - 1e-9] == 7
    assert mean[0.0] < mean[0.1] < mean[0.5] < 7


def test_the_same_seed_spells_the_same(tokenizer):
    word = tuple(tokenizer.encode(" lowest", special=False))
    one, same, other = (Spellings(tokenizer, 0.4, seed).ways(word) for seed in (1, 1, 2))
    assert one == same != other and len(set(one)) > 1


def test_a_batch_is_spelled_by_its_keys(tokenizer):
    """The same sample and epoch, the same spelling; another epoch, another; nothing too long."""
    texts = ["the lowest, the newest", "wider"]
    ids = [torch.tensor(tokenizer.encode(text, special=False)) for text in texts]
    samples = [Sample((epoch, 0), ids[0], second=ids[1]) for epoch in range(8)]
    spelled = Spellings(tokenizer, 0.5)
    shape = Translation(0, 1, (spelled, spelled), longest=24, seed=3)
    whole = shape.batch(samples)
    read = [tuple(part.tolist()) for part in whole.source_layout.split(whole.source)]
    assert len(set(read)) > 4 and {tokenizer.decode(one) for one in read} == {texts[0]}
    again = shape.batch(samples[3:5])
    assert torch.equal(torch.cat(whole.source_layout.split(whole.source)[3:5]), again.source)
    plain = Translation(0, 1).batch(samples)
    short = dataclasses.replace(shape, longest=len(ids[0]) + 1).batch(samples)
    assert max(short.source_layout.lengths) <= len(ids[0]) + 1 < max(whole.source_layout.lengths)
    assert max(plain.source_layout.lengths) == len(ids[0]) + 1


def test_only_byte_pairs_can_be_respelled():
    words = train_tokenizer(TEXTS, kind="wordpiece", vocab_size=200, special="encoder")
    with pytest.raises(InputError, match="bpe_dropout 0.1 is for byte-level BPE.*WordPiece"):
        Spellings(words, 0.1)

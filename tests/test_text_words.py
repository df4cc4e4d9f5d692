"""Where words begin, for every way in which a vocabulary marks it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tercet.text import Tokenizer, train_tokenizer
from tercet.text.words import ALONE, INSIDE, Piece, word_pieces

JOINS = Piece(begins=False, joins=True, open=True)
BEGINS = Piece(begins=True, joins=False, open=True)


def saved(folder: Path, vocabulary: dict[str, int], merges: str, **model: object) -> Tokenizer:
    """A tokenizer.json with a BPE model as given."""
    spelled = {"type": "BPE", "vocab": vocabulary, "merges": merges.split("\n"), **model}
    plain = dict.fromkeys(("normalizer", "post_processor", "truncation", "padding"))
    content = {"version": "1.0", "added_tokens": [], **plain, "model": spelled}
    content |= {"pre_tokenizer": {"type": "Whitespace"}, "decoder": None}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return Tokenizer.load(folder)


def kinds(tokenizer: Tokenizer, *tokens: str) -> list[Piece]:
    pieces = word_pieces(tokenizer)
    assert len(pieces) == tokenizer.vocab_size
    numbers = [tokenizer.id_of(token) for token in tokens]
    assert None not in numbers, numbers
    return [pieces[number] for number in numbers if number is not None]


def test_wordpieces_say_it_themselves():
    tokenizer = train_tokenizer(
        ["walking talking H₂O, walked!"] * 9, kind="wordpiece", vocab_size=90, special="encoder"
    )
    assert kinds(tokenizer, "[CLS]", "w", "##i", "##₂", ",") == [ALONE] * 2 + [INSIDE] * 2 + [ALONE]


def test_bytes_are_read_as_text():
    tokenizer = train_tokenizer(["a café, “naïve” 中 привет 😀 x2"] * 3, vocab_size=330)
    assert kinds(tokenizer, "Ġ", "Ċ", "a", "2", ",") == [BEGINS, ALONE, JOINS, JOINS, ALONE]
    # first bytes of é and п (letters), of “, 😀 and 中 (words by themselves); then later bytes
    assert kinds(tokenizer, "Ã", "Ð", "â", "ð", "ä") == [JOINS] * 2 + [BEGINS] * 3
    assert kinds(tokenizer, "©", "ł", "Ģ") == [INSIDE] * 3


def test_a_mark_at_the_end_of_words(tmp_path: Path):
    vocabulary = {"a": 0, "b": 1, "b</w>": 2, ",</w>": 3, "ab</w>": 4, "a</w>": 5, ",": 6}
    tokenizer = saved(tmp_path, vocabulary, "a b</w>", end_of_word_suffix="</w>")
    closes = Piece(begins=False, joins=True, open=False)
    assert kinds(tokenizer, "a", "b</w>", "ab</w>", ",</w>") == [JOINS, closes, closes, ALONE]


def test_sentence_pieces(tmp_path: Path):
    sentencepiece = pytest.importorskip("sentencepiece", reason="the extra [translate] is missing")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat, the hat. that 中文 cat"] * 40),
        model_writer=written,
        minloglevel=2,
        vocab_size=290,
        byte_fallback=True,
        hard_vocab_limit=False,
    )
    (tmp_path / "spiece.model").write_bytes(written.getvalue())
    tokenizer = Tokenizer.load(tmp_path)
    assert kinds(tokenizer, "▁", "▁cat", "t", "</s>") == [BEGINS, BEGINS, JOINS, ALONE]
    assert kinds(tokenizer, "中", "<0xC3>", "<0xA9>", "<0x2C>") == [BEGINS, JOINS, INSIDE, ALONE]


def test_words_of_characters():
    tokenizer = train_tokenizer(["a bc, d_e"] * 3, kind="characters", vocab_size=20)
    assert kinds(tokenizer, "a", ",", "_") == [JOINS, ALONE, ALONE]
    pieces = word_pieces(tokenizer)
    assert pieces[tokenizer.encode(" ", special=False)[0]] == BEGINS

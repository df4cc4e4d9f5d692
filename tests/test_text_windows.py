"""Words and questions as windows: the same tokens as `transformers`, and every one counts once."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import InputError
from tercet.text import Tokenizer, train_tokenizer
from tercet.text.windows import context_windows, pieces_of, word_windows
from tercet.text.words import words_in

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
TEXT = (
    "The U.S. didn't say: “naïve cafés” cost $1,000 – well-read people, (e.g. Zoë O'Brien) "
    "walked, walking and talked on https://t.co/x#y @you in 2021; 中文 字 привет 😀 x² ½."
)
SETS = {
    "wordpiece": ({"bert-base-uncased-vocab.txt": "vocab.txt"}, "BertTokenizer", {}),
    "bytes": (
        {"gpt2_encoder.json": "vocab.json", "gpt2_vocab.bpe": "merges.txt"},
        "GPT2Tokenizer",
        {"add_prefix_space": True},
    ),
}


def sentences(count: int) -> list[list[str]]:
    """Words as corpora cut them, punctuation apart or not."""
    draw = random.Random(3)
    words = [*TEXT.split(), *(TEXT[slice(*place)] for place in words_in(TEXT)), "n't", "[MASK]"]
    return [draw.choices(words, k=draw.randrange(1, 30)) for _ in range(count)]


@pytest.mark.parametrize("kind", SETS)
def test_words_have_the_pieces_that_transformers_gives_them(kind: str, tmp_path: Path) -> None:
    files, oracle_class, settings = SETS[kind]
    for theirs, usual in files.items():
        if not (DATA / "tokenizers" / theirs).is_file():
            pytest.skip(f"{DATA / 'tokenizers' / theirs} is not there; set TERCET_DATA")
        shutil.copy(DATA / "tokenizers" / theirs, tmp_path / usual)
    oracle = getattr(transformers, oracle_class).from_pretrained(tmp_path, **settings)
    _same_pieces(Tokenizer.load(tmp_path), oracle)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_words_of_our_own_tokenizers(kind: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer([TEXT] * 5, kind=kind, vocab_size=400, special="encoder")
    tokenizer.save(tmp_path)
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    if kind == "wordpiece":
        return _same_pieces(tokenizer, oracle)
    # nothing tells this class of theirs that words are to stand behind a space
    spaced = oracle([f" {word}" for word in TEXT.split()], add_special_tokens=False)["input_ids"]
    assert pieces_of(tokenizer, [TEXT.split()])[0] == spaced


def _same_pieces(tokenizer: Tokenizer, oracle) -> None:
    for words, pieces in zip(sentences(200), pieces_of(tokenizer, sentences(200)), strict=True):
        theirs = oracle(words, is_split_into_words=True)
        (window,) = word_windows(pieces, 10_000, tokenizer.around)
        assert window.ids == theirs["input_ids"]
        owners = theirs.word_ids()
        assert window.places == [owners.index(word) for word in window.words]
        assert window.words == range(len(words))


def test_a_word_of_which_nothing_is_left_is_an_unknown_one() -> None:
    tokenizer = train_tokenizer([TEXT], kind="wordpiece", vocab_size=200, special="encoder")
    pieces = pieces_of(tokenizer, [["The", "\x00", "\u200d"]])
    assert pieces[0][1:] == [[tokenizer.unk_id]] * 2
    tokenizer.unk_id = None
    with pytest.raises(InputError, match=r"sentence 2: of the word '\\x00' no token is left"):
        pieces_of(tokenizer, [["The"], ["\x00"]])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.integers(3, 30))
def test_every_word_counts_once_where_it_has_the_most_context(lengths: list[int], limit: int):
    pieces = [[100 + number] + [number] * (n - 1) for number, n in enumerate(lengths)]
    stream = [token for word in pieces for token in word]
    windows = word_windows(pieces, limit, ([1000], [1001]))
    assert [word for window in windows for word in window.words] == list(range(len(lengths)))
    for window in windows:
        assert len(window.ids) <= limit
        assert (window.ids[0], window.ids[-1]) == (1000, 1001)
        assert [window.ids[place] for place in window.places] == [100 + w for w in window.words]
    starts = [stream.index(100 + number) for number in range(len(lengths))]
    room, step = limit - 2, max(1, (limit - 2) // 2)
    ends = range(0, max(1, len(stream) - room + step), step)
    for window in windows:
        own = starts[window.words[0]] - (window.places[0] - 1)  # where the window begins
        for word in window.words:
            best = max(_context(starts[word], at, room, len(stream)) for at in ends)
            assert _context(starts[word], own, room, len(stream)) == best


def _context(place: int, start: int, room: int, length: int) -> float:
    """Tokens on the side that has fewer; a side that reaches the text's end lacks nothing."""
    stop = min(start + room, length)
    if not start <= place < stop:
        return -1
    left = place - start if start else float("inf")
    return min(left, stop - 1 - place if stop < length else float("inf"))


@pytest.fixture(scope="module", params=["wordpiece", "bpe"])
def tokenizer(request) -> Tokenizer:
    return train_tokenizer([TEXT] * 5, kind=request.param, vocab_size=400, special="encoder")


def test_a_question_and_its_context_in_one_window(tokenizer: Tokenizer) -> None:
    (window,) = context_windows(tokenizer, "Who talked?", TEXT, 1000)
    assert (window.ids, window.types) == tokenizer.encode_pair("Who talked?", TEXT)
    assert window.counts == window.context
    place = TEXT.index("walking")
    found = [i for i, (start, stop) in enumerate(window.characters) if start <= place < stop]
    piece = tokenizer.pieces([window.ids[window.context[found[0]]]])[0]
    assert len(found) == 1 and "walking".startswith(piece.strip("▁"))
    for start, stop in window.characters:
        assert TEXT[start:stop] == TEXT[start:stop].strip()


def test_a_long_context_slides_behind_the_question(tokenizer: Tokenizer) -> None:
    context = " ".join([TEXT] * 3)
    whole = context_windows(tokenizer, "Who?", context, 10_000)[0]
    windows = context_windows(tokenizer, "Who?", context, 48)
    head = whole.ids[: whole.context.start]
    counted = []
    for window in windows:
        assert len(window.ids) <= 48 and window.ids[: len(head)] == head
        assert window.ids[-1] == whole.ids[-1]
        assert len(window.types) == len(window.ids)
        at = whole.characters.index(window.characters[0])
        own = window.ids[window.context.start : window.context.stop]
        assert own == whole.ids[len(head) + at : len(head) + at + len(own)]
        counted += [place - window.context.start + at for place in window.counts]
    assert counted == list(range(len(whole.context))) and len(windows) > 3


def test_questions_that_cannot_be_asked(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="the question is empty"):
        context_windows(tokenizer, " ", TEXT, 100)
    with pytest.raises(InputError, match="the context of question 7 is empty"):
        context_windows(tokenizer, "Who?", "", 100, name="question 7")
    with pytest.raises(InputError, match=r"has \d+ tokens, which leaves \d+ of the model's 40"):
        context_windows(tokenizer, "walked talked " * 20, TEXT, 40)


def test_words_of_a_text() -> None:
    text = "Zoë's  well-read\n(e.g. x_y) 中文 नमस्ते."
    words = [text[start:stop] for start, stop in words_in(text)]
    assert words == [
        *("Zoë", "'", "s", "well", "-", "read", "(", "e", ".", "g", ".", "x", "_", "y", ")"),
        *("中", "文", "नमस्ते", "."),
    ]
    assert words_in(" \n") == []

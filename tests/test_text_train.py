"""Learning tokenizers from real text; what is learned survives its folder."""

import gzip
import os
import pydoc_data.topics
import signal
import subprocess
import sys
import time
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet import cli
from tercet.errors import InputError
from tercet.text import SPECIAL, Special, Tokenizer, train_tokenizer

TEXTS = list(pydoc_data.topics.topics.values())[:25]
KINDS = ("bpe", "wordpiece", "unigram")
SAMPLE = "The class  body's\n\n    def naïve(self): 中文 😀 <|endoftext|> [MASK] </s> end"


@cache
def learned(kind: str, special: str) -> Tokenizer:
    return train_tokenizer(TEXTS, kind=kind, vocab_size=600, special=special)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("special", SPECIAL)
def test_save_and_load_and_the_reference_agree(kind, special, tmp_path):
    tokenizer = learned(kind, special)
    assert 500 < tokenizer.vocab_size <= 600
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (again.hash, again.roles) == (tokenizer.hash, tokenizer.roles)
    assert again.max_length is None
    ids = tokenizer.encode(SAMPLE)
    assert again.encode(SAMPLE) == ids

    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert opened(SAMPLE)["input_ids"] == ids
    assert opened("a class", "of b")["input_ids"] == tokenizer.encode_pair("a class", "of b")[0]
    assert opened.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    assert len(opened) == tokenizer.vocab_size
    for role in tokenizer.roles:
        assert getattr(opened, f"{role}_token_id") == getattr(tokenizer, f"{role}_id")


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_around_a_text(kind):
    encoder = learned(kind, "encoder")
    ids = encoder.encode("class body")
    assert (ids[0], ids[-1]) == (encoder.cls_id, encoder.sep_id)
    assert encoder.special_counts == (1, 1)
    pair, types = encoder.encode_pair("class", "body")
    first = len(encoder.encode("class"))
    assert pair == [*encoder.encode("class"), *encoder.encode("body")[1:]]
    assert types == [0] * first + [1] * (len(pair) - first)

    decoder = learned(kind, "decoder")
    assert decoder.special_counts == (0, 0)
    assert decoder.encode("class<|endoftext|>")[-1] == decoder.eos_id
    assert decoder.bos_id is None

    both = learned(kind, "encoder-decoder")
    assert both.special_counts == (0, 1)
    assert both.encode("class")[-1] == both.eos_id
    assert (both.pad_id, both.eos_id, both.unk_id) == (0, 1, 2)


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_byte_level_text_comes_back(text):
    tokenizer = learned("bpe", "decoder")
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text
    assert len(tokenizer.pieces(tokenizer.encode(text))) == len(tokenizer.encode(text))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_streamed_text_is_the_decoded_text(kind, data):
    """Any ids at all: halves of characters, special tokens, ids beyond the vocabulary."""
    tokenizer = learned(kind, "encoder")
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 5), max_size=40))
    skip = data.draw(st.booleans())
    streamer = tokenizer.streamer(skip_special=skip)
    given_out = ""
    whole = tokenizer.decode(ids, skip_special=skip)
    for token in ids:
        given_out += streamer.put(token)
        assert whole.startswith(given_out)
    assert given_out + streamer.end() == whole
    assert streamer.put(tokenizer.encode("class", special=False)[0])  # as new


def test_streaming_holds_back_no_more_than_a_character():
    tokenizer = learned("bpe", "decoder")
    streamer = tokenizer.streamer()
    pieces = [streamer.put(token) for token in tokenizer.encode("a 😀 b")]
    assert "".join(pieces) == "a 😀 b"
    assert streamer.end() == ""


def test_the_mask_takes_the_space_before_it():
    """In byte-level and unigram vocabularies the space belongs to the word that is masked."""
    for kind in ("bpe", "unigram"):
        tokenizer = learned(kind, "encoder")
        ids = tokenizer.encode("the [MASK] of", special=False)
        place = ids.index(tokenizer.mask_id)
        assert ids[:place] == tokenizer.encode("the", special=False)


def test_files_give_what_their_text_gives(tmp_path):
    whole = "".join(TEXTS)
    (tmp_path / "one.txt").write_text(whole[:30_000], encoding="utf-8", newline="")
    (tmp_path / "two.txt.gz").write_bytes(gzip.compress(whole[30_000:].encode()))
    seen = []
    tokenizer = train_tokenizer(
        [tmp_path / "one.txt", tmp_path / "two.txt.gz"],
        vocab_size=400,
        progress=lambda stage, done, total: seen.append((stage, done, total)),
    )
    # Texts are cut at line ends, where byte-level words end too, but for runs of blank lines.
    ids = tokenizer.encode(whole)
    assert tokenizer.decode(ids) == whole
    assert seen[-2:] == [("learning", 0, 1), ("learning", 1, 1)]
    reading = [(done, total) for stage, done, total in seen if stage == "reading"]
    assert reading[-1][0] == reading[-1][1]
    assert reading == sorted(reading)


def test_the_same_text_gives_the_same_byte_level_tokenizer():
    first, second = (train_tokenizer(iter(TEXTS), vocab_size=400) for _ in range(2))
    assert first.hash == second.hash
    assert first.hash != train_tokenizer(TEXTS, vocab_size=401).hash


def test_own_special_tokens_and_lower_case(tmp_path):
    own = Special(
        {"bos": "<a>", "eos": "<z>"}, before=("bos",), after=("eos",), extra=("<|user|>",)
    )
    tokenizer = train_tokenizer(TEXTS, vocab_size=400, special=own, lowercase=True)
    ids = tokenizer.encode("THE<|user|>")
    assert ids == tokenizer.encode("the<|user|>")
    assert [tokenizer.pieces(ids)[place] for place in (0, -2, -1)] == ["<a>", "<|user|>", "<z>"]
    tokenizer.max_length = 64
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).max_length == 64
    assert Tokenizer.load(tmp_path).decode(ids) == "the"


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_characters_and_bytes_come_back_and_the_reference_agrees(kind, special, tmp_path):
    text = "".join(TEXTS)
    tokenizer = train_tokenizer(TEXTS, kind=kind, special=special)
    tokens = sum(spelling is not None for spelling in set(tokenizer.roles.values()))
    units = len(set(text)) if kind == "characters" else 256
    assert tokenizer.vocab_size == units + tokens
    ids = tokenizer.encode(text, special=False)
    assert len(ids) == len(text if kind == "characters" else text.encode())
    assert tokenizer.decode(ids) == text

    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (again.hash, again.roles) == (tokenizer.hash, tokenizer.roles)
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer.encode(SAMPLE)
    assert again.encode(SAMPLE) == opened(SAMPLE)["input_ids"] == ids
    assert opened.decode(ids) == tokenizer.decode(ids, skip_special=False)


def test_a_character_that_was_never_seen_is_the_unknown_token():
    tokenizer = train_tokenizer(["abba\n", "a c"], kind="characters")
    assert tokenizer.roles["unk"] == "<unk>" and tokenizer.unk_id == 1
    assert tokenizer.encode("ax😀yb") == [4, 1, 1, 1, 5]  # <|endoftext|> <unk> \n " " a b c
    commonest = train_tokenizer(["abba\n", "a c"], kind="characters", vocab_size=4)
    assert commonest.encode("abc") == [2, 3, 1]
    lower = train_tokenizer(["Ab"], kind="characters", lowercase=True)
    assert lower.encode("AB") == lower.encode("ab") == [2, 3]


def test_a_masked_character_keeps_the_space_before_it():
    for kind in ("characters", "bytes"):
        tokenizer = train_tokenizer(TEXTS, kind=kind, special="encoder")
        assert tokenizer.encode("e [MASK]", special=False)[2:] == [tokenizer.mask_id]


def test_control_c_while_the_library_learns():
    """It learns from this for minutes, and answers nobody."""
    program = (
        "import random, sys; from tercet.text import train_tokenizer\n"
        "draw = random.Random(1)\n"
        "texts = (' '.join('%x' % draw.getrandbits(120) for _ in range(200)) for _ in range(600))\n"
        "def told(stage, done, total):\n"
        "    if stage == 'learning': print(stage, done, flush=True)\n"
        "try: train_tokenizer(texts, kind='unigram', progress=told)\n"
        "except KeyboardInterrupt: sys.exit(130)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == "learning 0\n"
        time.sleep(0.5)  # now in the library
        child.send_signal(signal.SIGINT)
        said, complaint = child.communicate(timeout=10)
    finally:
        child.kill()
    assert (child.returncode, said, complaint) == (130, "", "")


def test_control_c_while_texts_are_read_reads_no_more():
    read = []

    def texts():
        for text in TEXTS:
            read.append(text)
            if len(read) == 5:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            yield text

    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(texts(), vocab_size=300)
    assert len(read) <= 6


def test_a_models_tokenizer_is_not_replaced(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("the model's")
    (tmp_path / "text.txt").write_text(TEXTS[0])
    train = ["tokenizer", "train", str(tmp_path / "text.txt"), "--out", str(tmp_path)]
    assert cli.run(train) == 2
    said = capsys.readouterr().err
    assert f"--out {tmp_path}: holds a model" in said and "name another folder" in said
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", "text.txt", "tokenizer.json"]
    assert (tmp_path / "tokenizer.json").read_text() == "the model's"


def latin1(folder):
    path = folder / "latin.txt"
    path.write_bytes(b"words\nna\xefve\n")
    return [path]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": []}, ["nothing to learn"]),
        ({"source": ["", " \n"]}, ["nothing to learn"]),
        ({"source": "a text"}, ["'a text'", "list"]),
        ({"source": [b"bytes"]}, ["text 1", "bytes"]),
        ({"source": latin1}, ["latin.txt", "line 2", "0xef"]),
        ({"source": lambda folder: [folder / "missing.txt"]}, ["missing.txt", "no such file"]),
        ({"kind": "words"}, ["'words'", "wordpiece"]),
        ({"special": "both"}, ["'both'", "encoder-decoder"]),
        ({"special": Special({}, after=("eos",))}, ["eos"]),
        ({"vocab_size": 100}, ["100", "at least 257"]),
        ({"vocab_size": 2, "kind": "characters"}, ["2", "at least 3"]),
        ({"source": [" "], "kind": "characters"}, ["nothing to learn"]),
        ({"vocab_size": 20, "kind": "wordpiece"}, ["20", "at least"]),
        ({"vocab_size": 20, "kind": "unigram"}, ["20", "chars", "bpe"]),
    ],
)
def test_bad_input_is_named(settings, words, tmp_path):
    settings = {"source": TEXTS[:3]} | settings
    source = settings.pop("source")
    with pytest.raises(InputError) as caught:
        train_tokenizer(source(tmp_path) if callable(source) else source, **settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)

"""Tokenizer folders: the formats, the special tokens' spellings, saving, and damaged folders."""

import json

import pytest

from tercet.errors import InputError
from tercet.text import Tokenizer, train_tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "Cat", "é", "e", "sat"]
PAIRS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "h": 4, "i": 5, "Ġ": 6, "hi": 7, "<mask>": 8}


def wordpiece(folder, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def byte_pairs(folder, vocabulary=PAIRS, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nh i\n")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "text", "pieces"),
    [
        ({}, "The Cats É", ["the", "cat", "##s", "e"]),
        ({"do_lower_case": False}, "the Cats é", ["the", "Cat", "##s", "é"]),
        ({"do_lower_case": True, "strip_accents": False}, "É", ["é"]),
        ({}, "zebra [MASK]", ["[UNK]", "[MASK]"]),
    ],
)
def test_wordpiece_honours_its_settings(settings, text, pieces, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    tokenizer = Tokenizer.load(wordpiece(tmp_path, **settings))
    ids = tokenizer.encode(text)
    assert tokenizer.pieces(ids) == ["[CLS]", *pieces, "[SEP]"]
    assert transformers.BertTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == ids


@pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}])
def test_byte_pairs_with_ends_equal_the_oracle(settings, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    tokenizer = Tokenizer.load(byte_pairs(tmp_path, **settings))
    oracle = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    for text in ("hi hi", " hi", "h <mask> i"):
        assert tokenizer.encode(text) == oracle(text)["input_ids"]
    ids, types = tokenizer.encode_pair("hi", "h")
    assert ids == oracle("hi", "h")["input_ids"]
    assert set(types) == {0}
    for role in tokenizer.roles:
        assert getattr(tokenizer, f"{role}_id") == getattr(oracle, f"{role}_token_id"), role


def test_special_tokens_are_strings_or_dicts_or_absent(tmp_path):
    folder = wordpiece(
        tmp_path / "a", pad_token={"content": "[PAD]", "lstrip": False}, cls_token="[CLS]"
    )
    (folder / "special_tokens_map.json").write_text(json.dumps({"sep_token": {"content": "[SEP]"}}))
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id) == (0, 2, 3)
    assert tokenizer.bos_id is None
    assert (tokenizer.unk_id, tokenizer.mask_id) == (1, 4)  # known by their spelling
    assert Tokenizer.load(wordpiece(tmp_path / "b", mask_token=None)).mask_id is None


def test_added_tokens_get_the_next_ids(tmp_path):
    added = {
        "12": {"content": "<new>", "special": True},
        "13": {"content": "word", "special": False},
    }
    tokenizer = Tokenizer.load(wordpiece(tmp_path, added_tokens_decoder=added))
    assert tokenizer.vocab_size == 14
    ids = tokenizer.encode("the<new>word", special=False)
    assert ids == [5, 12, 13]
    assert tokenizer.decode(ids) == "the word"
    tokenizer.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").encode("the<new>word", special=False) == ids


@pytest.mark.parametrize(
    ("stated", "known"),
    [(512, 512), (1e30, None), (10**30, None), (0, None), (None, None), ("x", None)],
)
def test_the_stated_maximum(stated, known, tmp_path):
    assert Tokenizer.load(wordpiece(tmp_path, model_max_length=stated)).max_length == known


def test_a_tokenizer_that_cuts_and_pads_is_stopped(tmp_path):
    Tokenizer.load(wordpiece(tmp_path)).save(tmp_path / "saved")
    path = tmp_path / "saved" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["truncation"] = {
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    content["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    path.write_text(json.dumps(content))
    tokenizer = Tokenizer.load(tmp_path / "saved")
    assert len(tokenizer.encode("the cat sat the cat sat")) == 8
    assert len(tokenizer.encode("the")) == 3


@pytest.mark.parametrize("wanted", [{}, {"add_bos_token": True}, {"add_eos_token": True}])
def test_ends_that_the_settings_ask_for(wanted, tmp_path):
    """Of vocab.json and merges.txt; a tokenizer.json has its own, which win (as in the oracle)."""
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    vocabulary = {"h": 0, "i": 1, "Ġ": 2, "hi": 3, "<|endoftext|>": 4}
    tokenizer = Tokenizer.load(byte_pairs(tmp_path, vocabulary, model_max_length=9, **wanted))
    assert tokenizer.special_counts == ("add_bos_token" in wanted, "add_eos_token" in wanted)
    oracle = transformers.GPT2Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("hi hi") == oracle("hi hi")["input_ids"]
    tokenizer.save(tmp_path / "saved")
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert opened("hi hi")["input_ids"] == tokenizer.encode("hi hi")
    assert Tokenizer.load(tmp_path / "saved").hash == tokenizer.hash


def test_older_folders_list_added_tokens_apart(tmp_path):
    folder = wordpiece(tmp_path, additional_special_tokens=["<new>"])
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": 12, "word": 13}))
    tokenizer = Tokenizer.load(folder)
    ids = tokenizer.encode("the<new>word", special=False)
    assert ids == [5, 12, 13]
    assert tokenizer.decode(ids) == "the word"


@pytest.mark.parametrize("where", ["config", "file"])
def test_a_chat_template_is_kept(where, tmp_path):
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    folder = wordpiece(tmp_path / "a", **({"chat_template": template} if where == "config" else {}))
    if where == "file":
        (folder / "chat_template.jinja").write_text(template)
    Tokenizer.load(folder).save(tmp_path / "b")
    assert Tokenizer.load(tmp_path / "b").settings["chat_template"] == template


def test_pieces_can_be_read():
    tokenizer = train_tokenizer(["the cat the cat"] * 5, vocab_size=270, special="encoder")
    ids = tokenizer.encode("the the\n\tcat é")
    assert tokenizer.pieces([*ids, 9999]) == [
        *("[CLS]", "the", "▁the", "⏎", "⇥", "cat", "▁", "c3", "a9", "[SEP]", "#9999")
    ]  # fmt: skip
    assert tokenizer.id_of("[MASK]") == tokenizer.mask_id
    assert tokenizer.id_of("no such token") is None
    assert tokenizer.target is tokenizer
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.encode("") == [tokenizer.cls_id, tokenizer.sep_id]


def test_failing_to_save_keeps_the_old_files(tmp_path, monkeypatch):
    tokenizer = Tokenizer.load(wordpiece(tmp_path))
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="taken"):
        tokenizer.save(tmp_path / "taken")
    tokenizer.save(tmp_path / "saved")
    before = (tmp_path / "saved" / "tokenizer.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        tokenizer.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").read_bytes() == before


def damaged(name, content):
    def make(folder):
        wordpiece(folder)
        (folder / name).write_bytes(content)
        return folder

    return make


def without(word):
    def make(folder):
        wordpiece(folder)
        (folder / "vocab.txt").write_text("\n".join(w for w in WORDS if w != word))
        return folder

    return make


def byte_pairs_with_wrong_merges(folder):
    byte_pairs(folder)
    (folder / "merges.txt").write_text("x y\n")
    return folder


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "missing", ["missing", "no such folder"]),
        (lambda folder: folder, ["no tokenizer", "tokenizer.json", "merges.txt"]),
        (damaged("tokenizer.json", b"{}"), ["tokenizer.json", "not a tokenizer"]),
        (damaged("tokenizer.json", b"\xff{"), ["tokenizer.json", "not a tokenizer"]),
        (damaged("tokenizer_config.json", b"{"), ["tokenizer_config.json", "not JSON"]),
        (damaged("tokenizer_config.json", b"[]"), ["tokenizer_config.json", "list"]),
        (damaged("special_tokens_map.json", b"\xff"), ["special_tokens_map.json", "not JSON"]),
        (damaged("vocab.txt", b"caf\xe9\n"), ["vocab.txt", "not a vocabulary"]),
        (without("[UNK]"), ["vocab.txt", "[UNK]"]),
        (without("[SEP]"), ["vocab.txt", "[SEP]"]),
        (byte_pairs_with_wrong_merges, ["merges.txt", "damaged"]),
        (
            lambda folder: byte_pairs(folder, {"h": 0, "i": 1, "hi": 2}, tokenizer_class="Own"),
            ["Own", "tokenizer.json"],
        ),
    ],
)
def test_damaged_folders_are_named(make, words, tmp_path):
    folder = make(tmp_path)
    with pytest.raises(InputError) as caught:
        Tokenizer.load(folder)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda tokenizer: tokenizer.encode("half \ud83d"), ["\\ud83d", "character 5"]),
        (lambda tokenizer: tokenizer.encode_batch("a text"), ["list", "'a text'"]),
        (lambda tokenizer: tokenizer.encode_batch([None]), ["NoneType"]),
        (lambda tokenizer: tokenizer.encode(b"bytes"), ["bytes"]),
        (lambda tokenizer: tokenizer.decode([5, -1]), ["-1", "0..11"]),
    ],
)
def test_what_is_no_text_is_named(call, words, tmp_path):
    tokenizer = Tokenizer.load(wordpiece(tmp_path))
    with pytest.raises(InputError) as caught:
        call(tokenizer)
    assert all(word in str(caught.value) for word in words), str(caught.value)

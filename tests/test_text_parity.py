"""The ids of known tokenizers equal transformers', on strings made to trip them."""

import os
import random
import shutil
from pathlib import Path

import pytest

from tercet.text import Tokenizer

transformers = pytest.importorskip("transformers", reason="the oracle is not installed")

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("TERCET_DATA", ROOT.parent / "shared" / "data")) / "tokenizers"
STORIES = Path(os.environ.get("TERCET_WEIGHTS", ROOT.parent / "shared" / "weights")) / "stories260K"

SNIPPETS = [
    *("hello", "World", "the", "don't", "I'LL", "we've", "1234567", "3.14", "--", "…", "“q”", "_"),
    *(
        "👩‍👩‍👧",
        "😀",
        "🇩🇪",
        "👍🏽",
        "☺️",
        "中文字",
        "日本語テスト",
        "한국어",
        "ไทย",
        "हिन्दी",
        "עברית",
        "العربية",
    ),
    *(
        "e\u0301",
        "a\u0308\u0323",
        "ñ",
        "n\u0303",
        "ﬁ",
        "Å",
        "ß",
        "İ",
        "ı",
        "Ǆ",
        "ς",
        "ſ",
        "K",
        "ΑΣ",
    ),
    *("\u200b", "\u200d", "\ufffd", "\ufeff", "\u00ad", "\u202e", "\u2028", "\u00a0", "\u3000"),
    *(
        "\x00",
        "\x07",
        "\x1b[0m",
        "\x7f",
        "\x85",
        "\x9f",
        "\t\t",
        "\n\n\n",
        "\r\n",
        " " * 7,
        " " * 40,
    ),
    *("<unk>", "<|endoftext|>", "[MASK]", "[CLS]", "[sep]", "</w>", "##ing", "\\", "{}[]", "~~"),
    *("𝕳𝖊", "\U0010ffff", "\ue000", "\U000e0041", "x" * 150, "supercalifragilistic", "ａｂｃ"),
]
RANGES = [
    *(
        (0x00, 0x20),
        (0x20, 0x250),
        (0x300, 0x370),
        (0x370, 0x600),
        (0x900, 0xE80),
        (0x2000, 0x2100),
    ),
    *((0x3000, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xE000, 0x11000), (0x1F300, 0x1F700)),
]


def tricky(count: int) -> list[str]:
    """The same strings every time: snippets and random characters, with and without spaces."""
    draw = random.Random(1)
    texts = ["", " ", "   ", "\n", "\u0301", "[CLS] [SEP]"]
    while len(texts) < count:
        parts = [
            draw.choice(SNIPPETS)
            if draw.random() < 0.7
            else "".join(chr(draw.randrange(*draw.choice(RANGES))) for _ in range(4))
            for _ in range(draw.randrange(1, 12))
        ]
        texts.append(draw.choice(["", " ", "  "]).join(parts) + " " * draw.choice([0, 0, 0, 1, 40]))
    return texts


TOKENIZERS = {
    "gpt1": (
        {"gpt1_encoder_bpe_40000.json": "vocab.json", "gpt1_vocab_40000.bpe": "merges.txt"},
        "OpenAIGPTTokenizer",
    ),
    "gpt2": (
        {"gpt2_encoder.json": "vocab.json", "gpt2_vocab.bpe": "merges.txt"},
        "GPT2Tokenizer",
    ),
    "bert": ({"bert-base-uncased-vocab.txt": "vocab.txt"}, "BertTokenizer"),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def folder_and_oracle(request, tmp_path_factory):
    files, oracle = TOKENIZERS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    for theirs, usual in files.items():
        if not (DATA / theirs).is_file():
            pytest.skip(f"{DATA / theirs} is not there; set TERCET_DATA")
        shutil.copy(DATA / theirs, folder / usual)
    return folder, getattr(transformers, oracle).from_pretrained(folder)


def test_ids_equal_the_oracle_on_1000_tricky_strings(folder_and_oracle, tmp_path):
    folder, oracle = folder_and_oracle
    tokenizer = Tokenizer.load(folder)
    texts = tricky(1000)
    expected = oracle(texts)["input_ids"]
    ids = tokenizer.encode_batch(texts)
    assert ids == expected
    assert [tokenizer.encode(text) for text in texts[:50]] == expected[:50]
    assert tokenizer.vocab_size == len(oracle)
    for text in ids:
        assert tokenizer.decode(text) == oracle.decode(text, skip_special_tokens=True)
        streamer = tokenizer.streamer()
        streamed = [streamer.put(token) for token in text]
        assert "".join(streamed) + streamer.end() == tokenizer.decode(text)

    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode_batch(texts) == expected
    assert again.hash == tokenizer.hash
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert opened(texts)["input_ids"] == expected


def test_pairs_equal_the_oracle(folder_and_oracle):
    folder, oracle = folder_and_oracle
    tokenizer = Tokenizer.load(folder)
    ids, types = tokenizer.encode_pair("Who is it?", "Nobody's there.")
    expected = oracle("Who is it?", "Nobody's there.")
    assert ids == expected["input_ids"]
    if "token_type_ids" in expected:
        assert types == expected["token_type_ids"]


def test_a_model_folder_with_byte_fallback(tmp_path):
    if not STORIES.is_dir():
        pytest.skip(f"{STORIES} is not there; set TERCET_WEIGHTS")
    tokenizer = Tokenizer.load(STORIES)
    oracle = transformers.AutoTokenizer.from_pretrained(STORIES)
    texts = tricky(300)
    ids = tokenizer.encode_batch(texts)
    assert ids == oracle(texts)["input_ids"]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.max_length) == (1, 2, 512)
    assert tokenizer.special_counts == (1, 0)
    for text in ids:
        streamer = tokenizer.streamer()
        streamed = [streamer.put(token) for token in text]
        assert "".join(streamed) + streamer.end() == tokenizer.decode(text)

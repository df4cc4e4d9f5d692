"""SentencePiece models: the library's own ids, the reference's where the two agree, and saving."""

import io
import json
import pydoc_data.topics
import sys

import pytest

from tercet.errors import InputError
from tercet.text import Tokenizer
from tercet.text.chat import ChatTemplate

sentencepiece = pytest.importorskip("sentencepiece", reason="the extra [translate] is missing")

LINES = [line for text in pydoc_data.topics.topics.values() for line in text.split("\n") if line]
TEXTS = [
    "",
    "Hello world",
    "a  b   c",
    "é 中文 😀",
    "trail ",
    "1234",
    "ﬁne ①",
    "x</s> y",
    *LINES[:60:3],
]
ENDS = {"eos_token": "</s>", "unk_token": "<unk>"}


def model(lines, **settings) -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, minloglevel=2, **settings
    )
    return written.getvalue()


def folder_of(place, files, **settings):
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    return place


@pytest.fixture(scope="module")
def unigram(tmp_path_factory):
    """A span-corruption encoder-decoder's model: pad, end, unknown, and numbered spans."""
    content = model(LINES[:4000], vocab_size=600, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    settings = {**ENDS, "pad_token": "<pad>", "extra_ids": 100, "model_max_length": 512}
    return folder_of(
        tmp_path_factory.mktemp("unigram") / "model", {"spiece.model": content}, **settings
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A decoder's model: byte fallback, texts begin with <s>."""
    content = model(
        LINES[:4000],
        vocab_size=600,
        model_type="bpe",
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )
    settings = {**ENDS, "bos_token": "<s>", "add_bos_token": True, "add_eos_token": False}
    return folder_of(
        tmp_path_factory.mktemp("pairs") / "model", {"tokenizer.model": content}, **settings
    )


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """Two models and one vocabulary whose numbers are neither's."""
    files = {
        "source.spm": model(LINES[:4000], vocab_size=400),
        "target.spm": model([line.upper() for line in LINES[:4000]], vocab_size=400),
    }
    pieces = ["</s>", "<unk>"]
    for content in files.values():
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        pieces += [processor.id_to_piece(number) for number in range(3, len(processor))]
    pieces += [">>fra<<", "<pad>"]
    numbers = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    files["vocab.json"] = json.dumps(numbers).encode()
    return folder_of(
        tmp_path_factory.mktemp("translator") / "model", files, **ENDS, pad_token="<pad>"
    )


def test_ids_are_the_librarys_own(unigram, pairs):
    for folder, name in ((unigram, "spiece.model"), (pairs, "tokenizer.model")):
        tokenizer = Tokenizer.load(folder)
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
        for text in [*TEXTS, "   indented", " lead"]:
            if "</s>" not in text:  # which we recognise as a token
                ids = tokenizer.encode(text, special=False)
                assert ids == processor.encode(text)
                if tokenizer.unk_id not in ids:  # which has no text here, and " ⁇ " there
                    assert tokenizer.decode(ids) == processor.decode(ids)


@pytest.mark.parametrize("kind", ["unigram", "pairs", "translator"])
def test_the_reference_reads_them_alike(kind, request, tmp_path):
    """Where text has leading or long runs of spaces the reference's rewriting departs from the
    library's own ids; ours are the library's."""
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    folder = request.getfixturevalue(kind)
    names = {"unigram": "T5Tokenizer", "pairs": "LlamaTokenizer", "translator": "MarianTokenizer"}
    tokenizer = Tokenizer.load(folder)
    Tokenizer.load(folder).save(tmp_path)
    oracle = getattr(transformers, names[kind]).from_pretrained(tmp_path)
    texts = [text for text in TEXTS if "</s>" not in text and not text.startswith(" ")]
    assert len(texts) > 10
    for text in [*texts, ">>fra<<Hello"]:
        assert tokenizer.encode(text) == oracle(text)["input_ids"], text
        if kind == "translator":
            assert tokenizer.target.encode(text) == oracle(text_target=text)["input_ids"]
    assert tokenizer.vocab_size == len(oracle)
    for role in ("eos", "unk", "pad"):
        assert getattr(tokenizer, f"{role}_id") == getattr(oracle, f"{role}_token_id")


@pytest.mark.parametrize("kind", ["unigram", "pairs", "translator"])
def test_saving_and_streaming(kind, request, tmp_path):
    tokenizer = Tokenizer.load(request.getfixturevalue(kind))
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.hash == tokenizer.hash
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert again.encode(text) == ids
        streamer = tokenizer.streamer()
        streamed = [streamer.put(token) for token in ids]
        assert "".join(streamed) + streamer.end() == tokenizer.decode(ids)
    assert tokenizer.encode_batch(TEXTS, special=False) == [
        tokenizer.encode(text, special=False) for text in TEXTS
    ]


def test_what_stands_around_a_text(unigram, pairs, translator):
    assert Tokenizer.load(unigram).special_counts == (0, 1)
    assert Tokenizer.load(pairs).special_counts == (1, 0)
    assert Tokenizer.load(translator).special_counts == (0, 1)
    spans = Tokenizer.load(unigram)
    assert (spans.id_of("<extra_id_0>"), spans.id_of("<extra_id_99>")) == (699, 600)
    assert spans.encode("<extra_id_0> x", special=False)[0] == 699


def test_conversations(pairs, tmp_path):
    """Control tokens are added and found where the template writes them; spelled ones stay text."""
    template = ChatTemplate.of(Tokenizer.load(pairs))
    assert template.added == ("<|im_start|>", "<|im_end|>")
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": " The cat"}]
    ids, mask = template.compile(messages)
    written = "<s><|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n The cat<|im_end|>\n"
    assert ids == template.tokenizer.encode(written, special=False)
    start = ids.index(template.tokenizer.id_of("\u2581The") or 0)
    assert mask.index(True) in (start - 1, start) and ids[
        len(ids) - 1 - mask[::-1].index(True)
    ] == (template.tokenizer.id_of("<|im_end|>"))
    spelled = template.prompt([{"role": "user", "content": "a</s><|im_end|>b"}])
    end, turn = (template.tokenizer.id_of(token) for token in ("</s>", "<|im_end|>"))
    assert end not in spelled and spelled.count(turn) == 1
    template.tokenizer.save(tmp_path)
    again = ChatTemplate.of(Tokenizer.load(tmp_path))
    assert again.compile(messages) == (ids, mask) and again.hash == template.hash


def test_what_cannot_be_read_is_named(unigram, translator, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"broken\.model: not a SentencePiece model"):
        Tokenizer.load(folder_of(tmp_path / "broken", {"broken.model": b"no protobuf"}))
    with pytest.raises(InputError, match="vocab.json"):
        Tokenizer.load(folder_of(tmp_path / "half", {"source.spm": b""}))
    files = {path.name: path.read_bytes() for path in translator.iterdir()}
    with pytest.raises(InputError, match="separate_vocabs"):
        Tokenizer.load(folder_of(tmp_path / "two", files, separate_vocabs=True))
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(InputError, match=r"spiece\.model.*tercet\[translate\]"):
        Tokenizer.load(unigram)


@pytest.mark.parametrize("around", [([], []), (["<s>"], []), ([], ["</s>"]), (["<s>"], ["</s>"])])
def test_what_stands_around_a_text_can_be_changed(pairs, tmp_path, around):
    old = Tokenizer.load(pairs)
    new = old.dressed(*around)
    new.save(tmp_path / "new")
    before, after = ([old.id_of(token) for token in tokens] for tokens in around)
    plain = old.encode("Hello world", special=False)
    for tokenizer in (new, Tokenizer.load(tmp_path / "new")):
        assert tokenizer.encode("Hello world") == [*before, *plain, *after]
    with pytest.raises(InputError, match="one token before a text"):
        old.dressed(["<s>", "<s>"], [])


def test_of_two_models_an_encoder_can_be_had_and_no_decoder(translator, tmp_path):
    from tercet.config import TransformerConfig
    from tercet.language_model import LanguageModel, convert, load
    from tercet.model import build

    tokenizer = Tokenizer.load(translator)
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size, context_length=32, d_model=16, d_ff=16, n_heads=2,
        encoder_layers=1, decoder_layers=1, start_id=tokenizer.pad_id,
    )  # fmt: skip
    both = LanguageModel(build(config), tokenizer)
    with pytest.raises(InputError, match=r"target\.spm"):
        convert(both, "decoder")
    convert(both, "encoder").model.save(tmp_path)
    encoder = load(tmp_path)
    assert encoder.tokenizer.encode("Hello world") == tokenizer.encode("Hello world")
    assert encoder.tokenizer.mask_id == tokenizer.vocab_size and encoder.fill("Hello [MASK]")

"""The face: what each method gives, and what each says when asked for what cannot be."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tercet
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.generate import Finished
from tercet.generate.texts import Writer, cut
from tercet.model import build, flatten
from tercet.represent.encode import encode
from tercet.text import Tokenizer, train_tokenizer
from tercet.text.engine import LibraryEngine

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "A loop repeats its body while the condition holds.",
    "Every token of a sequence looks at every other.",
] * 20
SIZES = dict(d_model=32, d_ff=48, n_heads=4, context_length=32)
FAMILIES = {
    "encoder": dict(
        encoder_layers=2, heads=("masked",), tie_embeddings=False, positions="rotary", norm="rms",
        gated=True, activation="silu", qkv_bias=False, attention_bias=False, ff_bias=False,
    ),
    "decoder": dict(
        decoder_layers=2, positions="rotary", norm="rms", gated=True, activation="silu",
        qk_norm=True, qkv_bias=False, attention_bias=False, ff_bias=False,
    ),
    "encoder-decoder": dict(
        encoder_layers=1, decoder_layers=2, positions="relative", norm="rms", gated=True,
        activation="gelu_tanh", qkv_bias=False, attention_bias=False, ff_bias=False,
        attention_scale=1.0, init_std=None, tie_embeddings=False,
    ),
}  # fmt: skip


def tokenizer_for(family: str) -> Tokenizer:
    kind = "wordpiece" if family == "encoder" else "bpe"
    return train_tokenizer(SENTENCES, kind=kind, vocab_size=400, special=family)


def model_for(family: str) -> tercet.LanguageModel:
    tokenizer = tokenizer_for(family)
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        eos_ids=() if tokenizer.eos_id is None else (tokenizer.eos_id,),
        pad_id=tokenizer.pad_id,
        start_id=tokenizer.pad_id if family == "encoder-decoder" else None,
        **SIZES,  # type: ignore[arg-type]
        **FAMILIES[family],  # type: ignore[arg-type]
    )
    return tercet.LanguageModel(build(config), tokenizer)


@pytest.fixture(scope="module")
def models() -> dict[str, tercet.LanguageModel]:
    return {family: model_for(family) for family in FAMILIES}


@pytest.fixture(scope="module")
def encoder(models):
    return models["encoder"]


@pytest.fixture(scope="module")
def decoder(models):
    return models["decoder"]


@pytest.fixture(scope="module")
def translator(models):
    return models["encoder-decoder"]


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_is_the_same(models, family: str, tmp_path: Path) -> None:
    models[family].save(tmp_path)
    again = tercet.load(tmp_path)
    assert again.config == models[family].config
    assert np.array_equal(again.embed(SENTENCES[:3]), models[family].embed(SENTENCES[:3]))


def test_embed_gives_vectors_in_the_callers_order(encoder) -> None:
    texts = [SENTENCES[0], "dog", SENTENCES[1]]
    vectors = encoder.embed(texts)
    assert vectors.shape == (3, 32) and vectors.dtype == np.float32
    for vector, text in zip(vectors, texts):
        assert np.allclose(vector, encoder.embed(text), atol=1e-5)
    assert not np.allclose(encoder.embed("dog", pool="first"), encoder.embed("dog", pool="last"))


def test_embed_stream_reads_some_texts_ahead_and_gives_what_embed_gives(encoder, monkeypatch):
    monkeypatch.setattr("tercet.represent.texts.PART_TEXTS", 8)
    texts, taken = [f"{text} {i}" for i, text in enumerate(SENTENCES)] + SENTENCES[:1] * 9, []
    texts[5] = " ".join(SENTENCES)

    def source():
        for text in texts:
            taken.append(text)
            yield text

    found, ahead = [], []
    with pytest.warns(tercet.CutWarning, match="of texts lost") as said:
        stream = encoder.embed_stream(source())
        for vector in stream:
            ahead.append(len(taken) - len(found))
            found.append(vector)
        cut = encoder.embed(texts)
    assert max(ahead) == 8 and len(said) == 2  # once for all parts, and once for embed
    np.testing.assert_allclose(np.stack(found), cut, atol=1e-6)
    with pytest.raises(tercet.InputError, match="text 10 is empty"):
        list(encoder.embed_stream(["a dog"] * 9 + [" "]))
    with pytest.raises(tercet.InputError, match=r"must be a string, not 3"):
        list(encoder.embed_stream(iter([3])))


def test_fillers_are_no_longer_than_the_texts(encoder):
    """However many threads a batch is cut for, a short context holds what makes it round."""
    ids = [[5] * n for n in (30, 29, 3) * 300]
    found = encode(encoder.network, ids, "mean", budget=32_768)
    alone = encode(encoder.network, ids[:3], "mean")
    torch.testing.assert_close(found[-3:], alone, rtol=1e-4, atol=1e-5)


def test_embed_stream_says_what_was_cut_to_who_leaves_early(encoder):
    stream = encoder.embed_stream([" ".join(SENTENCES), "a dog"] * 9)
    next(stream)
    with pytest.warns(tercet.CutWarning, match="of texts lost"):
        stream.close()
    for wrong in ("the cat", None):
        with pytest.raises(tercet.InputError, match="give an iterable of strings"):
            encoder.embed_stream(wrong)


def test_a_list_is_checked_before_it_is_embedded(encoder, monkeypatch):
    monkeypatch.setattr("tercet.represent.texts.PART_TEXTS", 2)
    monkeypatch.setattr("tercet.represent.texts.encode", lambda *_: pytest.fail("computed"))
    with pytest.raises(tercet.InputError, match="text 5 is empty"):
        encoder.embed(["a dog"] * 4 + [" "])
    with pytest.raises(tercet.InputError, match="text 5 has 602"):
        encoder.embed(["a dog"] * 4 + [" ".join(SENTENCES)], overflow="error")


def test_embed_says_what_it_cut(encoder) -> None:
    long = "dog " * 100
    with pytest.warns(tercet.CutWarning, match="50 % of texts lost .* % of their tokens"):
        kept = encoder.embed([long, "dog"])
    cut = encoder.embed(encoder.tokenizer.decode(encoder.tokenizer.encode(long)[1:31]))
    assert np.allclose(kept[0], cut, atol=1e-5)
    with pytest.raises(InputError, match=r"102 tokens .* takes 32.*keep-start.*slide"):
        encoder.embed(long)


@torch.inference_mode()
def test_embed_slides_by_the_mean_of_windows_weighted_by_tokens(encoder) -> None:
    long = " ".join(SENTENCES[:7])
    start, *body, end = encoder.tokenizer.encode(long)
    windows = [body[i : i + 30] for i in range(0, len(body), 30)]  # of 32 with the special two
    states = [encoder.network.states(*flatten([[start, *ids, end]])) for ids in windows]
    vectors = np.stack([window.mean(0).numpy() for window in states])
    expected = np.average(vectors, axis=0, weights=[len(ids) for ids in windows])
    assert len(windows) > 2 and len(windows[-1]) < 20
    assert not np.allclose(expected, vectors.mean(0), atol=1e-3)  # nor without the weights
    slid = encoder.embed([long, "dog"], overflow="slide")
    assert np.allclose(slid, [expected, encoder.embed("dog")], atol=1e-5)
    assert np.allclose(encoder.embed(long, overflow="slide"), expected, atol=1e-5)


def test_fill_ranks_tokens(encoder) -> None:
    best = encoder.fill("The quick [MASK] fox.", top_k=3)
    assert len(best) == 3
    assert best[0].probability >= best[1].probability >= best[2].probability > 0
    assert best[0].token in best[0].text and "[MASK]" not in best[0].text
    both = encoder.fill("The [MASK] brown [MASK].", top_k=2)
    assert both[0][0].text.count("[MASK]") == 1 and "[MASK]" in both[1][0].text
    assert [len(options) for options in both] == [2, 2]


def test_generate_one_many_and_streamed(decoder) -> None:
    one = decoder.generate("The quick", max_new_tokens=6)
    assert one.finish in ("stop", "length") and len(one.ids) == len(one.log_probabilities) <= 6
    assert str(one) == one.text
    many = decoder.generate(["The quick", "A loop"], max_new_tokens=6)
    assert many[0].ids == one.ids
    assert np.allclose(many[0].log_probabilities, one.log_probabilities, atol=1e-4)
    assert "".join(decoder.stream("The quick", max_new_tokens=6)) == one.text
    sampling = tercet.Sampling(temperature=1.0, top_k=20)
    a, b, c = (
        decoder.generate("The", max_new_tokens=8, sampling=sampling, seed=seed)
        for seed in (1, 1, 2)
    )
    assert a == b and a.ids != c.ids
    several = decoder.generate("The", max_new_tokens=8, sampling=sampling, seed=1, samples=3)
    assert several[0].ids == a.ids and len({tuple(one.ids) for one in several}) == 3
    both = decoder.generate(["A", ""], max_new_tokens=8, sampling=sampling, samples=2)
    assert [[one.finish == "error" for one in of] for of in both] == [[False] * 2, [True] * 2]
    for wrong in (0, 2.0):
        with pytest.raises(InputError, match=f"samples {wrong}"):
            decoder.generate("The", samples=wrong, sampling=sampling)


def test_generation_runs_to_the_edge_and_says_so(decoder) -> None:
    prompt = decoder.tokenizer.encode("The quick")
    whole = decoder.generate("The quick", sampling=tercet.Sampling(temperature=2.0), seed=3)
    assert whole.finish == "length" and len(prompt) + len(whole.ids) == 32
    with pytest.warns(tercet.CutWarning, match="1 of 1 texts outgrew the context"):
        slid = decoder.generate("The quick", max_new_tokens=50, overflow="slide")
    assert len(slid.ids) == 50 and slid.dropped > 0
    with pytest.warns(tercet.CutWarning, match="slid out"):
        pieces = list(decoder.stream("The quick", max_new_tokens=50, overflow="slide"))
    assert "".join(pieces) == slid.text


def test_a_continuation_keeps_its_space(decoder) -> None:
    """A tokenizer that marks words by a space before them drops it at the start of a text."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    words = {"<unk>": 0, "▁once": 1, "▁upon": 2, "▁a": 3}
    library = Library(models.WordLevel(words, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    writer = Writer(decoder.network, Tokenizer(LibraryEngine(library), {}), ends=())
    finished = Finished([2, 3], "length", [0.0, 0.0])
    assert writer._generation(finished, writer._lead([1]), ()).text == " upon a"
    assert "".join(writer.pieces(iter([2, 3]), writer._streamer([1]), ())) == " upon a"


def test_stop_strings_end_a_text_and_are_left_out(decoder) -> None:
    sampling = tercet.Sampling(temperature=1.5)
    free = decoder.generate("The quick", max_new_tokens=20, sampling=sampling, seed=5)
    stop = free.text[len(free.text) // 2 :][:3]
    held = decoder.generate("The quick", max_new_tokens=20, sampling=sampling, seed=5, stop=stop)
    assert held.finish == "stop" and held.text == free.text[: free.text.index(stop)]
    pieces = decoder.stream("The quick", max_new_tokens=20, sampling=sampling, seed=5, stop=[stop])
    assert "".join(pieces) == held.text


@given(st.text("abc", max_size=12), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_what_is_shown_of_a_growing_text_is_never_taken_back(text: str, stop: list[str]):
    """However the tokens cut a stop string."""
    shown = 0
    for n in range(len(text) + 1):
        found, sure = cut(text[:n], stop)
        assert shown <= sure <= n
        shown = sure
        if found:
            assert any(text[sure:n].startswith(s) for s in stop)
            return
        # what is held back may begin a stop string, and nothing else is
        assert sure == n or any(s.startswith(text[sure:n]) for s in stop)
    assert not any(s in text for s in stop)


def test_a_draft_that_splits_text_otherwise_is_refused(decoder):
    """As many tokens, and other ones."""
    texts = [text.swapcase() for text in SENTENCES]
    tokenizer = train_tokenizer(texts, vocab_size=400, special="decoder")
    size = max(tokenizer.vocab_size, decoder.config.vocab_size)
    draft = tercet.LanguageModel(build(decoder.config.replace(vocab_size=size)), tokenizer)
    with pytest.raises(InputError, match="the draft's tokenizer is not the model's"):
        decoder.generate("The quick", draft=draft)


def test_score_counts_each_token_once(decoder) -> None:
    text = SENTENCES[0]
    score = decoder.score(text)
    assert score.log_probabilities[0] is None and all(p < 0 for p in score.log_probabilities[1:])
    assert len(score.pieces) == len(score.ids) == len(score.log_probabilities)
    mean = sum(score.log_probabilities[1:]) / (len(score.ids) - 1)
    assert score.perplexity == pytest.approx(math.exp(-mean))
    long = " ".join(SENTENCES[:12])
    (slid,) = decoder.score([long])
    assert [p is None for p in slid.log_probabilities] == [True] + [False] * (len(slid.ids) - 1)
    start = decoder.score(decoder.tokenizer.decode(slid.ids[:20]))
    assert np.allclose(start.log_probabilities[1:20], slid.log_probabilities[1:20], atol=1e-4)
    with pytest.raises(InputError, match="takes 32"):
        decoder.score(long)


def test_translate_gives_one_or_n_best(translator) -> None:
    one = translator.translate("A loop", max_new_tokens=5)
    assert isinstance(one, tercet.Generation) and len(one.ids) <= 5
    lists = translator.translate(["A loop", "dog"], beams=4, n_best=3, max_new_tokens=5)
    assert [len(best) for best in lists] == [3, 3]
    assert lists[0][0].ids != lists[0][1].ids


def test_attention_is_a_distribution(models) -> None:
    for family, kinds in {
        "encoder": {"encoder"},
        "decoder": {"decoder"},
        "encoder-decoder": {"encoder", "decoder", "cross"},
    }.items():
        maps = models[family].attention("The quick brown fox.")
        assert set(maps) == kinds
        for found in maps.values():
            layers, heads, queries, keys = found.weights.shape
            assert heads == 4 and queries == len(found.queries) and keys == len(found.keys)
            assert np.allclose(found.weights.sum(-1), 1, atol=1e-5)
    upper = np.triu_indices(len(models["decoder"].attention("The quick")["decoder"].keys), 1)
    assert (models["decoder"].attention("The quick")["decoder"].weights[:, :, *upper] == 0).all()
    given = models["encoder-decoder"].attention("The quick", target="dog")
    assert given["cross"].queries[1:] == models["encoder-decoder"].tokenizer.pieces(
        models["encoder-decoder"].tokenizer.encode("dog")
    )


@pytest.mark.parametrize(
    ("family", "call", "words"),
    [
        ("encoder", lambda m: m.generate("x"), "cannot generate; it can embed, fill"),
        ("encoder", lambda m: m.score("x"), "cannot score"),
        ("decoder", lambda m: m.fill("x [MASK]"), "cannot fill; it can embed, generate"),
        ("decoder", lambda m: m.translate("x"), "cannot translate"),
        ("encoder-decoder", lambda m: m.fill("x [MASK]"), "cannot fill"),
        ("encoder", lambda m: m.embed([]), "empty list"),
        ("encoder", lambda m: m.embed(""), "is empty"),
        ("encoder", lambda m: m.embed(["dog", " "]), "text 2 is empty"),
        ("encoder", lambda m: m.embed("dog", pool="max"), "pool 'max'.*first, mean or last"),
        ("encoder", lambda m: m.embed("dog", overflow="cut"), "overflow policy 'cut'"),
        ("encoder", lambda m: m.embed("dog", prompt="query"), "prompt 'query'"),
        ("encoder", lambda m: m.fill("no place"), r"put \[MASK\]"),
        ("encoder", lambda m: m.fill("[MASK]", top_k=0), "top_k 0"),
        ("encoder", lambda m: m.fill("[MASK]", top_k=2.5), "top_k 2.5"),
        ("encoder", lambda m: m.fill(["a [MASK]"]), "one text is wanted"),
        ("decoder", lambda m: m.stream(["a", "b"]), "one text is wanted"),
        ("decoder", lambda m: m.generate("a", sampling={"top_k": 1}), r"tercet.Sampling\(...\)"),
        ("decoder", lambda m: m.generate(["a"], max_new_tokens=2.5), "max_new_tokens 2.5"),
        ("decoder", lambda m: m.generate(["a"], max_new_tokens="5"), "max_new_tokens 5"),
        ("decoder", lambda m: m.generate(["a"], overflow="bogus"), "overflow 'bogus'"),
        ("decoder", lambda m: m.generate(["a"], overflow="slide"), "state max_new_tokens"),
        ("decoder", lambda m: tercet.Sampling(temperature="hot"), "temperature 'hot'"),
        ("encoder-decoder", lambda m: m.translate("a", beams="3"), "beams '3'"),
        ("decoder", lambda m: m.generate(""), "is empty"),
        ("decoder", lambda m: m.generate([]), "empty list"),
        ("decoder", lambda m: m.generate("dog", max_new_tokens=0), "max_new_tokens 0"),
        ("decoder", lambda m: m.generate("dog", max_new_tokens=-3), "max_new_tokens -3"),
        ("decoder", lambda m: m.generate("dog", max_new_tokens=2.5), "max_new_tokens 2.5"),
        ("decoder", lambda m: m.generate(None), "must be a string, not None"),
        ("decoder", lambda m: m.generate([5]), "must be a string, not 5"),
        ("decoder", lambda m: m.attention("dog", target="cat"), "target 'cat' is for"),
        ("encoder-decoder", lambda m: m.attention("dog", target="dog " * 99), "target has"),
        (
            "encoder-decoder",
            lambda m: m.translate("dog", length_penalty=math.nan),
            "between -20 and 20",
        ),
        ("encoder", lambda m: tercet.load("x", precision="int7"), "precision 'int7'"),
        ("encoder", lambda m: tercet.load("x", device="gpu"), "device 'gpu'"),
        ("decoder", lambda m: m.generate(["dog"], max_new_tokens=0), "max_new_tokens 0"),
        ("decoder", lambda m: m.generate("dog " * 40), "no room"),
        ("decoder", lambda m: m.generate("dog", max_new_tokens=99), "99.*context of 32"),
        ("decoder", lambda m: m.generate("dog", stop=""), "empty stop"),
        ("decoder", lambda m: tercet.Sampling(temperature=-1), "temperature -1"),
        ("encoder-decoder", lambda m: m.translate("dog", beams=0), "beams 0"),
        ("encoder-decoder", lambda m: m.translate("dog", n_best=9), "n_best 9"),
    ],
)
def test_bad_input_is_named(models, family: str, call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call(models[family])


def test_a_bad_item_does_not_cost_the_others(decoder, translator) -> None:
    answers = decoder.generate(["The quick", "dog " * 60, ""], max_new_tokens=4)
    assert [a.finish == "error" for a in answers] == [False, True, True]
    assert "context" in answers[1].error and "is empty" in answers[2].error
    answers = translator.translate(["dog", ""], max_new_tokens=4)
    assert answers[0].finish != "error" and "is empty" in answers[1].error


def test_a_long_list_is_written_in_groups(models, monkeypatch) -> None:
    prompts = [text[:n] for text in SENTENCES[:3] for n in (9, 14, 20)]
    for family in ("decoder", "encoder-decoder"):
        monkeypatch.setattr("tercet.generate.prompts.CACHED_TOKENS", 1_000_000)
        sampling = tercet.Sampling(temperature=1.0)
        whole = models[family].generate(prompts, max_new_tokens=6, sampling=sampling)
        monkeypatch.setattr("tercet.generate.prompts.CACHED_TOKENS", 40)
        parts = models[family].generate(prompts, max_new_tokens=6, sampling=sampling)
        assert [a.ids for a in parts] == [a.ids for a in whole]
    best = translator_ids(models["encoder-decoder"], prompts)
    monkeypatch.setattr("tercet.generate.prompts.CACHED_TOKENS", 1_000_000)
    assert translator_ids(models["encoder-decoder"], prompts) == best


def translator_ids(translator: tercet.LanguageModel, texts: list[str]) -> list[list[int]]:
    return [a.ids for a in translator.translate(texts, beams=3, max_new_tokens=5)]


def test_an_lstm_writes_too_and_slides(decoder) -> None:
    model = tercet.LanguageModel(
        build(decoder.config.replace(mixer="lstm", eos_ids=())), decoder.tokenizer
    )
    assert "attention" not in model.can
    with pytest.warns(tercet.CutWarning):
        answers = model.generate(["The quick", "A"], max_new_tokens=45, overflow="slide")
    assert [len(a.ids) for a in answers] == [45, 45] and answers[0].dropped > 0


def test_a_tokenizer_larger_than_the_table_is_refused(decoder) -> None:
    small = build(decoder.config.replace(vocab_size=100))
    with pytest.raises(InputError, match=r"tokenizer has \d+ tokens .* 100 rows"):
        tercet.LanguageModel(small, decoder.tokenizer)


def test_every_call_says_what_it_cut(encoder, tmp_path: Path) -> None:
    """Python shows an equal warning of a line once; these it shows each time."""
    encoder.save(tmp_path)
    program = (
        "import sys, tercet\nmodel = tercet.load(sys.argv[1])\n"
        "for _ in range(3): model.embed('quick ' * 60, overflow='keep-start')"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("CutWarning: 100 %") == 3, done.stderr


def test_a_filled_text_is_the_given_one_with_a_token_in_it(encoder) -> None:
    given = "Quick  [MASK], the [MASK] ."
    for number, options in enumerate(encoder.fill(given, top_k=3)):
        parts = given.split("[MASK]")
        for fill in options:
            before, after = "[MASK]".join(parts[: number + 1]), "[MASK]".join(parts[number + 1 :])
            assert fill.text in (before + fill.token + after, before.rstrip() + fill.token + after)

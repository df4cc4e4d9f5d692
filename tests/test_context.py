"""A rotary model for longer texts than it was trained on: the same as in `transformers`, in every
place that knows of a length, and refused where it cannot be."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import oracles
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from oracles import CONTEXT, ORACLES

import tercet
from tercet import cli, hf
from tercet.config import RopeScaling, TransformerConfig
from tercet.errors import InputError
from tercet.evaluate.perplexity import cost_by_position
from tercet.model import build
from tercet.model.layout import flatten
from tercet.model.positions import Rotary
from tercet.text import Tokenizer, train_tokenizer

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
STORIES = DATA.parent / "weights" / "stories260K"
needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason=f"no folder {STORIES}")
OWN, LONGER = 32, 100
ROTARY = TransformerConfig(
    vocab_size=60,
    context_length=OWN,
    d_model=16,
    d_ff=24,
    n_heads=2,
    decoder_layers=2,
    positions="rotary",
    norm="rms",
    gated=True,
    activation="silu",
    qkv_bias=False,
    attention_bias=False,
    ff_bias=False,
    norm_bias=False,
    qk_norm=True,
)
TEXT = "the cat sat on the mat while the dog slept "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of 32 tokens whose folder says so twice: in config.json and beside the tokenizer.
    A token is a character."""
    return saved(tmp_path_factory.mktemp("decoder"), ROTARY.replace(eos_ids=()))


def saved(path: Path, config: TransformerConfig) -> Path:
    tokenizer = train_tokenizer([TEXT], kind="characters", special="decoder")
    tokenizer.max_length = config.context_length
    network = build(config.replace(vocab_size=tokenizer.vocab_size), seed=1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    tercet.LanguageModel(network, tokenizer).save(path)
    return path


# the settings ------------------------------------------------------------------------------------


@given(st.integers(1, 9_000), st.integers(1, 90_000), st.integers(1, 90_000))
def test_in_two_steps_as_in_one(own: int, more: int, still_more: int):
    start = ROTARY.replace(context_length=own)
    assert start.extended(own) is start
    once = start.extended(own + more)
    assert once.context_length == own + more
    scaling = once.rope_scaling
    assert scaling is not None and (scaling.kind, scaling.original_context) == ("yarn", own)
    assert scaling.factor == (own + more) / own
    far = own + more + still_more
    assert once.extended(far) == start.extended(far)
    assert TransformerConfig.from_json(once.to_json()) == once


def test_a_scaling_from_elsewhere_goes_on_from_where_it_began():
    """Folders exist that state the factor, and as their context the one that came before it."""
    scaling = RopeScaling(kind="yarn", factor=4.0, original_context=40, beta_fast=9.0)
    stated = ROTARY.replace(context_length=40, rope_scaling=scaling)
    assert stated.extended(160) == stated.replace(context_length=160)
    further = ROTARY.replace(context_length=160, rope_scaling=scaling).extended(320).rope_scaling
    assert further == RopeScaling(kind="yarn", factor=8.0, original_context=40, beta_fast=9.0)


@given(
    st.sampled_from([8, 32, 64, 128]),
    st.floats(500.0, 1e6),
    st.integers(100, 8_192),
    st.integers(2, 64),
)
def test_fast_channels_are_kept_and_slow_ones_stretched(d_head: int, theta: float, own: int, s):
    config = ROTARY.replace(context_length=own).extended(own * s)
    device = torch.device("cpu")
    rotary = Rotary(d_head, theta, config.rope_scaling, own * s)
    found = rotary.frequencies(device)
    plain = Rotary(d_head, theta, None, own).frequencies(device)
    turns = plain * own / (2 * math.pi)  # within the trained context
    torch.testing.assert_close(found[turns > 32], plain[turns > 32], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[turns < 1], plain[turns < 1] / s, rtol=1e-12, atol=0)
    assert bool((found <= plain * (1 + 1e-12)).all() and (found >= plain / s * (1 - 1e-12)).all())
    first = rotary.compute(torch.zeros(1, dtype=torch.float64))[0, 0]  # the cosine of angle 0
    assert float(first) == pytest.approx(0.1 * math.log(s) + 1, rel=1e-12)


LEARNED = {"positions": "learned"}
REFUSED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "none": (LEARNED, 64, "only rotary positions can be extended.*'learned'.*own 32"),
    "sinusoidal": ({"positions": "sinusoidal"}, 64, "'sinusoidal'"),
    "relative": ({"positions": "relative"}, 64, "'relative'"),
    "recurrent": ({"mixer": "lstm", "positions": "none"}, 64, "'none'"),
    "linear": (
        {"rope_scaling": RopeScaling(kind="linear", factor=2.0)},
        64,
        r"stretched already \(linear, by 2\)",
    ),
    "llama3": ({"rope_scaling": RopeScaling(kind="llama3", factor=8.0)}, 64, "llama3, by 8"),
    "temperature": (
        {"rope_scaling": RopeScaling(kind="yarn", factor=2.0, attention_factor=1.2)},
        64,
        "yarn, by 2",
    ),
    "window": ({"window": 8, "local_layers": (1,)}, 64, "a window of 8 tokens"),
    "shorter": ({}, 31, "context 31 is shorter than the model's own 32"),
    "zero": ({}, 0, "context 0 must be a positive whole number"),
    "negative": ({}, -64, "context -64 must be"),
    "fraction": ({}, 64.0, "context 64.0 must be"),
    "words": ({}, "64", "context '64' must be"),
    "truth": ({}, True, "context True must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_extended_says_why(case: str):
    changes, context, said = REFUSED[case]
    with pytest.raises(InputError, match=said):
        ROTARY.replace(qk_norm=False, **changes).extended(context)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "bart", "modernbert-pattern", "mistral"])
def test_folders_that_cannot_be_extended(name: str):
    place = oracles.folder_of(name)
    config, _ = hf.config_of(place)
    hf.load(place, context=config.context_length)  # its own: there is nothing to do
    for call in (hf.load, hf.config_of):
        with pytest.raises(InputError, match="only rotary|a window of"):
            call(place, context=2 * config.context_length)


# the same as theirs ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "qwen3", "eurobert", "llama-yarn"])
def test_an_extended_model_is_theirs_too(name: str, tmp_path: Path):
    oracle, context = ORACLES[name], 3 * CONTEXT + 1
    ours, extras = hf.load(oracles.folder_of(name), context=context)
    hf.save(ours, tmp_path, extras)
    model_class = getattr(transformers, oracle.model_class)
    theirs = model_class.from_pretrained(tmp_path, attn_implementation="eager").eval().double()

    original = 40 if name == "llama-yarn" else CONTEXT
    assert theirs.config.max_position_embeddings == context
    rope = theirs.config.rope_parameters
    assert (rope["rope_type"], rope["original_max_position_embeddings"]) == ("yarn", original)
    assert rope["factor"] == context / original

    inputs = oracles.batch(oracle, [context, CONTEXT + 5, 9])
    tokens, layout, _ = oracles.flat(inputs)
    with torch.no_grad():
        wanted = oracles.unpad(oracles.ask_theirs(theirs, inputs).logits, inputs.ids)
        found = ours.double()(tokens, layout)
        plain, _ = hf.load(oracles.folder_of(name), dtype=torch.float64)
        without = plain(tokens, layout)
    # their angles are float32, and these positions reach further than those of the other tests
    torch.testing.assert_close(found, wanted, rtol=0, atol=5e-5)
    assert float((without - wanted).abs().max()) > 1e-2

    again, _ = hf.load(tmp_path, context=context)
    assert again.config == ours.config
    with torch.no_grad():
        torch.testing.assert_close(again.double()(tokens, layout), found, rtol=0, atol=1e-9)


# every place that knows of a length --------------------------------------------------------------


def test_every_limit_is_the_new_one(folder: Path, tmp_path: Path):
    text = (TEXT * 2)[:60]
    own, longer = tercet.load(folder), tercet.load(folder, context=LONGER)
    assert (own.limit, longer.limit) == (OWN, LONGER)
    with pytest.raises(InputError, match="32"):
        own.score(text)
    assert len(longer.score(text).log_probabilities) == 60
    with pytest.raises(InputError, match="100"):
        longer.score(TEXT * 3)
    assert len(longer.generate("the cat").ids) == LONGER - 7 and longer.embed(text).shape == (16,)

    longer.save(tmp_path)
    again = tercet.load(tmp_path)
    assert again.limit == LONGER == tercet.load(tmp_path, context=LONGER).limit
    assert again.score(text).perplexity == pytest.approx(longer.score(text).perplexity, rel=1e-6)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == LONGER
    assert Tokenizer.load(folder).max_length == OWN


def test_an_encoders_folder_states_a_length_for_embedding_too(tmp_path: Path):
    config = ROTARY.replace(decoder_layers=0, encoder_layers=2, heads=(), qk_norm=False, eos_ids=())
    tokenizer = train_tokenizer([TEXT], kind="characters", special="encoder")
    network = build(config.replace(vocab_size=tokenizer.vocab_size), seed=1)
    extras = hf.Extras(hf.EmbeddingSettings(pool="mean", max_length=20))
    tercet.LanguageModel(network, tokenizer, extras).save(tmp_path)
    assert tercet.load(tmp_path).limit == 20
    longer = tercet.load(tmp_path, context=LONGER)
    assert longer.limit == LONGER and longer.embed(TEXT * 2).shape == (16,)


def test_what_is_generated_is_what_is_read(folder: Path):
    """Through every way of writing (cache, tape) to the end of the longer context."""
    model = tercet.load(folder, context=LONGER)
    first = model.tokenizer.encode("the cat")
    written = model.generate("the cat", sampling=tercet.Sampling(temperature=1.0))
    ids = [*first, *written.ids]
    assert len(ids) == LONGER
    tokens, layout = flatten([ids])
    with torch.no_grad():
        logs = model.network(tokens, layout).log_softmax(-1)[len(first) - 1 : -1]
    found = logs.gather(1, torch.tensor(written.ids)[:, None])[:, 0]
    torch.testing.assert_close(
        found, torch.tensor(written.log_probabilities), rtol=0, atol=1e-4, check_dtype=False
    )


def test_from_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(*args: str) -> tuple[int, str, str]:
        code = cli.run(args)
        said = capsys.readouterr()
        return code, said.out, said.err

    longer = ("--context", str(LONGER))
    for args in (longer, ("--context", str(OWN)), ()):
        code, out, _ = run("info", str(folder), "--json", *args)
        told, context = json.loads(out), int(args[1]) if args else OWN
        assert code == 0 and told["longest_text"] == context
        assert told["config"]["context_length"] == context == told["plan"]["n_tokens"]
    told = json.loads(run("info", "tercet-tiny-decoder", "--json", "--context", "123456")[1])
    assert told["config"]["rope_scaling"]["kind"] == "yarn"

    asked = ("generate", str(folder), "the cat", "--json", *longer)
    code, out, err = run(*asked)
    assert code == 0 and len(json.loads(out)["ids"]) == LONGER - 7, err
    # a draft keeps to its own context, which this one could not leave
    draft = saved(tmp_path, ROTARY.replace(qk_norm=False, positions="learned", norm="layer"))
    assert run(*asked, "--draft", str(draft))[:2] == (code, out)
    for verb, args in (("generate", ("the",)), ("score", ("--text", "the cat")), ("info", ())):
        code, out, err = run(verb, str(folder), *args, "--context", "16")
        assert code == 2 and out == "" and "context 16 is shorter" in err, err
        assert err.count("\n") == 1


@needs_stories
def test_a_real_model_reads_on():
    """Twice as far costs little; far beyond its 512 tokens the model as it is knows nothing more,
    the stretched one something. (Its heads have four frequencies: a wider one loses less.)"""
    model = tercet.load(STORIES)
    stories = model.generate(
        ["Once upon a time"] * 16, sampling=tercet.Sampling(temperature=0.8), max_new_tokens=300
    )
    tokens = torch.tensor(model.tokenizer.encode(" ".join(map(str, stories))))

    def by_position(context: int | None, longest: int) -> dict[tuple[int, int], float]:
        network = tercet.load(STORIES, context=context).network
        found = cost_by_position(network, tokens, longest)
        return {place: cost.loss for place, cost in found.items()}

    own, twice = by_position(None, 1024), by_position(1024, 1024)
    assert max(abs(twice[place] - own[place]) for place in own) < 0.15
    own, longer, far = by_position(None, 4096), by_position(4096, 4096), (2048, 4096)
    assert own[far] > longer[far] + 1 and own[far] > own[256, 511] + 3

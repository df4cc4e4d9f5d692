"""One body, three families: what is mapped says what it said, what is new says nothing yet."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_decoders import TEXTS, save_decoder
from torch import Tensor

import tercet
from tercet import cli
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.convert import recover
from tercet.jobs.train.job import train
from tercet.language_model import LanguageModel, convert
from tercet.model import Transformer, build, flatten
from tercet.model.family import converted
from tercet.model.lora import LoRA
from tercet.text import train_tokenizer

Settings = dict[str, Any]
SIZES: Settings = dict(vocab_size=61, context_length=40, d_model=24, d_ff=40, n_heads=4)
ROTARY: Settings = dict(positions="rotary", norm="rms", gated=True, activation="silu")
PLAIN: Settings = dict(qkv_bias=False, attention_bias=False, ff_bias=False)
# a norm that is taken twice is the same once but for its epsilon
POST: Settings = dict(norm_order="post", final_norm=False, norm_eps=1e-10)
SHAPES: dict[str, Settings] = {
    "rotary": ROTARY | dict(qk_norm=True, n_kv_heads=2, window=3, local_layers=(1,)),
    "learned": dict(tie_embeddings=False, output_bias=True),
    "post": POST | dict(embedding_norm=True, transform="gelu"),
    "post-rms": POST | ROTARY,
    "relative": PLAIN | dict(positions="relative", norm="rms", attention_scale=1.0),
}
ROWS = [[3, 4, 5, 6, 7, 8, 9], [10, 11], list(range(20, 50))]
TOKENS, LAYOUT = flatten(ROWS)
LAYERS = {"encoder": (2, 0), "decoder": (0, 2), "encoder-decoder": (2, 2)}


def network(shape: str, family: str, seed: int = 0, **changes: Any) -> Transformer:
    """Every parameter has a value that matters: no bias of zero, no gain of one."""
    encoder, decoder = LAYERS[family]
    heads = ("masked",) if family == "encoder" else ("language",)
    layers: Settings = dict(encoder_layers=encoder, decoder_layers=decoder, heads=heads)
    both: Settings = dict(start_id=0) if family == "encoder-decoder" else {}
    settings: Settings = {**SIZES, "init_std": 0.2, **SHAPES[shape], **layers, **both, **changes}
    found = build(TransformerConfig(**settings))
    assert isinstance(found, Transformer)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=draw)
    return found.eval()


@torch.no_grad()
def logits(network: Transformer, source: list[list[int]] = ROWS[::-1]) -> Tensor:
    both = network.config.family == "encoder-decoder"
    tokens, layout = flatten(source)
    return network(TOKENS, LAYOUT, **(dict(source=tokens, source_layout=layout) if both else {}))


def causal(network: Transformer) -> Transformer:
    """An encoder forced to look back alone."""
    assert network.encoder is not None
    for pattern in network.encoder.patterns:
        pattern.causal = True  # type: ignore[assignment]
    return network


def apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).detach().abs().max())


# networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_an_encoder_of_a_decoder_is_the_decoder_but_for_its_mask(shape: str):
    decoder = network(shape, "decoder")
    encoder, tensors = converted(decoder, "encoder")
    assert encoder.config.family == "encoder" and encoder.config.heads == ("masked",)
    new = {one.name: one.origin for one in tensors if one.state != "mapped"}
    recounted = {"encoder.patterns.0.buckets.weight[32:]": "as far before a token"}
    assert new == (recounted if shape == "relative" else {})
    assert apart(logits(encoder), logits(decoder)) > 0.1  # it does look ahead
    assert apart(logits(causal(encoder)), logits(decoder)) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", ["encoder", "decoder"])
def test_there_and_back_nothing_has_changed(shape: str, family: str):
    first = network(shape, family)
    there, lost = converted(first, "decoder" if family == "encoder" else "encoder")
    back, _ = converted(there, family)
    assert back.config == first.config.replace(pool=back.config.pool)
    if (shape, family) == ("relative", "encoder"):  # a decoder knows no distance ahead
        left_out = [one.name for one in lost if one.state == "left out"]
        assert left_out == ["encoder.patterns.0.buckets.weight[16:]"]
        back, first = causal(back), causal(first)
    assert torch.equal(logits(back), logits(first))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_decoder_of_an_encoder_is_the_encoder_that_looks_back_alone(shape: str):
    encoder = network(shape, "encoder")
    decoder, _ = converted(encoder, "decoder")
    assert apart(logits(decoder), logits(causal(encoder))) < 1e-5


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "relative"])
@pytest.mark.parametrize("halves", ["one decoder", "one encoder", "two"])
def test_an_encoder_decoder_says_what_its_halves_said(shape: str, halves: str):
    bodies = [network(shape, "encoder", 1), network(shape, "decoder", 2)]
    given = {"one decoder": bodies[1:], "one encoder": bodies[:1], "two": bodies}[halves]
    both, tensors = converted(given[0], "encoder-decoder", *given[1:])
    decoder = given[-1] if halves != "one encoder" else converted(given[0], "decoder")[0]
    assert apart(logits(both), logits(decoder)) < 2e-5
    assert torch.equal(logits(both), logits(both, [[1], [2, 3], [4]]))  # whatever it reads
    encoder = given[0] if halves != "one decoder" else converted(given[0], "encoder")[0]
    with torch.no_grad():
        apart_by = apart(both.encode(TOKENS, LAYOUT), encoder.encode(TOKENS, LAYOUT))
    # two bodies have two tables of tokens, and one network has one: the decoder's
    left_out = {one.name: one.origin for one in tensors if one.state == "left out"}
    assert (apart_by < 1e-5) == ("tokens.weight" not in left_out) == (halves != "two")


def test_bodies_with_one_table_of_tokens_are_both_as_they_were():
    encoder, decoder = network("rotary", "encoder", 1), network("rotary", "decoder", 2)
    encoder.tokens.weight = decoder.tokens.weight
    encoder.tie()
    for order in ((encoder, decoder), (decoder, encoder)):
        both, tensors = converted(order[0], "encoder-decoder", order[1])
        assert apart(logits(both), logits(decoder)) < 1e-5
        assert apart(both.encode(TOKENS, LAYOUT), encoder.encode(TOKENS, LAYOUT)) < 1e-5
        assert "left out" not in {one.state for one in tensors}


def test_the_first_step_opens_the_view_of_the_source():
    both, _ = converted(network("learned", "decoder"), "encoder-decoder")
    source, source_layout = flatten(ROWS[::-1])
    said = both(TOKENS, LAYOUT, source=source, source_layout=source_layout)
    torch.nn.functional.cross_entropy(said, TOKENS).backward()
    with torch.no_grad():
        for parameter in both.parameters():
            parameter -= 0.1 * parameter.grad if parameter.grad is not None else 0
    assert apart(logits(both), logits(both, [[1], [2, 3], [4]])) > 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_the_halves_of_an_encoder_decoder(shape: str):
    both = network(shape, "encoder-decoder")
    encoder, _ = converted(both, "encoder")
    assert apart(encoder.encode(TOKENS, LAYOUT), both.encode(TOKENS, LAYOUT)) < 1e-5
    decoder, tensors = converted(both, "decoder")
    assert any(".cross." in one.name for one in tensors if one.state == "left out")
    assert both.decoder is not None
    with torch.no_grad():
        for name, parameter in both.decoder.named_parameters():
            if ".cross.layer.o." in name:
                parameter.zero_()
    # where a norm follows each sum two of them become one, which is near; elsewhere it is exact
    wanted = logits(both)
    off = float((logits(decoder) - wanted).square().mean().sqrt() / wanted.std())
    assert off < (0.1 if shape.startswith("post") else 1e-5)


def test_each_tensor_is_told_once_and_copied():
    old = network("post", "encoder-decoder")
    for to in ("encoder", "decoder"):
        new, tensors = converted(old, to)
        named = dict(new.named_parameters())
        told = [one for one in tensors if one.state != "left out"]
        assert [one.name for one in told] == list(named)
        assert sum(one.parameters for one in told) == sum(p.numel() for p in named.values())
        before = logits(old)
        with torch.no_grad():
            for parameter in new.parameters():
                parameter.zero_()
        assert torch.equal(logits(old), before)


REFUSED = {
    "encoder is already": (("encoder",), "encoder", "of the encoder family already"),
    "halves only": (("encoder-decoder",), "encoder-decoder", "choose encoder or decoder"),
    "two encoders": (("encoder", "encoder"), "encoder-decoder", "an encoder and a decoder"),
    "for one": (("encoder", "decoder"), "decoder", "leave it out"),
    "no family": (("encoder",), "transducer", "'transducer' is unknown"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_families_that_do_not_fit(case: str):
    families, to, said = REFUSED[case]
    first, *others = [network("learned", family) for family in families]
    with pytest.raises(InputError, match=said):
        converted(first, to, *others)


@pytest.mark.parametrize(
    "changes", [dict(d_model=32), dict(vocab_size=62), dict(context_length=41), dict(n_heads=2)]
)
def test_halves_of_unlike_settings_name_them(changes: Settings):
    halves = network("learned", "encoder"), network("learned", "decoder", **changes)
    ((name, value),) = changes.items()
    with pytest.raises(InputError, match=rf"{name} {SIZES[name]} and {value}"):
        converted(halves[0], "encoder-decoder", halves[1])


def test_one_body_cannot_count_relative_distances_in_two_ways():
    with pytest.raises(InputError, match="relative_buckets 64 and 32"):
        converted(network("relative", "decoder"), "encoder-decoder")


# models ------------------------------------------------------------------------------------------

NATIVE: dict[str, Settings] = {  # rows of the table, small
    "encoder": ROTARY | PLAIN | dict(encoder_layers=2, heads=("masked",), tie_embeddings=False),
    "decoder": ROTARY | PLAIN | dict(decoder_layers=2, tie_embeddings=False),
    "encoder-decoder": SHAPES["relative"]
    | dict(encoder_layers=2, decoder_layers=2, tie_embeddings=False, gated=True, norm_eps=1e-6)
    | dict(activation="gelu_tanh", init_std=None),
}


def model(family: str, **changes: Any) -> LanguageModel:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, special=family)
    ids: Settings = dict(
        vocab_size=tokenizer.vocab_size,
        eos_ids=() if tokenizer.eos_id is None else (tokenizer.eos_id,),
        pad_id=tokenizer.pad_id,
        start_id=tokenizer.pad_id if family == "encoder-decoder" else None,
    )
    settings: Settings = {**SIZES, "init_std": 0.2, **NATIVE[family], **ids, **changes}
    return LanguageModel(build(TransformerConfig(**settings)), tokenizer)


@pytest.fixture(scope="module")
def native() -> dict[str, LanguageModel]:
    return {family: model(family) for family in NATIVE}


def theirs(kind: str, folder: Path, text: str) -> Tensor:
    """What `transformers` makes of a text (and of itself as the target) by its own tokenizer."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    opened = getattr(transformers, kind).from_pretrained(folder, attn_implementation="eager")
    ids = tokenizer(text, return_tensors="pt").input_ids
    target = dict(decoder_input_ids=ids) if "Seq2Seq" in kind else {}
    with torch.no_grad():
        return opened(input_ids=ids, **target).logits[0]


@torch.no_grad()
def ours(model: LanguageModel, text: str) -> Tensor:
    network = model.network
    tokens, layout = flatten([model.tokenizer.encode(text)])
    both = model.config.family == "encoder-decoder"
    source = dict(source=tokens, source_layout=layout) if both else {}
    assert isinstance(network, Transformer)
    return network(tokens, layout, **source)


@pytest.mark.parametrize(
    "given, to, model_type, opened_as",
    [
        ("decoder", "encoder", "eurobert", "AutoModelForMaskedLM"),
        ("encoder", "decoder", "llama", "AutoModelForCausalLM"),
        ("encoder-decoder", "encoder-decoder", "t5", "AutoModelForSeq2SeqLM"),
        ("encoder-decoder", "encoder", "tercet", None),
        ("decoder", "encoder-decoder", "tercet", None),
    ],
)
def test_saved_and_loaded_it_is_the_same_and_transformers_opens_it(
    native, tmp_path: Path, given: str, to: str, model_type: str, opened_as: str | None
):
    if given == to:  # the halves of one, joined again
        halves = [convert(native[given], half).model for half in ("encoder", "decoder")]
        done = convert(halves[0], to, halves[1])
    else:
        done = convert(native[given], to)
    done.model.save(tmp_path)
    again = tercet.load(tmp_path)
    assert done.model_type == model_type
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == model_type
    assert again.config == done.model.config
    assert torch.equal(ours(again, TEXTS[1]), ours(done.model, TEXTS[1]))
    if opened_as is not None:
        assert apart(theirs(opened_as, tmp_path, TEXTS[1]), ours(again, TEXTS[1])) < 1e-4


def test_a_mask_token_begins_as_the_mean_and_changes_nothing_else(native):
    old = native["decoder"]
    done = convert(old, "encoder")
    new, rows = done.model, old.tokenizer.vocab_size
    assert new.tokenizer.mask_id == rows and new.config.vocab_size == rows + 1
    assert new.tokenizer.encode(TEXTS[0]) == old.tokenizer.encode(TEXTS[0])
    for name in ("tokens.weight", "heads.output.weight"):
        table = new.network.get_parameter(name).detach()
        off = (table[rows] - table[:rows].mean(0)).abs() / table[:rows].std(0)
        assert float(off.max()) < 0.05
    assert isinstance(new.network, Transformer)
    causal(new.network)
    assert apart(ours(new, TEXTS[0])[:, :rows], ours(old, TEXTS[0])) < 1e-5
    assert "[MASK] is a new token" in done.notes[0] and new.fill("The cat [MASK].", top_k=1)
    assert "tokens.weight[" in " ".join(one.name for one in done.tensors if one.state == "new")


def test_an_encoder_that_has_no_head_says_tokens_by_its_own_table(native):
    bare = model("encoder", heads=("pooler",), encoder_layers=1)
    new = convert(bare, "decoder").model
    assert new.config.tie_embeddings and new.generate("The cat", max_new_tokens=3).ids


def test_prompts_and_sources_are_read_as_they_are_in_training(native):
    old = native["encoder"].tokenizer
    decoder = convert(native["encoder"], "decoder").model
    plain = old.encode(TEXTS[0], special=False)
    assert decoder.tokenizer.encode(TEXTS[0]) == plain != old.encode(TEXTS[0])
    assert decoder.config.eos_ids == (old.sep_id,)
    both = convert(native["encoder"], "encoder-decoder").model
    assert both.tokenizer.encode(TEXTS[0]) == [*plain, old.sep_id]
    assert both.config.start_id == old.pad_id and both.translate("The cat", max_new_tokens=3).ids


def test_a_prompt_keeps_the_token_that_begins_it(native, tmp_path: Path):
    old = native["decoder"]
    settings = {"bos_token": "<s>", "eos_token": "<|endoftext|>"}
    begun = old.tokenizer.with_special(["<s>"], **settings).dressed(["<s>"], [])
    config = replace(old.config, vocab_size=begun.vocab_size)
    encoder = convert(LanguageModel(build(config), begun), "encoder").model
    tokenizer = encoder.tokenizer
    assert tokenizer.cls_id == begun.bos_id == tokenizer.encode(TEXTS[0])[0]
    assert tokenizer.sep_id is None  # as nothing stands at the end
    back = convert(encoder, "decoder").model.tokenizer
    assert back.encode(TEXTS[0]) == begun.encode(TEXTS[0])


def test_a_body_joins_the_encoder_that_was_made_of_it(native, tmp_path: Path):
    """Their tokenizers differ by [MASK] alone, also when they come from folders."""
    convert(native["decoder"], "encoder").model.save(tmp_path)
    encoder = tercet.load(tmp_path)
    for first, second in ((encoder, native["decoder"]), (native["decoder"], encoder)):
        both = convert(first, "encoder-decoder", second).model
        assert both.tokenizer.mask_id == encoder.tokenizer.mask_id
        said, before = ours(both, TEXTS[1]), ours(native["decoder"], TEXTS[1])
        assert apart(said[: len(before), :-1], before) < 1e-5


def test_what_a_half_loses_is_said(native):
    trained = convert(native["decoder"], "encoder").model
    with torch.no_grad():
        trained.network.tokens.weight += 0.01
    notes = convert(native["decoder"], "encoder-decoder", trained).notes
    assert any("the encoder's table of tokens is not the decoder's" in note for note in notes)
    after = model("encoder-decoder", norm_order="post", final_norm=False, positions="learned")
    assert "near to both and not the same" in convert(after, "decoder").notes[-1]
    assert len(convert(after, "encoder").notes) == 1  # of [MASK]


def test_other_tokenizers_are_refused(native):
    other = replace(native["decoder"].config, vocab_size=400)
    texts = ["another text, with other words in it, so that other pieces are learned from it"] * 3
    tokenizer = train_tokenizer(texts, vocab_size=300)
    decoder = LanguageModel(build(other), tokenizer)
    with pytest.raises(InputError, match="different tokenizers"):
        convert(convert(native["decoder"], "encoder").model, "encoder-decoder", decoder)


def test_a_text_must_end(native):
    from tercet.text.special import Special

    nobody = train_tokenizer(TEXTS, vocab_size=300, special=Special({"mask": "[MASK]"}))
    config = replace(native["encoder"].config, vocab_size=nobody.vocab_size, pad_id=None)
    with pytest.raises(InputError, match="no token that ends a text"):
        convert(LanguageModel(build(config), nobody), "decoder")


def test_what_is_no_plain_transformer(native):
    recurrent = replace(native["decoder"].config, mixer="lstm", d_head=None, n_kv_heads=None)
    old = LanguageModel(build(recurrent), native["decoder"].tokenizer)
    with pytest.raises(InputError, match="mixer 'lstm'"):
        convert(old, "encoder")
    adapted = model("decoder")
    adapted.adapt(LoRA())
    for name, parameter in adapted.network.named_parameters():
        if name.endswith(".b"):
            parameter.data.fill_(0.1)
    new = convert(adapted, "encoder").model
    assert isinstance(new.network, Transformer)
    said = ours(LanguageModel(causal(new.network), new.tokenizer), TEXTS[0])
    assert apart(said[:, :-1], ours(adapted, TEXTS[0])) < 1e-4


# the verb ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_decoder(tmp_path_factory.mktemp("convert") / "decoder")


def test_the_table_adds_up(decoder: str, tmp_path: Path, capsys):
    assert cli.run(["convert", decoder, "--to", "encoder-decoder", "--out", f"{tmp_path}/a"]) == 0
    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines()]
    assert ["new", "decoder.blocks.*.cross.layer.o.weight", "zeros", "2", "16,384"] in lines
    assert f"tercet train multi30k-tiny --set 'model={{folder: {tmp_path}/a}}'" in said.err
    sums = {" ".join(line[:-3]): line[-1] for line in lines if line[-3] == "all"}
    asked = ["convert", f"{tmp_path}/a", "--to", "decoder", "--out", f"{tmp_path}/b", "--json"]
    assert cli.run(asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["left_out"]["parameters"] > 0 == told["new"]["parameters"]
    whole = told["left_out"]["parameters"] + told["mapped"]["parameters"]
    parts = [int(sums[state].replace(",", "")) for state in ("mapped", "new")]
    assert (
        whole
        == sum(parts)
        == sum(p.numel() for p in tercet.load(tmp_path / "a").network.parameters())
    )
    assert (
        apart(ours(tercet.load(tmp_path / "b"), TEXTS[0]), ours(tercet.load(decoder), TEXTS[0]))
        == 0
    )


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--to", "decoder", "--out", "new"], "of the decoder family already"),
        (["--to", "encoder-decoder", "--with", "MODEL", "--out", "new"], "an encoder and a"),
        (["--to", "encoder", "--with", "MODEL", "--out", "new"], "leave it out"),
        (["--to", "encoder", "--out", "MODEL"], "choose another folder"),
        (["--to", "encoder", "--out", "file/new"], "cannot be written"),
        (["--to", "poem", "--out", "new"], "invalid choice 'poem'"),
    ],
)
def test_mistakes_are_said_in_a_line(
    decoder: str, tmp_path: Path, monkeypatch, capsys, arguments: list[str], said: str
):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    given = [decoder if word == "MODEL" else word for word in arguments]
    assert cli.run(["convert", decoder, *given]) == 2
    assert said in capsys.readouterr().err and not Path("new").exists()


@pytest.mark.parametrize("to", ["encoder", "decoder", "encoder-decoder"])
def test_the_command_that_recovers_it_is_understood(native, to: str):
    """A shipped recipe of the family, cut to the context, that begins with the folder."""
    config = native[to].config
    words = shlex.split(recover(config, Path("a: folder/of 'mine'")))
    assert words[:2] == ["tercet", "train"] and words[-2] == "--folder"
    changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    recipe = recipes.load(words[2], changes)
    assert recipe.model.folder == recipe.tokenizer.folder == "a: folder/of 'mine'"
    assert recipes.family(recipe) == to and recipe.objective.length <= config.context_length
    assert not recipe.objective.r_drop or config.dropout


RECOVER = """
model: {{folder: "{model}"}}
tokenizer: {{folder: "{model}"}}
data: {{files: ["{texts}"], split: line, validation: 0.2}}
objective: {{kind: masked, length: 32, rate: 0.3}}
batch: {{tokens: 256}}
train: {{steps: 15, warmup: 2, optimizer: adamw, learning_rate: 1e-2}}
evaluate: {{every: 15, prompts: ["The [MASK] slept."]}}
"""


def test_an_encoder_of_a_decoder_learns_to_fill(decoder: str, tmp_path: Path):
    convert(tercet.load(decoder), "encoder").model.save(tmp_path / "encoder")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS * 20))
    recipe = RECOVER.format(model=tmp_path / "encoder", texts=tmp_path / "texts.txt")
    train(recipes.parse(recipe), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    assert tercet.load(tmp_path / "run" / "model").can[:2] == ("embed", "fill")

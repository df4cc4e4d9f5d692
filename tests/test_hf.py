"""Folders read and written: each row there and back, old spellings, and what stands beside the
weights. What is refused is in test_hf_refused.py, numbers against `transformers` in test_parity.py.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_folders import SMALL, edit, network_of, same, saved, small, write

from tercet import hf
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.hf.names import TABLES
from tercet.hf.spelling import read_config
from tercet.hf.writing import row_for
from tercet.model import build, flatten
from tercet.presets import PRESETS, preset

TIED = ("gpt2", "openai-gpt", "t5", "bart", "marian")  # whose head has no tensors of its own
FORMS = {
    f"{model_type}-{'-'.join(form.heads) or 'bare'}": (model_type, form)
    for model_type, table in TABLES.items()
    for form in table.forms
    if form.heads or model_type not in TIED
}


# there and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_every_form_comes_back_byte_for_byte(name: str, tmp_path: Path) -> None:
    model_type, form = FORMS[name]
    network = network_of(read_config(small(model_type), form.heads))
    hf.save(network, tmp_path / "once", hf.Extras(model_type=model_type))
    again, extras = hf.load(tmp_path / "once")
    assert extras.model_type == model_type
    assert again.config == network.config and same(again, network)
    hf.save(again, tmp_path / "twice", extras)
    for file in ("config.json", "model.safetensors"):
        once, twice = (tmp_path / folder / file for folder in ("once", "twice"))
        assert once.read_bytes() == twice.read_bytes()


@pytest.mark.parametrize("model_type", TIED)
def test_a_tied_body_can_write(model_type: str, tmp_path: Path) -> None:
    hf.save(network_of(read_config(small(model_type), ())), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["architectures"][0].endswith("Model")
    assert hf.load(tmp_path)[0].config.heads == ("language",)


def test_a_tied_masked_head_without_a_tensor_of_its_own_is_found_again(tmp_path: Path) -> None:
    config = preset("tercet-tiny-encoder").replace(
        vocab_size=300, d_model=64, n_heads=1, d_ff=96, encoder_layers=1, tie_embeddings=True
    )
    hf.save(build(config), tmp_path)
    assert hf.load(tmp_path)[0].config == config


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "eurobert", "bert", "modernbert"])
def test_an_output_table_of_its_own(model_type: str, tmp_path: Path) -> None:
    network = saved(tmp_path, model_type, tie_word_embeddings=False)
    again, _ = hf.load(tmp_path)
    assert not again.config.tie_embeddings and same(again, network)
    assert again.heads.output is not None
    assert again.heads.output.weight is not again.tokens.weight


OWN = {
    "banded": dict(decoder_layers=2, window=3, local_layers=(1,), activation="gelu_tanh"),
    "2017": dict(
        encoder_layers=1,
        decoder_layers=2,
        positions="sinusoidal",
        norm_order="post",
        final_norm=False,
        activation="relu",
    ),
    "lstm": dict(decoder_layers=2, mixer="lstm", positions="none", tie_embeddings=False),
    "lstm-pair": dict(encoder_layers=2, decoder_layers=1, mixer="lstm", positions="none"),
    "two-heads": dict(encoder_layers=2, heads=("masked", "tagger"), n_labels=3),
}


@pytest.mark.parametrize("name", OWN)
def test_what_has_no_row_is_saved_in_our_own_spelling(name: str, tmp_path: Path) -> None:
    sizes = {k: SMALL[k] for k in ("vocab_size", "context_length", "d_model", "d_ff", "n_heads")}
    network = network_of(TransformerConfig(**sizes | OWN[name], eos_ids=(3,), start_id=1))
    hf.save(network, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "tercet"
    again, _ = hf.load(tmp_path)
    assert again.config == network.config and same(again, network)


def test_presets_are_native_where_a_row_exists() -> None:
    own = ("transformer-", "gpt3-")
    for name in PRESETS:
        config = preset(name)
        found = row_for(config)
        assert (found is None) == name.startswith(own), name
        if name.startswith("tercet-") and found is not None:
            kinds = {"encoder": "eurobert", "decoder": "qwen3", "encoder-decoder": "t5"}
            assert found[0]["model_type"] == kinds[config.family], name


def test_settings_of_training_come_back_although_a_row_has_no_key(tmp_path: Path) -> None:
    config = preset("tercet-tiny-encoder").replace(
        dropout=0.25, activation_dropout=0.125, vocab_size=30, pool="mean"
    )
    hf.save(network_of(config), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["model_type"] == "eurobert"
    assert values["tercet"] == {"dropout": 0.25, "activation_dropout": 0.125}
    assert hf.load(tmp_path)[0].config == config


# old checkpoints ---------------------------------------------------------------------------------


def test_prefix_masks_and_copies(tmp_path: Path) -> None:
    """As the published checkpoint of 2019: no prefix, the causal masks among the weights."""
    network = saved(tmp_path / "new")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    old = {name.removeprefix("transformer."): t.clone() for name, t in tensors.items()}
    old |= {f"h.{i}.attn.bias": torch.ones(1, 1, 16, 16) for i in range(2)}
    old["lm_head.weight"] = old["wte.weight"].clone()
    again, _ = hf.load(write(tmp_path / "old", small("gpt2"), old))
    assert again.config == network.config and same(again, network)


def test_names_and_shapes_alone_tell_what_a_folder_is(tmp_path: Path) -> None:
    """An output table that is stored although the settings call it tied is taken to be a copy."""
    network = saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    (tmp_path / "model.safetensors").unlink()
    copied = shapes | {"lm_head.weight": shapes["transformer.wte.weight"]}
    assert hf.config_of(tmp_path, shapes=copied)[0] == network.config
    other = shapes | {"lm_head.weight": (30, 12)}
    with pytest.raises(InputError, match=r"lm_head.weight has shape \(30, 12\)"):
        hf.config_of(tmp_path, shapes=other)
    with pytest.raises(InputError, match="missing: transformer.ln_f.weight"):
        hf.config_of(tmp_path, shapes={k: v for k, v in shapes.items() if "ln_f.weight" not in k})


def test_only_the_copy_is_there(tmp_path: Path) -> None:
    network = saved(tmp_path / "new", "bart")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    tensors["model.encoder.embed_tokens.weight"] = tensors.pop("model.shared.weight")
    del tensors["final_logits_bias"]  # a buffer of zeros in old files, or not there at all
    with torch.no_grad():
        assert network.heads.output_bias is not None
        network.heads.output_bias.zero_()
    again, _ = hf.load(write(tmp_path / "old", small("bart"), tensors))
    assert same(again, network)


def test_an_output_table_that_differs_is_not_tied_whatever_the_settings_say(tmp_path: Path) -> None:
    saved(tmp_path, "t5", tie_word_embeddings=False)
    edit(tmp_path, tie_word_embeddings=True, scale_decoder_outputs=False)
    again, _ = hf.load(tmp_path)
    assert not again.config.tie_embeddings and not again.config.output_scale


def test_copies_that_differ_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, "bart")
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.encoder.embed_tokens.weight"] = tensors["model.shared.weight"] + 1
    write(tmp_path, small("bart"), tensors)
    with pytest.raises(InputError, match=r"encoder.embed_tokens.weight and .*shared.weight differ"):
        hf.load(tmp_path)


def test_norms_of_2018(tmp_path: Path) -> None:
    network = saved(tmp_path / "new", "bert")
    tensors = load_file(tmp_path / "new" / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): t
        for name, t in tensors.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(16)[None]
    again, _ = hf.load(write(tmp_path / "old", small("bert"), old))
    assert again.config.heads == ("masked", "pooler", "next_sentence") and same(again, network)


def test_heads_are_those_whose_tensors_are_there(tmp_path: Path) -> None:
    """A sentence encoder is often called a masked language model by its config.json."""
    saved(tmp_path, "bert")
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {k.removeprefix("bert."): t for k, t in tensors.items() if not k.startswith("cls.")}
    write(tmp_path, small("bert", architectures=["BertForMaskedLM"]), bare)
    assert hf.load(tmp_path)[0].config.heads == ("pooler",)


def test_shards(tmp_path: Path) -> None:
    network = saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    place = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(place.values()):
        save_file({n: t for n, t in tensors.items() if place[n] == file}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": place}))
    assert same(hf.load(tmp_path)[0], network)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(InputError, match="model-1.safetensors: is missing"):
        hf.load(tmp_path)
    index.write_text("{}")
    with pytest.raises(InputError, match="index.json: damaged"):
        hf.load(tmp_path)


def test_dtypes(tmp_path: Path) -> None:
    network = saved(tmp_path, "llama")
    half = network.to(torch.bfloat16)
    hf.save(half, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert load_file(tmp_path / "model.safetensors")["lm_head.weight"].dtype == torch.bfloat16
    assert hf.load(tmp_path)[0].tokens.weight.dtype == torch.float32
    again, _ = hf.load(tmp_path, dtype=torch.bfloat16)
    assert same(again, half)


def test_a_loaded_network_can_be_trained_and_its_file_stays(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    before = (tmp_path / "model.safetensors").read_bytes()
    network, _ = hf.load(tmp_path)
    network(*flatten([[1, 2, 3]])).square().sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    hf.save(network, tmp_path)  # over the file that its weights are mapped to
    assert same(hf.load(tmp_path)[0], network)


# beside the network ------------------------------------------------------------------------------


def test_rules_of_generation(tmp_path: Path) -> None:
    saved(tmp_path, "marian")
    edit(tmp_path, bad_words_ids=[[5], [6, 7]], forced_eos_token_id=0, num_beams=6)
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [0, 3], "num_beams": 4, "decoder_start_token_id": 8})
    )
    with pytest.warns(UserWarning, match="not used: bad_words_ids of several tokens"):
        network, extras = hf.load(tmp_path)
    assert (extras.never, extras.first, extras.last) == ((5,), None, 0)
    assert network.config.eos_ids == (0, 3) and network.config.start_id == 8
    hf.save(network, tmp_path / "again", extras)
    with pytest.warns(UserWarning, match="not used: bad_words_ids of several tokens"):
        again, read = hf.load(tmp_path / "again")
    assert again.config == network.config
    assert read.generation["num_beams"] == 4 and read.never == (5,)


def test_settings_of_generation_that_are_not_used_are_named(tmp_path: Path) -> None:
    saved(tmp_path)
    neutral = {"repetition_penalty": 1.0, "min_length": 0, "typical_p": 1.0, "top_p": 0.9}
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(neutral | {"bad_words_ids": [[5]], "num_beam_groups": 1}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hf.load(tmp_path)
    path.write_text(json.dumps(neutral | {"repetition_penalty": 1.1, "no_repeat_ngram_size": 3}))
    with pytest.warns(UserWarning) as caught:
        hf.load(tmp_path)
    assert [str(w.message).split(": ")[2].split(";")[0] for w in caught] == [
        "no_repeat_ngram_size=3, repetition_penalty=1.1"
    ]


def test_a_model_saved_over_another_is_read_alone(tmp_path: Path) -> None:
    saved(tmp_path / "one", "bert")
    pooled = hf.Extras(embedding=hf.EmbeddingSettings(pool="first", normalise=True))
    hf.save(network_of(read_config(small("bert"), ())), tmp_path, pooled)
    for name in ("generation_config.json", "model-00001-of-00002.safetensors", "notes.txt"):
        (tmp_path / name).write_text("{}")
    hf.save(network_of(read_config(small("bert"), ("masked",))), tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"one", "config.json", "model.safetensors", "notes.txt"}
    assert hf.load(tmp_path)[1].embedding == hf.EmbeddingSettings()


def test_labels_keep_their_names(tmp_path: Path) -> None:
    config = read_config(small("bert"), ("tagger",)).replace(n_labels=3)
    hf.save(network_of(config), tmp_path, hf.Extras(labels=("O", "B", "I")))
    network, extras = hf.load(tmp_path)
    assert network.config.n_labels == 3 and extras.labels == ("O", "B", "I")
    assert json.loads((tmp_path / "config.json").read_text())["label2id"] == {
        "O": 0,
        "B": 1,
        "I": 2,
    }


SETTINGS = hf.EmbeddingSettings(
    pool="last",
    normalise=True,
    prompts={"query": "find: ", "plain": ""},
    default_prompt="query",
    max_length=9,
    lower_case=True,
)


@pytest.mark.parametrize("settings", [SETTINGS, hf.EmbeddingSettings(pool="first")])
def test_settings_of_embedding_come_back(settings: Any, tmp_path: Path) -> None:
    config = read_config(small("bert"), ("pooler",))
    hf.save(network_of(config), tmp_path, hf.Extras(embedding=settings))
    assert hf.load(tmp_path)[1].embedding == settings


def test_prompts() -> None:
    assert SETTINGS.prompt() == "find: " and SETTINGS.prompt("plain") == ""
    with pytest.raises(InputError, match=r"'passage'.*plain, query"):
        SETTINGS.prompt("passage")
    assert hf.EmbeddingSettings().prompt() == ""


def test_modules_that_are_not_supported_are_named(tmp_path: Path) -> None:
    config = read_config(small("bert"), ("pooler",))
    hf.save(network_of(config), tmp_path, hf.Extras(embedding=SETTINGS))
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode": ["cls", "max"]}))
    with pytest.raises(InputError, match=r"cls \+ max is not supported"):
        hf.load(tmp_path)
    pooling.write_text(json.dumps({"pooling_mode": "mean", "embedding_dimension": 12}))
    assert hf.load(tmp_path)[1].embedding.pool == "mean"
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="'Dense'"):
        hf.load(tmp_path)

"""Folders read and written: each row there and back, old spellings, and what is refused.

Numbers against `transformers` are in test_parity.py; here it is asked for its defaults alone.
"""

from __future__ import annotations

import json
import resource
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tercet import hf
from tercet.config import RopeScaling, TransformerConfig
from tercet.errors import InputError
from tercet.hf.configs import ROWS
from tercet.hf.names import TABLES
from tercet.hf.spelling import essential, read_config, write_config
from tercet.hf.writing import row_for
from tercet.model import Network, build, flatten
from tercet.presets import PRESETS, preset
from tercet.text import Tokenizer, train_tokenizer

SMALL = dict(
    vocab_size=29,
    context_length=16,
    d_model=12,
    d_ff=20,
    n_heads=3,
    d_head=4,
    n_kv_heads=3,
    encoder_layers=2,
    decoder_layers=2,
)
BESIDE: dict[str, dict[str, Any]] = {  # keys of the rows that are not one to one with ours
    "roberta": {"max_position_embeddings": 18},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 6},
    "mistral": {"sliding_window": 3},
    "eurobert": {"classifier_pooling": "mean"},
    "bart": {"decoder_attention_heads": 3, "decoder_ffn_dim": 20},
    "marian": {"decoder_attention_heads": 3, "decoder_ffn_dim": 20},
}
TIED = ("gpt2", "openai-gpt", "t5", "bart", "marian")  # whose head has no tensors of its own
FORMS = {
    f"{model_type}-{'-'.join(form.heads) or 'bare'}": (model_type, form)
    for model_type, table in TABLES.items()
    for form in table.forms
    if form.heads or model_type not in TIED
}


def small(model_type: str, **changes: Any) -> dict[str, Any]:
    """A config.json of a small model of this type."""
    keys = ROWS[model_type].keys.items()
    values = {theirs: SMALL[key.ours] for theirs, key in keys if key.ours in SMALL}
    return {"model_type": model_type, **values, **BESIDE.get(model_type, {}), **changes}


def network_of(config: TransformerConfig) -> Network:
    """Every parameter different, so that no two can be confused."""
    network = build(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=generator)
    return network.eval()


def write(folder: Path, values: Any, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    if tensors is not None:
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    return folder


def saved(folder: Path, model_type: str = "gpt2", **changes: Any) -> Network:
    form = TABLES[model_type].forms[0]
    network = network_of(read_config(small(model_type, **changes), form.heads))
    hf.save(network, folder)
    return network


def edit(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))


def same(a: Network, b: Network) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(t, theirs[k]) for k, t in ours.items())


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


# settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ROWS)
def test_our_defaults_are_those_of_transformers(model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    heads = TABLES[model_type].forms[0].heads
    full = transformers.AutoConfig.for_model(model_type).to_json_string(use_diff=False)
    assert read_config(json.loads(full), heads) == read_config({"model_type": model_type}, heads)


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 16}
OLD_SPELLINGS: list[dict[str, Any]] = [  # as the 4th version wrote them
    small("llama", rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0}),
    small("llama", rope_theta=5e5, rope_scaling=YARN, torch_dtype="bfloat16", pretraining_tp=1),
    small("llama", head_dim=None, num_key_value_heads=None, attention_bias=True, mlp_bias=True),
    small("mistral", rope_theta=1e6, sliding_window=None),
    small("qwen2", rope_theta=1e6, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    small("qwen2", rope_theta=1e6, use_sliding_window=False, sliding_window=4, max_window_layers=1),
    small("qwen3", rope_theta=1e6, attention_bias=True, head_dim=8),
    small(
        "modernbert",
        global_rope_theta=3e4,
        local_rope_theta=2e3,
        position_embedding_type="absolute",
    ),
    small("gpt2", n_ctx=16, n_inner=30, task_specific_params={"text": {"max_length": 5}}),
    small("openai-gpt", n_ctx=16, afn="gelu", n_special=0, predict_special_tokens=True),
    small(
        "t5", feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0
    ),
    small("t5", feed_forward_proj="gated-silu", num_decoder_layers=3),
    small(
        "bart", normalize_before=False, normalize_embedding=True, num_beams=4, scale_embedding=True
    ),
    small("marian", static_position_embeddings=True, bad_words_ids=[[5]], scale_embedding=True),
    small(
        "bert",
        position_embedding_type="absolute",
        hidden_act="gelu_new",
        gradient_checkpointing=False,
    ),
    small("roberta", classifier_dropout=0.3),
    small("distilbert", sinusoidal_pos_embds=False, tie_weights_=True),
]


@pytest.mark.parametrize("values", OLD_SPELLINGS, ids=lambda v: v["model_type"])
def test_old_and_new_spelling_are_one(values: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    given = {key: value for key, value in values.items() if key != "model_type"}
    theirs = transformers.AutoConfig.for_model(values["model_type"], **given)
    new = json.loads(theirs.to_json_string(use_diff=False))
    new |= {
        "decoder_start_token_id": values.get(
            "decoder_start_token_id", new.get("decoder_start_token_id")
        )
    }
    heads = TABLES[values["model_type"]].forms[0].heads
    ours, anew = read_config(values, heads), read_config(new, heads)
    if values["model_type"] == "t5":  # the new spelling leaves it to the tensors what is tied
        ours = ours.replace(tie_embeddings=anew.tie_embeddings)
    assert ours == anew


scalings = st.none() | st.builds(
    lambda kind, factor, original: RopeScaling(kind=kind, factor=factor, original_context=original),
    st.sampled_from(["yarn", "llama3"]),
    st.floats(1, 64),
    st.none() | st.integers(2, 4096),
)


@given(
    st.sampled_from(["llama", "mistral", "qwen2", "qwen3", "eurobert", "modernbert"]),
    st.sets(st.integers(0, 4)),
    scalings,
    st.floats(10, 1e7),
    st.booleans(),
    st.integers(2, 300),
)
def test_rotary_settings_come_back(
    model_type: str,
    local: set[int],
    scaling: RopeScaling | None,
    theta: float,
    bias: bool,
    window: int,
) -> None:
    heads = TABLES[model_type].forms[0].heads
    start = read_config(small(model_type, num_hidden_layers=5), heads)
    if model_type == "mistral" and local:
        local = set(range(5))
    windowed = model_type in ("mistral", "qwen2", "qwen3", "modernbert")
    config = start.replace(
        rope_theta=theta,
        rope_scaling=scaling,
        window=window if local and windowed else None,
        local_layers=tuple(sorted(local)) if windowed else (),
        qkv_bias=bias or start.qkv_bias if model_type != "mistral" else False,
        attention_bias=bias if model_type not in ("mistral", "qwen2") else False,
    )
    values = write_config(config, model_type)
    assert values is not None
    assert essential(read_config(json.loads(json.dumps(values)), heads)) == essential(config)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (small("llama", new_flag=3), "new_flag=3"),
        (small("llama", parallel_residual=False), "parallel_residual=False"),
        (small("llama", hidden_act="swiglu_fancy"), "swiglu_fancy"),
        (small("llama", partial_rotary_factor=0.5), "partial_rotary_factor"),
        (small("llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0}), "dynamic"),
        (small("llama", rope_scaling={"rope_type": "longrope", "short_factor": [1]}), "longrope"),
        (small("llama", rope_scaling={"type": "yarn", "factor": 2.0, "odd": 1}), "odd"),
        (small("llama", quantization_config={"bits": 4}), "quantization_config"),
        (small("gpt2", scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
        (small("bert", position_embedding_type="relative_key"), "relative_key"),
        (small("bert", is_decoder=True), "is_decoder=True"),
        (small("bert", pruned_heads={"0": [1]}), "pruned_heads"),
        (small("bart", normalize_before=True), "normalize_before"),
        (small("bart", decoder_ffn_dim=24), "decoder_ffn_dim=24"),
        (small("marian", share_encoder_decoder_embeddings=False), "share_encoder_decoder"),
        (small("marian", decoder_vocab_size=7), "decoder_vocab_size=7"),
        (small("qwen3", use_sliding_window=True, layer_types=["chunked_attention"] * 2), "chunked"),
        (small("t5", feed_forward_proj="gated-odd"), "odd"),
        (small("llama", num_key_value_heads=2), "n_kv_heads 2"),
        (small("llama", hidden_size="wide"), "wide"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_settings_that_are_not_honoured_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_config(values, TABLES[values["model_type"]].forms[0].heads)


def test_all_settings_that_are_not_honoured_are_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        read_config(small("llama", one=1, two=2, is_decoder=True), ("language",))
    assert all(text in str(caught.value) for text in ("one=1", "two=2", "is_decoder=True"))


def test_empty_settings_that_nobody_knows_are_let_pass() -> None:
    read_config(small("llama", one=None, three={}, four=[]), ("language",))
    for value in (0, False, ""):
        with pytest.raises(InputError, match=f"five={value!r}"):
            read_config(small("llama", five=value), ("language",))


GENERIC: dict[str, Any] = {  # what the 2nd to the 4th version wrote for every architecture
    **dict.fromkeys(
        "output_attentions output_hidden_states torchscript use_bfloat16".split(), False
    ),
    **dict.fromkeys("tf_legacy_loss is_decoder add_cross_attention do_sample".split(), False),
    **dict.fromkeys("tie_encoder_decoder early_stopping output_scores".split(), False),
    **dict.fromkeys("return_dict_in_generate remove_invalid_values".split(), False),
    **dict.fromkeys("gradient_checkpointing output_past use_cache return_dict".split(), False),
    **dict.fromkeys("finetuning_task prefix problem_type xla_device".split()),
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "max_length": 20,
    "num_beams": 1,
    "temperature": 1.0,
    "top_k": 50,
    "torch_dtype": "float32",
    "_name_or_path": "./",
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "transformers_version": "4.30.0",
    "is_encoder_decoder": False,
    "_flash_attn_2_enabled": False,
    "tokenizer_class": None,
}


@pytest.mark.parametrize("model_type", ROWS)
def test_settings_that_change_nothing_are_let_pass(model_type: str) -> None:
    heads = TABLES[model_type].forms[0].heads
    assert read_config(small(model_type, **GENERIC), heads) == read_config(small(model_type), heads)


@pytest.mark.parametrize(
    ("model_type", "key", "neutral", "other"),
    [  # as published models have them
        ("llama", "rope_interleaved", False, True),
        ("llama", "is_llama_config", True, None),
        ("llama", "transformers.js_config", {"dtype": "q4"}, None),
        ("qwen2", "use_mrope", False, True),
        ("modernbert", "causal_mask", False, True),
        ("bert", "directionality", "bidi", "left"),
        ("bert", "pooler_type", "first_token_transform", None),
    ],
)
def test_settings_of_one_architecture(model_type: str, key: str, neutral: Any, other: Any) -> None:
    heads = TABLES[model_type].forms[0].heads
    plain = read_config(small(model_type), heads)
    assert read_config(small(model_type, **{key: neutral}), heads) == plain
    if other is not None:
        with pytest.raises(InputError, match=f"{key}={other!r}.*must be {neutral!r}"):
            read_config(small(model_type, **{key: other}), heads)


def test_labels_of_each_token_and_their_mean_are_refused() -> None:
    """The default of that architecture: the mean behind the dense layer, not before it."""
    values = small("eurobert")
    for late in ({}, {"classifier_pooling": "late"}):
        told = {k: v for k, v in values.items() if k != "classifier_pooling"} | late
        assert read_config(told, ("masked",)).heads == ("masked",)
        with pytest.raises(InputError, match="classifier_pooling='late'.*known: bos, cls, mean"):
            read_config(told, ("pooler", "classifier"))


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


# bad input ---------------------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: there is no such folder"):
        hf.load(tmp_path / "nowhere")


def test_folder_without_config(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"has no config.json \(it holds notes.txt\)"):
        hf.load(tmp_path)


@pytest.mark.parametrize("text", ["{'model_type': 'bert'}", "", "\xff", "[1]"])
def test_config_that_is_no_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"config.json: (not JSON|must hold an obj)"):
        hf.load(tmp_path)


def test_unknown_model_type(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        hf.load(write(tmp_path, {"model_type": "mamba"}))
    assert "'mamba' is unknown" in str(caught.value)
    assert all(name in str(caught.value) for name in [*ROWS, "tercet"])


def test_unknown_and_missing_tensors_are_all_named(tmp_path: Path) -> None:
    saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = [name for name in tensors if name.startswith("transformer.h.1.")]
    kept = {name: t for name, t in tensors.items() if name not in lost}
    write(tmp_path, small("gpt2"), kept | {"extra.one": torch.ones(1), "extra.two": torch.ones(1)})
    with pytest.raises(InputError) as caught:
        hf.load(tmp_path)
    for name in ["extra.one", "extra.two", *lost]:
        assert name in str(caught.value)


def test_a_language_model_without_its_output_table(tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="missing: lm_head.weight"):
        hf.load(tmp_path)


def test_shape_mismatch_names_tensor_and_both_shapes(tmp_path: Path) -> None:
    saved(tmp_path)
    edit(tmp_path, n_inner=30)
    with pytest.raises(InputError, match=r"h.1.mlp.c_fc.weight has shape \(12, 48\).*\(12, 30\)"):
        hf.load(tmp_path)


def test_vocabulary_larger_than_the_embedding(tmp_path: Path) -> None:
    saved(tmp_path)
    edit(tmp_path, vocab_size=50_000)
    with pytest.raises(InputError, match=r"wte.weight has shape \(29, 12\).*vocabulary 50,000"):
        hf.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "text"])
def test_damaged_safetensors(damage: str, tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[:-100],
            "header": struct.pack("<Q", 1 << 60) + whole[8:],
            "empty": b"",
            "text": b"version https://git-lfs.github.com/spec/v1\n" * 3,
        }[damage]
    )
    with pytest.raises(InputError, match="is no whole safetensors file"):
        hf.load(tmp_path)


def test_quantised_weights(tmp_path: Path) -> None:
    saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "transformer.wte.weight"
    write(tmp_path, small("gpt2"), tensors | {name: tensors[name].to(torch.int8)})
    with pytest.raises(InputError, match=r"transformer.wte.weight holds torch.int8"):
        hf.load(tmp_path)


def test_pickled_weights_are_refused_and_may_be_allowed(tmp_path: Path) -> None:
    network = saved(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"pickled weights \(pytorch_model.bin\).*allow_pickle"):
        hf.load(tmp_path)
    assert same(hf.load(tmp_path, allow_pickle=True)[0], network)


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("boom",))


@pytest.mark.parametrize("old", [True, False])
def test_a_pickle_that_would_run_code_does_not(old: bool, tmp_path: Path, capsys: Any) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(
        {"a": Bomb()}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not old
    )
    with pytest.raises(InputError, match="cannot be read as a plain pickle of tensors"):
        hf.load(tmp_path, allow_pickle=True)
    assert "boom" not in capsys.readouterr().out


def test_pickles_of_old_versions(tmp_path: Path) -> None:
    network = saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert same(hf.load(tmp_path, allow_pickle=True)[0], network)


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no weights; expected model.safetensors"):
        hf.load(write(tmp_path, small("gpt2")))


def test_our_own_spelling_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path, {"model_type": "tercet", "d_modle": 3})
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"'d_modle' is unknown; did you mean 'd_model'"):
        hf.load(tmp_path)


def test_a_full_disk_leaves_the_old_folder_whole(tmp_path: Path) -> None:
    network = saved(tmp_path, "llama")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # a write beyond it fails
    try:
        with pytest.raises(InputError, match="cannot be written"):
            hf.save(network_of(network.config.replace(vocab_size=99)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert same(hf.load(tmp_path)[0], network)


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    network = build(read_config(small("gpt2"), ("language",)))
    with pytest.raises(InputError, match="cannot be written"):
        hf.save(network, tmp_path / "file" / "model")


DAMAGES: list[dict[str, Any]] = [
    {"model_type": []},
    {"hidden_act": []},
    {"architectures": 5},
    {"vocab_size": True},
    {"num_hidden_layers": 2.0},
    {"num_hidden_layers": "2"},
    {"num_attention_heads": 0},
    {"rope_scaling": "yarn"},
    {"rope_scaling": {"type": "yarn"}},
    {"rope_scaling": {"type": "yarn", "factor": "2"}},
    {"rope_parameters": [1]},
    {"id2label": [1]},
    {"id2label": {"a": "b"}},
    {"tercet": 5},
    {"tercet": {"dropout": "x"}},
    {"eos_token_id": "</s>"},
    {"eos_token_id": 29},
    {"bos_token_id": -2},
    {"rms_norm_eps": "a"},
    {"rms_norm_eps": float("nan")},
    {"rope_theta": "x"},
    {"tie_word_embeddings": "yes"},
    {"bad_words_ids": [5]},
    {"bad_words_ids": 5},
    {"suppress_tokens": [29]},
    {"suppress_tokens": 5},
    {"forced_bos_token_id": "x"},
    {"forced_eos_token_id": []},
]


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_damaged_settings_are_no_traceback(damage: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    (tmp_path / "generation_config.json").unlink()
    edit(tmp_path, **damage)
    with pytest.raises(InputError) as caught:
        hf.load(tmp_path)
    assert "\n" not in str(caught.value) and "config.json" in str(caught.value)


@pytest.mark.parametrize("name", ["generation_config.json", "modules.json"])
@pytest.mark.parametrize("content", [[1], 5, [{"type": "models.Pooling"}], "text"], ids=str)
def test_damaged_files_beside_are_named(name: str, content: Any, tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"{name}: damaged"):
        hf.load(tmp_path)


@pytest.mark.parametrize("content", [[], {"weight_map": {"a": 1}}, {"weight_map": 5}], ids=str)
def test_damaged_index(content: Any, tmp_path: Path) -> None:
    saved(tmp_path, "llama")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="index.json: damaged"):
        hf.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("added_tokens.json", []),
        ("tokenizer_config.json", {"eos_token": 5}),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("tokenizer_config.json", {"extra_special_tokens": 5}),
    ],
)
def test_damaged_settings_of_a_tokenizer(name: str, content: Any, tmp_path: Path) -> None:
    train_tokenizer(["a text"], vocab_size=300, special="decoder").save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError):
        Tokenizer.load(tmp_path)


def test_a_smaller_vocabulary_drops_the_tokens_that_it_lacks() -> None:
    config = preset("gpt2").replace(vocab_size=97)
    assert (config.bos_id, config.eos_ids) == (None, ())
    with pytest.raises(InputError, match="eos_ids: token 97 is not in the vocabulary of 97"):
        config.replace(eos_ids=(97,))


def test_a_tokenizer_saved_over_another_is_read_alone(tmp_path: Path) -> None:
    for name in ("vocab.txt", "old.model", "source.spm", "added_tokens.json", "notes.txt"):
        (tmp_path / name).write_text("{}")
    tokenizer = train_tokenizer(["a text"], vocab_size=300, special="decoder")
    tokenizer.save(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"tokenizer.json", "tokenizer_config.json", "notes.txt"}

"""Settings of foreign folders: their defaults, both spellings, and those that are not honoured.

`transformers` is asked for its defaults alone.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_folders import small

from tercet.config import RopeScaling
from tercet.errors import InputError
from tercet.hf.configs import ROWS
from tercet.hf.names import TABLES
from tercet.hf.spelling import essential, read_config, write_config


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

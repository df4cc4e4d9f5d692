"""Hugging Face's config.json, one row a model_type: which of their keys is which of our fields.

Data only; spelling.py reads a row in both directions. The defaults are those of `transformers`'
configuration classes: a config.json may leave out whatever stands at them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Key:
    """One of their keys is one of our fields. ``codec``: same, activation, narrow-gelu, ids."""

    ours: str
    default: Any
    codec: str = "same"


@dataclass(frozen=True)
class Row:
    """fixed: fields that all models of the row share. keys: theirs to ours, one to one. special:
    groups of keys that spelling.py translates together. must: keys of which the network knows one
    value only. irrelevant: keys that do not change what the network computes."""

    fixed: dict[str, Any]
    keys: dict[str, Key]
    special: tuple[str, ...] = ()
    must: dict[str, Any] = field(default_factory=dict)
    irrelevant: frozenset[str] = frozenset()


ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
# The first GPT's "gelu" is the approximation, and it has no exact one.
NARROW_GELU = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}

OURS = "tercet"  # the model_type of networks that have no row, and the key of fields of our own
# Fields that matter while training alone. Where a row has no key for one, it is kept under the key
# "tercet", which `transformers` carries along and does not read.
TRAINING = ("dropout", "attention_dropout", "activation_dropout", "head_dropout", "init_std")

# How to generate: old checkpoints say it in config.json, new ones in generation_config.json.
GENERATION = frozenset(
    """
    bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id
    forced_eos_token_id length_penalty max_length max_new_tokens min_length no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences remove_invalid_values repetition_penalty
    suppress_tokens temperature top_k top_p typical_p
    """.split()
)
IRRELEVANT = GENERATION | frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _flash_attn_2_enabled
    _name_or_path _num_labels
    architectures attn_implementation auto_map bos_token chunk_size_feed_forward cls_token_id
    decoder_start_token_id dtype eos_token finetuning_task force_bos_token_to_be_generated
    gradient_checkpointing id2label
    initializer_factor is_encoder_decoder label2id language mask_token mask_token_id model_type
    name_or_path num_labels output_attentions output_hidden_states output_past output_scores
    pad_token prefix pretraining_tp problem_type return_dict return_dict_in_generate sep_token_id
    task_specific_params tercet tf_legacy_loss tokenizer_class torch_dtype torchscript
    transformers.js_config transformers_version unsloth_fixed unsloth_version use_bfloat16 use_cache
    xla_device
    """.split()
)
MUST = {
    "is_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "partial_rotary_factor": 1.0,
    "per_layer_config": None,
    "position_embedding_type": "absolute",
    "pruned_heads": {},
    "quantization_config": None,
    "tie_encoder_decoder": False,
}


def _ids(bos: int | None, eos: int | None, pad: int | None) -> dict[str, Key]:
    return {
        "bos_token_id": Key("bos_id", bos),
        "eos_token_id": Key("eos_ids", eos, "ids"),
        "pad_token_id": Key("pad_id", pad),
    }


# BERT, RoBERTa, DistilBERT, ModernBERT -----------------------------------------------------------

_POST_NORM = {"norm_order": "post", "final_norm": False}
_MASKED_BERT = _POST_NORM | {"embedding_norm": True, "output_bias": True}
_BERT_KEYS = {
    "vocab_size": Key("vocab_size", 30522),
    "hidden_size": Key("d_model", 768),
    "num_hidden_layers": Key("encoder_layers", 12),
    "num_attention_heads": Key("n_heads", 12),
    "intermediate_size": Key("d_ff", 3072),
    "hidden_act": Key("activation", "gelu", "activation"),
    "hidden_dropout_prob": Key("dropout", 0.1),
    "attention_probs_dropout_prob": Key("attention_dropout", 0.1),
    "initializer_range": Key("init_std", 0.02),
    "layer_norm_eps": Key("norm_eps", 1e-12),
    "tie_word_embeddings": Key("tie_embeddings", True),
}
BERT = Row(
    fixed=_MASKED_BERT,
    keys=_BERT_KEYS | _ids(None, None, 0) | {"max_position_embeddings": Key("context_length", 512)},
    special=("token_types", "transform", "classifier_dropout"),
    must={"directionality": "bidi"},
    # of the TensorFlow original, in the multilingual and the Chinese model; no code reads them
    irrelevant=frozenset(
        "pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head "
        "pooler_type".split()
    ),
)
ROBERTA = Row(
    fixed=_MASKED_BERT | {"transform": "gelu"},
    keys=_BERT_KEYS | _ids(0, 2, 1) | {"vocab_size": Key("vocab_size", 50265)},
    special=("token_types", "padded_positions", "classifier_dropout"),
)
DISTILBERT = Row(
    fixed=_MASKED_BERT | {"norm_eps": 1e-12},
    keys=_ids(None, None, 0)
    | {
        "vocab_size": Key("vocab_size", 30522),
        "max_position_embeddings": Key("context_length", 512),
        "n_layers": Key("encoder_layers", 6),
        "n_heads": Key("n_heads", 12),
        "dim": Key("d_model", 768),
        "hidden_dim": Key("d_ff", 3072),
        "dropout": Key("dropout", 0.1),
        "attention_dropout": Key("attention_dropout", 0.1),
        "activation": Key("activation", "gelu", "activation"),
        "initializer_range": Key("init_std", 0.02),
        "seq_classif_dropout": Key("head_dropout", 0.2),
        "tie_word_embeddings": Key("tie_embeddings", True),
    },
    special=("transform",),
    # sinusoidal_pos_embds only says how the table began; the checkpoint holds it
    irrelevant=frozenset({"qa_dropout", "sinusoidal_pos_embds", "tie_weights_"}),
)
MODERNBERT = Row(
    fixed={"positions": "rotary", "embedding_norm": True, "first_norm": False, "gated": True},
    keys=_ids(50281, 50282, 50283)
    | {
        "vocab_size": Key("vocab_size", 50368),
        "hidden_size": Key("d_model", 768),
        "intermediate_size": Key("d_ff", 1152),
        "num_hidden_layers": Key("encoder_layers", 22),
        "num_attention_heads": Key("n_heads", 12),
        "hidden_activation": Key("activation", "gelu", "activation"),
        "max_position_embeddings": Key("context_length", 8192),
        "initializer_range": Key("init_std", 0.02),
        "norm_eps": Key("norm_eps", 1e-5),
        "norm_bias": Key("norm_bias", False),
        "mlp_bias": Key("ff_bias", False),
        "mlp_dropout": Key("activation_dropout", 0.0),
        "attention_dropout": Key("attention_dropout", 0.0),
        "embedding_dropout": Key("dropout", 0.0),
        "decoder_bias": Key("output_bias", True),
        "classifier_activation": Key("transform", "gelu", "activation"),
        "classifier_bias": Key("transform_bias", False),
        "classifier_dropout": Key("head_dropout", 0.0),
        "tie_word_embeddings": Key("tie_embeddings", True),
    },
    special=("attention_bias", "global_and_local", "classifier_pooling"),
    must={"causal_mask": False, "is_causal": False},
    irrelevant=frozenset(
        "initializer_cutoff_factor layer_norm_eps deterministic_flash_attn reference_compile "
        "sparse_prediction sparse_pred_ignore_index repad_logits_with_grad".split()
    ),
)

# EuroBERT, Llama, Mistral, Qwen2, Qwen3 ----------------------------------------------------------

_ROTARY = {"positions": "rotary", "norm": "rms", "gated": True}


def _rotary_keys(
    layers: str, vocab_size: int, d_model: int, d_ff: int, depth: int, heads: int
) -> dict[str, Key]:
    return {
        "vocab_size": Key("vocab_size", vocab_size),
        "hidden_size": Key("d_model", d_model),
        "intermediate_size": Key("d_ff", d_ff),
        "num_hidden_layers": Key(layers, depth),
        "num_attention_heads": Key("n_heads", heads),
        "num_key_value_heads": Key("n_kv_heads", None),
        "head_dim": Key("d_head", None),
        "hidden_act": Key("activation", "silu", "activation"),
        "max_position_embeddings": Key("context_length", 32768),
        "initializer_range": Key("init_std", 0.02),
        "rms_norm_eps": Key("norm_eps", 1e-6),
        "attention_dropout": Key("attention_dropout", 0.0),
        "tie_word_embeddings": Key("tie_embeddings", False),
    }


EUROBERT = Row(
    fixed=_ROTARY,
    keys=_rotary_keys("encoder_layers", 128256, 768, 3072, 12, 12)
    | _ids(128000, 128001, 128001)
    | {
        "max_position_embeddings": Key("context_length", 8192),
        "rms_norm_eps": Key("norm_eps", 1e-5),
    },
    special=("attention_bias", "one_bias", "rope", "classifier_pooling"),
    irrelevant=frozenset({"clf_pooling", "hidden_dropout"}),
)
LLAMA = Row(
    fixed=_ROTARY,
    keys=_rotary_keys("decoder_layers", 32000, 4096, 11008, 32, 32)
    | _ids(1, 2, None)
    | {
        "max_position_embeddings": Key("context_length", 2048),
        "mlp_bias": Key("ff_bias", False),
    },
    special=("attention_bias", "rope"),
    must={"rope_interleaved": False},
    irrelevant=frozenset({"is_llama_config"}),
)
_NO_BIAS = {"qkv_bias": False, "attention_bias": False, "ff_bias": False}
MISTRAL = Row(
    fixed=_ROTARY | _NO_BIAS,
    keys=_rotary_keys("decoder_layers", 32000, 4096, 14336, 32, 32)
    | _ids(1, 2, None)
    | {
        "max_position_embeddings": Key("context_length", 131072),
        "num_key_value_heads": Key("n_kv_heads", 8),
    },
    special=("window_everywhere", "rope"),
)
_QWEN = _rotary_keys("decoder_layers", 151936, 4096, 22016, 32, 32) | _ids(None, None, None)
QWEN2 = Row(
    fixed=_ROTARY | _NO_BIAS | {"qkv_bias": True},
    keys=_QWEN | {"num_key_value_heads": Key("n_kv_heads", 32)},
    special=("window_by_layer", "rope"),
    must={"use_mrope": False},
)
QWEN3 = Row(
    fixed=_ROTARY | {"ff_bias": False, "qk_norm": True},
    keys=_QWEN | {"num_key_value_heads": Key("n_kv_heads", 32), "head_dim": Key("d_head", 128)},
    special=("attention_bias", "window_by_layer", "rope"),
)

# GPT-1, GPT-2 ------------------------------------------------------------------------------------

_GPT_KEYS = {
    "n_positions": Key("context_length", 512),
    "n_embd": Key("d_model", 768),
    "n_layer": Key("decoder_layers", 12),
    "n_head": Key("n_heads", 12),
    "resid_pdrop": Key("dropout", 0.1),
    "attn_pdrop": Key("attention_dropout", 0.1),
    "layer_norm_epsilon": Key("norm_eps", 1e-5),
    "initializer_range": Key("init_std", 0.02),
    "tie_word_embeddings": Key("tie_embeddings", True),
}
_GPT_IRRELEVANT = frozenset(
    "n_ctx embd_pdrop summary_type summary_use_proj summary_activation summary_proj_to_labels "
    "summary_first_dropout n_special predict_special_tokens reorder_and_upcast_attn".split()
)
GPT1 = Row(
    fixed=_POST_NORM,
    keys=_GPT_KEYS
    | _ids(None, None, None)
    | {
        "vocab_size": Key("vocab_size", 40478),
        "afn": Key("activation", "gelu", "narrow-gelu"),
    },
    special=("four_times",),
    irrelevant=_GPT_IRRELEVANT,
)
GPT2 = Row(
    fixed={},
    keys=_GPT_KEYS
    | _ids(50256, 50256, None)
    | {
        "vocab_size": Key("vocab_size", 50257),
        "n_positions": Key("context_length", 1024),
        "activation_function": Key("activation", "gelu_new", "activation"),
    },
    special=("inner_width", "scale_attention"),
    must={"scale_attn_by_inverse_layer_idx": False},
    irrelevant=_GPT_IRRELEVANT,
)

# T5, BART, Marian --------------------------------------------------------------------------------

T5 = Row(
    fixed=_NO_BIAS
    | {"positions": "relative", "norm": "rms", "attention_scale": 1.0, "init_std": None},
    keys={
        "vocab_size": Key("vocab_size", 32128),
        "n_positions": Key("context_length", 512),
        "d_model": Key("d_model", 512),
        "d_kv": Key("d_head", 64),
        "d_ff": Key("d_ff", 2048),
        "num_layers": Key("encoder_layers", 6),
        "num_heads": Key("n_heads", 8),
        "relative_attention_num_buckets": Key("relative_buckets", 32),
        "relative_attention_max_distance": Key("relative_max_distance", 128),
        "layer_norm_epsilon": Key("norm_eps", 1e-6),
        "classifier_dropout": Key("head_dropout", 0.0),
        "tie_word_embeddings": Key("tie_embeddings", True),
    }
    | _ids(None, 1, 0),
    special=("gated_projection", "one_dropout", "decoder_depth", "output_scale", "start_at_pad"),
)
_BART_KEYS = {
    "d_model": Key("d_model", 1024),
    "max_position_embeddings": Key("context_length", 1024),
    "encoder_layers": Key("encoder_layers", 12),
    "decoder_layers": Key("decoder_layers", 12),
    "encoder_attention_heads": Key("n_heads", 16),
    "encoder_ffn_dim": Key("d_ff", 4096),
    "activation_function": Key("activation", "gelu", "activation"),
    "dropout": Key("dropout", 0.1),
    "attention_dropout": Key("attention_dropout", 0.0),
    "activation_dropout": Key("activation_dropout", 0.0),
    "classifier_dropout": Key("head_dropout", 0.0),
    "init_std": Key("init_std", 0.02),
    "scale_embedding": Key("embedding_scale", False),
    "tie_word_embeddings": Key("tie_embeddings", True),
}
_BART_MUST = {"normalize_before": False, "add_final_layer_norm": False, "add_bias_logits": False}
_BART_IRRELEVANT = frozenset(
    "classif_dropout encoder_layerdrop decoder_layerdrop num_hidden_layers extra_pos_embeddings "
    "do_blenderbot_90_layernorm".split()
)
BART = Row(
    fixed=_POST_NORM | {"embedding_norm": True, "output_bias": True, "position_offset": 2},
    keys=_BART_KEYS
    | _ids(0, 2, 1)
    | {"vocab_size": Key("vocab_size", 50265), "decoder_start_token_id": Key("start_id", 2)},
    special=("same_sides",),
    must=_BART_MUST | {"normalize_embedding": True, "static_position_embeddings": False},
    irrelevant=_BART_IRRELEVANT,
)
MARIAN = Row(
    fixed=_POST_NORM | {"positions": "sinusoidal", "sinusoid_halves": True, "output_bias": True},
    keys=_BART_KEYS
    | _ids(None, 0, 58100)
    | {"vocab_size": Key("vocab_size", 58101), "decoder_start_token_id": Key("start_id", 58100)},
    special=("same_sides", "same_vocabulary"),
    must=_BART_MUST
    | {
        "normalize_embedding": False,
        "static_position_embeddings": True,
        "share_encoder_decoder_embeddings": True,
    },
    irrelevant=_BART_IRRELEVANT,
)

ROWS = {  # in the order in which a network of our own looks for its row
    "qwen3": QWEN3,
    "eurobert": EUROBERT,
    "t5": T5,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "qwen2": QWEN2,
    "gpt2": GPT2,
    "openai-gpt": GPT1,
    "bert": BERT,
    "roberta": ROBERTA,
    "distilbert": DISTILBERT,
    "modernbert": MODERNBERT,
    "bart": BART,
    "marian": MARIAN,
}

"""Which random small `transformers` models are the oracles, several an architecture. Data only.

Odd sizes, grouped heads, and every setting that the tables of tercet/hf honour, at least once away
from its default. What is asked of them is in oracles.py.
"""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]

VOCABULARY = 97
CONTEXT = 211  # the laws read sequences of up to 200 tokens
SPECIAL = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
N_SPECIAL = 3  # inputs are drawn above these ids

MODEL_CLASSES = {
    "bert": "BertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
    "eurobert": "EuroBertForMaskedLM",
    "gpt1": "OpenAIGPTLMHeadModel",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "t5": "T5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
    "marian": "MarianMTModel",
}

# the sizes of each architecture ------------------------------------------------------------------

_BERT: Settings = SPECIAL | {
    "vocab_size": VOCABULARY,
    "hidden_size": 35,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "intermediate_size": 61,
    "max_position_embeddings": CONTEXT,
}
_LLAMA: Settings = _BERT | {"hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 2}
_GPT: Settings = SPECIAL | {
    "vocab_size": VOCABULARY,
    "n_positions": CONTEXT,
    "n_embd": 33,
    "n_layer": 3,
    "n_head": 3,
}
_BART: Settings = SPECIAL | {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "d_model": 30,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 53,
    "decoder_ffn_dim": 53,
    "encoder_attention_heads": 5,
    "decoder_attention_heads": 5,
    "decoder_start_token_id": 2,
}

SIZES: dict[str, Settings] = {
    "bert": _BERT | {"type_vocab_size": 2},
    "roberta": _BERT | {"type_vocab_size": 1, "max_position_embeddings": CONTEXT + 2},
    "distilbert": SPECIAL
    | {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "dim": 35,
        "n_layers": 3,
        "n_heads": 5,
        "hidden_dim": 61,
    },
    "modernbert": _BERT
    | {
        "hidden_size": 30,
        "num_hidden_layers": 5,
        "num_attention_heads": 3,
        "intermediate_size": 47,
        "local_attention": 6,
        "cls_token_id": 0,
        "sep_token_id": 2,
    },
    "eurobert": _LLAMA,
    "gpt1": _GPT,
    "gpt2": _GPT,
    "llama": _LLAMA,
    "mistral": _LLAMA | {"sliding_window": 5},
    "qwen2": _LLAMA,
    "qwen3": _LLAMA | {"head_dim": 10},
    "t5": {
        "vocab_size": VOCABULARY,
        "d_model": 30,
        "d_kv": 7,
        "d_ff": 53,
        "num_layers": 3,  # transformers sizes its cache by the encoder
        "num_decoder_layers": 2,
        "num_heads": 3,
        "relative_attention_num_buckets": 10,
        "relative_attention_max_distance": 29,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    },
    "bart": _BART,
    "marian": _BART | {"scale_embedding": True, "activation_function": "swish"},
}

# what is special ---------------------------------------------------------------------------------

_LOCAL = ["sliding_attention", "full_attention", "sliding_attention"]
_SLIDING = {"use_sliding_window": True, "sliding_window": 5}
_LINEAR = {"rope_type": "linear", "factor": 3.0, "rope_theta": 900.0}
_YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 40,
    "rope_theta": 500.0,
}
_MSCALE = {
    "mscale": 0.7,
    "mscale_all_dim": 1.3,
    "beta_fast": 9.0,
    "beta_slow": 2.0,
    "truncate": False,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 5000.0,
}
_THETAS = {
    "full_attention": {"rope_type": "default", "rope_theta": 700.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 90.0},
}
_BIASES = {"attention_bias": True, "mlp_bias": True}

VARIANTS: dict[str, Settings] = {
    "bert": {},
    "bert-relu": {"hidden_act": "relu", "type_vocab_size": 3, "layer_norm_eps": 1e-6},
    "bert-untied": {"hidden_act": "gelu_new", "tie_word_embeddings": False},
    "roberta": {},
    "roberta-silu": {"hidden_act": "silu", "type_vocab_size": 2, "tie_word_embeddings": False},
    "distilbert": {},
    "distilbert-relu": {"activation": "relu", "tie_word_embeddings": False},
    "modernbert": {},
    "modernbert-biases": _BIASES
    | {"norm_bias": True, "decoder_bias": False, "classifier_bias": True},
    "modernbert-pattern": {"rope_parameters": _THETAS, "layer_types": (_LOCAL * 2)[:5]},
    "modernbert-yarn": {
        "rope_parameters": {f"{kind}_attention": _YARN for kind in ("full", "sliding")},
        "global_attn_every_n_layers": 2,
        "hidden_activation": "silu",
        "classifier_activation": "relu",
        "tie_word_embeddings": False,
    },
    "eurobert": {},
    "eurobert-biases": _BIASES | {"tie_word_embeddings": True, "rope_parameters": _LINEAR},
    "gpt1": {},
    "gpt1-relu": {"afn": "relu"},
    "gpt1-untied": {"afn": "swish", "tie_word_embeddings": False},
    "gpt2": {},
    "gpt2-relu": {"n_inner": 41, "activation_function": "relu", "layer_norm_epsilon": 1e-6},
    "gpt2-unscaled": {"scale_attn_weights": False, "activation_function": "gelu"},
    "gpt2-untied": {"tie_word_embeddings": False, "activation_function": "silu"},
    "llama": {},
    "llama-biases": _BIASES | {"head_dim": 10, "hidden_act": "gelu"},
    "llama-tied": {"tie_word_embeddings": True, "num_key_value_heads": 1},
    "llama-linear": {"rope_parameters": _LINEAR},
    "llama-yarn": {"rope_parameters": _YARN},
    "llama-yarn-mscale": {"rope_parameters": _YARN | _MSCALE},
    "llama-yarn-factor": {"rope_parameters": _YARN | {"attention_factor": 1.2}},
    "llama-llama3": {"rope_parameters": _LLAMA3},
    "mistral": {},
    "mistral-full": {"sliding_window": None, "head_dim": 8, "rope_parameters": _LLAMA3},
    "qwen2": {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
    "qwen2-sliding": _SLIDING | {"max_window_layers": 1, "tie_word_embeddings": True},
    "qwen3": {},
    "qwen3-sliding": _SLIDING
    | {
        "layer_types": _LOCAL,
        "attention_bias": True,
        "head_dim": 8,
        "tie_word_embeddings": True,
        "rope_parameters": _YARN,
    },
    "t5": {"feed_forward_proj": "relu"},
    "t5-gated": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "t5-silu": {"feed_forward_proj": "gated-silu", "layer_norm_epsilon": 1e-5},
    "bart": {},
    "bart-scaled": {"scale_embedding": True, "activation_function": "relu"},
    "marian": {},
    "marian-plain": {"scale_embedding": False, "activation_function": "relu"},
}

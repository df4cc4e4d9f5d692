"""Random small `transformers` models, several an architecture, and how to ask both the same.

Odd sizes, grouped heads, every flag that a config table honours; every parameter is given a value
that matters (no zero bias, no norm weight of one). The tests of parity and of laws read from here.
"""

from __future__ import annotations

import atexit
import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tercet import hf
from tercet.model.layout import flatten

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

VOCABULARY = 97
CONTEXT = 211  # the laws read sequences of up to 200 tokens
SPECIAL = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
GAIN = 0.6
N_SPECIAL = 3  # inputs are drawn above these ids


@dataclass(frozen=True)
class Oracle:
    """One random model of `transformers`: the class with a head, and the settings of its config."""

    name: str  # "llama-yarn": architecture, then what is special about this one
    model_class: str
    settings: dict[str, Any] = field(hash=False)

    @property
    def architecture(self) -> str:
        return self.name.split("-")[0]

    @property
    def family(self) -> str:
        if self.architecture in ("t5", "bart", "marian"):
            return "encoder-decoder"
        encoders = ("bert", "roberta", "distilbert", "modernbert", "eurobert")
        return "encoder" if self.architecture in encoders else "decoder"

    @property
    def float64_tolerance(self) -> float:
        """The other references round norms or position tables to float32."""
        exact = ("bert", "roberta", "distilbert", "gpt1", "gpt2", "bart")
        return 1e-9 if self.architecture in exact else 1e-5

    @property
    def n_types(self) -> int:
        return self.settings.get("type_vocab_size", 0) if self.family == "encoder" else 0

    def build(self, dtype: torch.dtype = torch.float32) -> Any:
        """The model in eval mode with eager attention, the same every time."""
        model_class = getattr(transformers, self.model_class)
        config = model_class.config_class(**self.settings, attn_implementation="eager")
        model = model_class(config)
        if self.architecture == "t5" and not config.scale_decoder_outputs:
            # transformers 5 ties a fresh T5 v1.1 although its checkpoints carry two matrices
            model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
        randomise(model, seed=sum(map(ord, self.name)))
        model.generation_config = transformers.GenerationConfig(
            pad_token_id=1, decoder_start_token_id=config.to_dict().get("decoder_start_token_id")
        )
        return model.eval().to(dtype)


def randomise(module: nn.Module, seed: int) -> None:
    """Matrices a little below variance 1 / min(shape), norms around 1, biases around 0, all random.

    Their rotary angles are float32: 1e-5 radians at position 200. ``GAIN`` keeps that from growing.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = [(name, p.data) for name, p in module.named_parameters() if p.requires_grad]
    tensors += [(name, b) for name, b in module.named_buffers() if name == "final_logits_bias"]
    for name, tensor in tensors:
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() > 1 and min(tensor.shape) > 1:
            tensor.copy_(noise * GAIN * min(tensor.shape) ** -0.5)
        elif "bias" in name:
            tensor.copy_(noise * 0.3)
        else:
            tensor.copy_(1 + noise * 0.3)


# the settings ------------------------------------------------------------------------------------

_BERT = SPECIAL | {
    "vocab_size": VOCABULARY,
    "hidden_size": 35,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "intermediate_size": 61,
    "max_position_embeddings": CONTEXT,
}
_DISTILBERT = SPECIAL | {
    "vocab_size": VOCABULARY,
    "dim": 35,
    "n_layers": 3,
    "n_heads": 5,
    "hidden_dim": 61,
    "max_position_embeddings": CONTEXT,
}
_MODERNBERT = (_BERT | SPECIAL) | {
    "hidden_size": 30,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "intermediate_size": 47,
    "local_attention": 6,
    "cls_token_id": 0,
    "sep_token_id": 2,
}
_LLAMA = (_BERT | SPECIAL) | {
    "hidden_size": 36,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
}
_GPT1 = SPECIAL | {
    "vocab_size": VOCABULARY,
    "n_positions": CONTEXT,
    "n_embd": 33,
    "n_layer": 3,
    "n_head": 3,
}
_T5 = {
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
}
_BART = SPECIAL | {
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
_YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 40,
    "rope_theta": 500.0,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 5000.0,
}
_LOCAL = ["sliding_attention", "full_attention", "sliding_attention"]


def _oracles() -> Iterator[Oracle]:
    def bert_like(name: str, prefix: str, **changes: Any) -> Oracle:
        return Oracle(name, f"{prefix}ForMaskedLM", _BERT | changes)

    yield bert_like("bert", "Bert", type_vocab_size=2)
    yield bert_like("bert-relu", "Bert", hidden_act="relu", type_vocab_size=3, layer_norm_eps=1e-6)
    yield bert_like("bert-tanh", "Bert", hidden_act="gelu_new", type_vocab_size=2)
    yield bert_like("roberta", "Roberta", type_vocab_size=1, max_position_embeddings=CONTEXT + 2)
    yield Oracle("distilbert", "DistilBertForMaskedLM", _DISTILBERT)
    yield Oracle("distilbert-relu", "DistilBertForMaskedLM", _DISTILBERT | {"activation": "relu"})

    def modern(name: str, **changes: Any) -> Oracle:
        return Oracle(name, "ModernBertForMaskedLM", _MODERNBERT | changes)

    yield modern("modernbert")
    biases = {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "decoder_bias": False}
    yield modern("modernbert-biases", **biases, classifier_bias=True)
    thetas = {
        "full_attention": {"rope_type": "default", "rope_theta": 700.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 90.0},
    }
    yield modern("modernbert-pattern", rope_parameters=thetas, layer_types=(_LOCAL * 2)[:5])

    def euro(name: str, **changes: Any) -> Oracle:
        return Oracle(name, "EuroBertForMaskedLM", _LLAMA | changes)

    yield euro("eurobert")
    yield euro("eurobert-biases", attention_bias=True, mlp_bias=True, tie_word_embeddings=True)

    yield Oracle("gpt1", "OpenAIGPTLMHeadModel", _GPT1)
    yield Oracle("gpt1-relu", "OpenAIGPTLMHeadModel", _GPT1 | {"afn": "relu"})
    yield Oracle("gpt2", "GPT2LMHeadModel", _GPT1)
    yield Oracle(
        "gpt2-relu", "GPT2LMHeadModel", _GPT1 | {"n_inner": 41, "activation_function": "relu"}
    )
    yield Oracle("gpt2-unscaled", "GPT2LMHeadModel", _GPT1 | {"scale_attn_weights": False})

    def causal(name: str, prefix: str, **changes: Any) -> Oracle:
        return Oracle(name, f"{prefix}ForCausalLM", _LLAMA | changes)

    yield causal("llama", "Llama")
    yield causal("llama-biases", "Llama", attention_bias=True, mlp_bias=True, head_dim=10)
    yield causal("llama-tied", "Llama", tie_word_embeddings=True, num_key_value_heads=1)
    linear = {"rope_type": "linear", "factor": 3.0, "rope_theta": 900.0}
    yield causal("llama-linear", "Llama", rope_parameters=linear)
    yield causal("llama-yarn", "Llama", rope_parameters=_YARN)
    mscale = {
        "mscale": 0.7,
        "mscale_all_dim": 1.3,
        "beta_fast": 9.0,
        "beta_slow": 2.0,
        "truncate": False,
    }
    yield causal("llama-yarn-mscale", "Llama", rope_parameters=_YARN | mscale)
    yield causal("llama-yarn-factor", "Llama", rope_parameters=_YARN | {"attention_factor": 1.2})
    yield causal("llama-llama3", "Llama", rope_parameters=_LLAMA3)
    yield causal("mistral", "Mistral", sliding_window=5)
    yield causal("mistral-full", "Mistral", sliding_window=None, head_dim=8)
    yield causal("qwen2", "Qwen2")
    sliding = {"use_sliding_window": True, "sliding_window": 5}
    yield causal("qwen2-sliding", "Qwen2", **sliding, max_window_layers=1, tie_word_embeddings=True)
    yield causal("qwen3", "Qwen3", head_dim=10)
    pattern = {"layer_types": _LOCAL, "attention_bias": True, "head_dim": 8}
    yield causal("qwen3-sliding", "Qwen3", **sliding, **pattern, tie_word_embeddings=True)

    def t5(name: str, **changes: Any) -> Oracle:
        return Oracle(name, "T5ForConditionalGeneration", _T5 | changes)

    yield t5("t5", feed_forward_proj="relu")
    yield t5("t5-gated", feed_forward_proj="gated-gelu", tie_word_embeddings=False)

    def bart(name: str, **changes: Any) -> Oracle:
        return Oracle(name, "BartForConditionalGeneration", _BART | changes)

    yield bart("bart")
    yield bart("bart-scaled", scale_embedding=True, activation_function="relu")

    def marian(name: str, **changes: Any) -> Oracle:
        return Oracle(name, "MarianMTModel", _BART | {"scale_embedding": True} | changes)

    yield marian("marian", activation_function="swish")
    yield marian("marian-plain", scale_embedding=False, activation_function="relu")


ORACLES = {oracle.name: oracle for oracle in _oracles()}
FIRST = [name for name in ORACLES if "-" not in name]  # one an architecture


# asking both -------------------------------------------------------------------------------------


@dataclass
class Batch:
    """Ragged ids of the only stack, or of the decoder; sources and token types where needed."""

    ids: list[list[int]]
    sources: list[list[int]] | None = None
    types: list[list[int]] | None = None


def batch(oracle: Oracle, lengths: list[int], seed: int = 0) -> Batch:
    """Random ids above the special ones; the sources are about a third longer."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, sizes: list[int]) -> list[list[int]]:
        return [torch.randint(low, high, (size,), generator=generator).tolist() for size in sizes]

    sources = types = None
    ids = draw(N_SPECIAL, VOCABULARY, lengths)
    if oracle.family == "encoder-decoder":
        longest = CONTEXT - 11
        sources = draw(N_SPECIAL, VOCABULARY, [min(longest, n + n // 3 + 1) for n in lengths[::-1]])
    if oracle.n_types:
        types = draw(0, oracle.n_types, lengths)
    return Batch(ids, sources, types)


def pad(rows: list[list[int]], filler: int = 1) -> tuple[Tensor, Tensor]:
    """(B, T) ids padded on the right, and the 1/0 mask."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [filler] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def ask_theirs(model: Any, inputs: Batch, labels: Tensor | None = None) -> Any:
    """The padded answer of `transformers`, with hidden states and attentions."""
    ids, mask = pad(inputs.ids)
    arguments: dict[str, Any] = {"output_hidden_states": True, "output_attentions": True}
    if labels is not None:
        arguments["labels"] = labels
    if inputs.sources is not None:
        source, source_mask = pad(inputs.sources)
        arguments |= {"input_ids": source, "attention_mask": source_mask, "decoder_input_ids": ids}
    else:
        arguments |= {"input_ids": ids, "attention_mask": mask}
    if inputs.types is not None:
        arguments["token_type_ids"] = pad(inputs.types, 0)[0]
    return model(**arguments)


def their_states(output: Any) -> Tensor:
    """(B, T, D) last hidden states of the family's last stack."""
    hidden = getattr(output, "decoder_hidden_states", None)
    return (output.hidden_states if hidden is None else hidden)[-1]


def unpad(padded: Tensor, rows: list[list[int]]) -> Tensor:
    """(B, T, ...) to the flat (N, ...) of the rows' real lengths."""
    return torch.cat([padded[i, : len(row)] for i, row in enumerate(rows)])


def flat(inputs: Batch) -> tuple[Tensor, Any, dict[str, Any]]:
    """Our spelling of a batch: tokens (N,), layout, and the keywords of `net.states`."""
    tokens, layout = flatten(inputs.ids)
    keywords: dict[str, Any] = {}
    if inputs.sources is not None:
        keywords["source"], keywords["source_layout"] = flatten(inputs.sources)
    if inputs.types is not None:
        keywords["types"] = torch.tensor(sum(inputs.types, []))
    return tokens, layout, keywords


@functools.cache
def folder_of(name: str) -> str:
    """The oracle saved by `transformers` in float32, once a process."""
    folder = tempfile.TemporaryDirectory(prefix=f"oracle-{name}-")
    atexit.register(folder.cleanup)
    ORACLES[name].build().save_pretrained(folder.name)
    return folder.name


def pair(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """(theirs, ours): the same weights, ours read from the folder that theirs wrote."""
    network, _ = hf.load(folder_of(name))
    return ORACLES[name].build(dtype), network.eval().to(dtype)

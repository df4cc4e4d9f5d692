"""Random small `transformers` models (random_models.py), and how to ask them and us the same.

Every parameter is given a value that matters: no zero bias, no norm weight of one.
"""

from __future__ import annotations

import atexit
import functools
import tempfile
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from random_models import CONTEXT, MODEL_CLASSES, N_SPECIAL, SIZES, VARIANTS, VOCABULARY
from torch import Tensor, nn

from tercet import hf
from tercet.model.layout import flatten

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

GAIN = 0.6


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
        if not config.tie_word_embeddings and self.architecture in ("bert", "roberta"):
            # transformers 5 gives an untied head two biases and reads one; it used to be one
            head = model.lm_head if self.architecture == "roberta" else model.cls.predictions
            head.bias = head.decoder.bias
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


ORACLES = {
    name: Oracle(name, MODEL_CLASSES[kind], SIZES[kind] | changes)
    for name, changes in VARIANTS.items()
    for kind in [name.split("-")[0]]
}
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


def close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)

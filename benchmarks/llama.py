"""llama.cpp by its low-level interface, which takes token ids: the network of random weights has
no text. Needs the environment llama.
"""

# pyright: reportMissingImports=false
# (peers live in environments of their own)

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import inputs
from compare import threads

CONTEXT = 512  # tokens of a text
# ``enum llama_ftype``. pure: the output matrix in 4 bits too, as everyone's here
KINDS = {"bfloat16": 32, "int8": 7, "int4": 2}


def weights(precision: str) -> Path:
    """The file of the GPT-2 of inputs.py, quantised by llama.cpp itself."""
    plain = inputs.made("gpt2-llama-float32", _write) / "model.gguf"
    if precision == "float32":
        return plain

    def quantise(folder: Path) -> None:
        import llama_cpp as api

        settings = api.llama_model_quantize_default_params()
        settings.ftype, settings.pure, settings.nthread = KINDS[precision], True, threads()
        names = str(plain).encode(), str(folder / "model.gguf").encode()
        assert api.llama_model_quantize(*names, ctypes.byref(settings)) == 0

    return inputs.made(f"gpt2-llama-{precision}", quantise) / "model.gguf"


def _write(folder: Path) -> None:
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    writer = gguf.GGUFWriter(folder / "model.gguf", "gpt2")
    writer.add_context_length(1024)
    writer.add_embedding_length(768)
    writer.add_block_count(12)
    writer.add_feed_forward_length(3072)
    writer.add_head_count(12)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(inputs.VOCABULARY)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 12)
    for name, weight in load_file(inputs.gpt2() / "model.safetensors").items():
        if ".c_" in name and name.endswith(".weight"):
            weight = weight.T  # Hugging Face keeps these as (inputs, outputs)
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs, f"llama.cpp has no name for {name}"
        writer.add_tensor(theirs, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Reader:
    """A model and its memory of up to ``texts`` texts."""

    def __init__(self, precision: str, texts: int = 1, unified: bool = False) -> None:
        import llama_cpp as api

        self.api = api
        api.llama_backend_init()
        path = str(weights(precision)).encode()
        self.model = api.llama_model_load_from_file(path, api.llama_model_default_params())
        assert self.model, "llama.cpp does not read the file"
        settings = api.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max, settings.kv_unified = CONTEXT * texts, texts, unified
        settings.n_threads = settings.n_threads_batch = threads()
        settings.n_outputs_max_per_seq = 0  # as many as are asked for
        self.context = api.llama_init_from_model(self.model, settings)
        assert self.context, "llama.cpp makes no context"
        self.rows = settings.n_batch
        self.batch = api.llama_batch_init(self.rows, 0, 1)

    def forget(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), False)

    def read(self, rows: Sequence[tuple[int, int, int, bool]]) -> list[Any]:
        """rows: token, position, text, and whether logits are wanted behind it -> those logits."""
        import numpy as np

        found = []
        for start in range(0, len(rows), self.rows):
            part, batch = rows[start : start + self.rows], self.batch
            batch.n_tokens = len(part)
            for i, (token, position, text, wanted) in enumerate(part):
                batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, text
            assert self.api.llama_decode(self.context, batch) == 0
            for i, (_, _, _, wanted) in enumerate(part):
                if wanted:
                    values = self.api.llama_get_logits_ith(self.context, i)
                    found.append(np.ctypeslib.as_array(values, (inputs.VOCABULARY,)).copy())
        return found

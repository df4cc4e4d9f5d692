"""Every way to turn texts into vectors with all-MiniLM-L6-v2: each function takes a precision,
loads the model, and gives a function from texts to vectors (B, 384). encode.py and latency.py time
them.
"""

# pyright: reportMissingImports=false
# (peers live in environments of their own)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import inputs
from compare import fastest, threads

Encoder = Callable[[list[str]], Any]
SAMPLE = 200  # texts by which a peer's best batch is found


def tercet(precision: str) -> Encoder:
    import tercet as package

    return package.load(inputs.minilm(), precision=precision).embed


def transformers(precision: str) -> Encoder:
    """The plain model, texts sorted by length, pooled by hand."""
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = inputs.minilm()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = getattr(torch, precision)
    model = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()

    def encode(texts: list[str], batch: int = 32) -> Any:
        ids = tokenizer(texts, truncation=True, max_length=inputs.LONGEST)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        vectors = np.empty((len(ids), 384), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                rows = order[start : start + batch]
                padded = tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt")
                states = model(**padded).last_hidden_state.float()
                vectors[rows] = _pooled(states, padded["attention_mask"]).numpy()
        return vectors

    return _with_best_batch(encode)


def _pooled(states: Any, mask: Any) -> Any:
    """(B, T, D), (B, T) -> (B, D) means of length 1."""
    import torch

    sums = (states * mask[..., None]).sum(1)
    return torch.nn.functional.normalize(sums, dim=-1)  # a sum's direction is its mean's


def sentence_transformers(precision: str) -> Encoder:
    from sentence_transformers import SentenceTransformer

    kind: Any = dict(dtype=precision)
    model = SentenceTransformer(str(inputs.minilm()), device="cpu", model_kwargs=kind)
    return _encoding(model)


def _encoding(model: Any) -> Encoder:
    def encode(texts: list[str], batch: int = 32) -> Any:
        return model.encode(texts, batch_size=batch, show_progress_bar=False)

    return _with_best_batch(encode)


def _with_best_batch(encode: Callable[..., Any]) -> Encoder:
    """What a user finds out who cares for speed; one text needs no search."""
    sample, best = inputs.texts()[0][:SAMPLE], 0

    def encoder(texts: list[str]) -> Any:
        nonlocal best
        if len(texts) == 1:
            return encode(texts)
        best = best or fastest((8, 16, 32, 64), lambda batch: encode(sample, batch))
        return encode(texts, best)

    return encoder


def onnx(precision: str) -> Encoder:
    """sentence-transformers' ONNX backend: its highest optimisation, or its int8."""
    import onnxruntime
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.backend import (
        export_dynamic_quantized_onnx_model,
        export_optimized_onnx_model,
    )

    def make(folder: Path) -> None:
        settings = dict(provider="CPUExecutionProvider", export=True)
        model = SentenceTransformer(str(inputs.minilm()), backend="onnx", model_kwargs=settings)
        model.save_pretrained(str(folder))
        export_optimized_onnx_model(model, "O3", str(folder))
        export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder))

    files = {"float32": "onnx/model_O3.onnx", "int8": "onnx/model_qint8_avx512_vnni.onnx"}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    settings = dict(provider="CPUExecutionProvider", session_options=options)
    settings["file_name"] = files[precision]
    folder = str(inputs.made("minilm-onnx", make))
    return _encoding(SentenceTransformer(folder, backend="onnx", model_kwargs=settings))


def openvino(precision: str) -> Encoder:
    """sentence-transformers' OpenVINO backend; int8: quantised with samples of the same texts."""
    from sentence_transformers import SentenceTransformer

    config = {
        "INFERENCE_NUM_THREADS": str(threads()),
        "PERFORMANCE_HINT": "LATENCY",  # all threads at one batch: batches come one by one
    }
    if precision != "int8":  # left alone it chooses for what is not int8
        hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
        config["INFERENCE_PRECISION_HINT"] = hint

    def load(folder: Path, **more: Any) -> Any:
        settings = dict(device="CPU", ov_config=config, **more)
        return SentenceTransformer(str(folder), backend="openvino", model_kwargs=settings)

    def make(folder: Path) -> None:
        load(inputs.minilm(), export=True).save_pretrained(str(folder))

    def make_int8(folder: Path) -> None:
        import nncf
        from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer

        model = load(plain)
        model.save_pretrained(str(folder))
        sample = [dict(model.tokenizer(text, return_tensors="np")) for text in inputs.texts()[0]]
        quantizer = OVQuantizer.from_pretrained(model.transformers_model)
        quantizer.quantize(
            nncf.Dataset(sample[:300]),
            save_directory=str(folder),
            ov_config=OVConfig(quantization_config=OVQuantizationConfig()),
        )

    plain = inputs.made("minilm-openvino", make)
    folder = inputs.made("minilm-openvino-int8", make_int8) if precision == "int8" else plain
    return _encoding(load(folder))


def ctranslate2(precision: str) -> Encoder:
    """CTranslate2's encoder, batches of texts sorted by length, pooled by hand."""
    import ctranslate2 as package
    import numpy as np
    import torch
    from tokenizers import Tokenizer

    def make(folder: Path) -> None:
        converter = package.converters.TransformersConverter(str(inputs.minilm()))
        converter.convert(str(folder), force=True)

    tokenizer = Tokenizer.from_file(str(inputs.minilm() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(inputs.LONGEST)
    folder = str(inputs.made("minilm-ctranslate2", make))
    encoder = package.Encoder(folder, compute_type=precision, intra_threads=threads())

    def encode(texts: list[str], batch: int = 32) -> Any:
        ids = [read.ids for read in tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        vectors = np.empty((len(ids), 384), np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            found = encoder.forward_batch([ids[i] for i in rows]).last_hidden_state
            states = torch.from_numpy(np.array(found, copy=False))
            lengths = torch.tensor([len(ids[i]) for i in rows])
            mask = torch.arange(states.shape[1]) < lengths[:, None]
            vectors[rows] = _pooled(states, mask).numpy()
        return vectors

    return _with_best_batch(encode)


# name of the side -> how, its environment, its precisions
ENCODERS: dict[str, tuple[Callable[[str], Encoder], str, tuple[str, ...]]] = {
    "tercet": (tercet, "core", ("float32", "bfloat16", "int8")),
    "transformers": (transformers, "core", ("float32", "bfloat16")),
    "sentence-transformers": (sentence_transformers, "core", ("float32", "bfloat16")),
    "sentence-transformers ONNX": (onnx, "onnx", ("float32", "int8")),
    "sentence-transformers OpenVINO": (openvino, "openvino", ("float32", "bfloat16", "int8")),
    "CTranslate2": (ctranslate2, "ctranslate2", ("float32", "int8")),
}

"""Which model it is: a name for everything that decides what it computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict

import torch

from tercet.language_model.model import LanguageModel
from tercet.model.linear import PackedLinear


def fingerprint(model: LanguageModel) -> str:
    """Of everything that makes a vector: 32 hexadecimal digits. 0.1 s for 100 MB of weights."""
    digest = hashlib.blake2b(digest_size=16)
    settings = [model.config.to_dict(), asdict(model.extras.embedding), model.limit]
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(model.tokenizer.hash.encode())
    for name, tensor in _tensors(model):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(model: LanguageModel) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.network.named_parameters()
    for name, module in model.network.named_modules():
        if isinstance(module, PackedLinear):
            yield f"{name}.data", module.packed.data
            yield f"{name}.scales", module.packed.scales


def precision_of(model: LanguageModel) -> str:
    """As `load` spells it."""
    for module in model.network.modules():
        if isinstance(module, PackedLinear):
            return f"int{module.packed.bits}"
    return str(model.network.tokens.weight.dtype).removeprefix("torch.")

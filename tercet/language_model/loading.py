"""``tercet.load``: a folder becomes a LanguageModel, in the precision that is asked for."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

from tercet import hf
from tercet.answers import SlowWarning
from tercet.errors import InputError
from tercet.kernels.processor import emulated
from tercet.language_model.model import LanguageModel
from tercet.model.quantize import quantise
from tercet.model.transformer import Transformer
from tercet.text import Tokenizer

BITS = {"int8": 8, "int4": 4}
PRECISIONS = ("float32", "bfloat16", "float16", "float64", *BITS)


def load(
    path_or_name: str | Path,
    *,
    precision: str = "float32",
    device: str | torch.device | None = None,
    allow_pickle: bool = False,
    context: int | None = None,
    adapter: str | Path | None = None,
) -> LanguageModel:
    """A model from a Hugging Face folder, or from the hub when ``owner/name`` is no folder.

    precision: float32; bfloat16 (also float16, float64); int8 or int4: weights of so many bits, for
    inference on a CPU alone. allow_pickle: read ``*.bin`` weights, with
    ``torch.load(weights_only=True)``, where there are no others. context: tokens of the longest
    text, beyond what the folder states: rotary positions are stretched, see
    ``TransformerConfig.extended``. adapter: a folder of a low-rank adapter, in peft's format; where
    the path is itself such a folder, the base that it names is loaded.
    Raises InputError for whatever is wrong with the folder.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is unknown; choose from {', '.join(PRECISIONS)}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} cannot be used here ({error}); use 'cpu'") from error
    # one setting of threads: the tokenizer's are made when they are first needed
    os.environ.setdefault("RAYON_NUM_THREADS", str(torch.get_num_threads()))
    if str(device or "cpu") == "cpu" and emulated(precision):
        warnings.warn(
            f"this processor has no {precision}: it is emulated, and float32 is faster",
            SlowWarning,
            stacklevel=2,
        )
    folder, above = _with_base(path_or_name, adapter, allow_pickle)
    bits = BITS.get(precision)
    dtype = torch.float32 if bits else getattr(torch, precision)
    network, extras = hf.load(
        folder,
        dtype=dtype,
        device=device,
        allow_pickle=allow_pickle,
        context=context,
        adapter=above,
    )
    own = above is not None and (above / "tokenizer.json").is_file()
    tokenizer = Tokenizer.load(above if own and above else folder, max_length=context)
    model = LanguageModel(network, tokenizer, extras)
    model.base = str(folder.resolve())
    if bits:
        if not isinstance(network, Transformer) or model.device.type != "cpu":
            raise InputError(f"precision {precision!r} is for Transformers on a CPU; use bfloat16")
        quantise(network, bits)
    return model


def _with_base(
    path_or_name: str | Path, adapter: str | Path | None, allow_pickle: bool
) -> tuple[Path, Path | None]:
    """The folder of the base, and that of an adapter on it."""
    folder = Path(path_or_name).expanduser()
    if not hf.is_adapter(folder):
        above = None if adapter is None else Path(adapter).expanduser()
        return hf.find(path_or_name, allow_pickle=allow_pickle), above
    if adapter is not None:
        raise InputError(
            f"{folder} is an adapter itself, and adapter {str(adapter)!r} would lie on it; merge "
            "the first (tercet merge), and load the other on the result"
        )
    try:
        return hf.find(hf.base_of(folder), allow_pickle=allow_pickle), folder
    except InputError as error:
        raise InputError(f"the base of the adapter {folder}: {error}") from error

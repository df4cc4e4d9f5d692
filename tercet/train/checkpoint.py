"""Checkpoints: ``step-N/`` is written and synced, then the small file ``latest`` is replaced.

Weights and optimizer state by parameter name in safetensors, numbers in JSON; never a pickle. A
crash at any moment leaves the previous checkpoint and the word that points to it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tercet.errors import InputError
from tercet.files import written, written_folder
from tercet.train.loop import State
from tercet.train.optimizers import Optimizer


def save_step(folder: Path, model: nn.Module, optimizer: Optimizer, state: State) -> None:
    """Write ``folder/step-N`` and point ``latest`` at it; older steps are removed afterwards.

    Raises InputError where there is no room; ``latest`` then names the step that it named before.
    """
    target = folder / f"step-{state.step}"
    with written_folder(target) as draft:
        save_file(_own(dict(model.named_parameters())), draft / "weights.safetensors")
        save_file(_own(optimizer.tensors()), draft / "optimizer.safetensors")
        (draft / "state.json").write_text(json.dumps(dataclasses.asdict(state)), encoding="utf-8")
    with written(folder / "latest") as draft:
        draft.write_text(target.name, encoding="utf-8")
    for old in folder.glob("step-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def load_latest(folder: Path, model: nn.Module, optimizer: Optimizer) -> State | None:
    """Take up the newest checkpoint; None where there is none."""
    if not (folder / "latest").exists():
        return None
    source = folder / (folder / "latest").read_text(encoding="utf-8").strip()
    try:
        weights = load_file(source / "weights.safetensors")
        moments = load_file(source / "optimizer.safetensors")
        state = State(**json.loads((source / "state.json").read_text(encoding="utf-8")))
    except Exception as error:
        raise InputError(
            f"checkpoint {source} cannot be read ({error}); remove {folder} to start anew"
        ) from error
    named = dict(model.named_parameters())
    if named.keys() != weights.keys():
        odd = sorted(named.keys() ^ weights.keys())
        raise InputError(
            f"checkpoint {source} belongs to another model: {', '.join(odd[:5])}; remove {folder}"
        )
    wanted = {name: parameter.shape for name, parameter in named.items()}
    _check_shapes(source, weights, wanted)
    stated = [(key, key.rpartition("/")[0]) for key, value in moments.items() if value.ndim]
    _check_shapes(source, moments, {key: wanted[name] for key, name in stated if name in wanted})
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(weights[name])
    optimizer.load(moments)
    return state


def _check_shapes(source: Path, tensors: dict[str, Tensor], wanted: dict[str, torch.Size]) -> None:
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise InputError(
                f"checkpoint {source} belongs to another model: {name} has shape "
                f"{tuple(tensors[name].shape)}, the model's has {tuple(shape)}; "
                f"remove {source.parent} to start anew"
            )


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}

"""Checkpoints: ``step-N/`` is written and synced, then the small file ``latest`` is replaced.

Weights, optimizer state and averages by name in safetensors, numbers in JSON; never a pickle. A
crash at any moment leaves the previous checkpoint and the word that points to it.

Only what is trained is written. Frozen weights are the model's own again when a run goes on; that
they are still the same is checked by their digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tercet.errors import InputError
from tercet.files import written, written_folder
from tercet.train.averages import Averages
from tercet.train.optimizers import Optimizer
from tercet.train.state import State


class Checkpoints:
    """The checkpoints of one run in ``folder``: the last ``keep``, and that of the best step."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: Optimizer,
        averages: Averages | None = None,
        *,
        keep: int = 1,
    ) -> None:
        self.folder, self.model, self.optimizer, self.keep = folder, model, optimizer, keep
        self.averages = averages or Averages(model)

    def save(self, state: State) -> None:
        """Write ``step-N`` and point ``latest`` at it; older steps are removed afterwards.

        Raises InputError where there is no room; ``latest`` then names the step that it named
        before.
        """
        target = self.folder / f"step-{state.step}"
        before = self._latest()
        try:
            with written_folder(target) as draft:
                about = {"frozen": self._frozen}
                save_file(_own(self._trained()), draft / "weights.safetensors", metadata=about)
                save_file(_own(self.optimizer.tensors()), draft / "optimizer.safetensors")
                save_file(_own(self.averages.tensors()), draft / "averages.safetensors")
                text = json.dumps(dataclasses.asdict(state))
                (draft / "state.json").write_text(text, encoding="utf-8")
            with written(self.folder / "latest") as draft:
                draft.write_text(target.name, encoding="utf-8")
        except InputError as error:
            whole = f"that of {before.name} is whole" if before else "there is none before it"
            raise InputError(f"the checkpoint of step {state.step} failed: {error}; {whole}") from (
                error
            )
        self._prune(state)

    def _trained(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @cached_property
    def _frozen(self) -> str:
        """The digest of what is not trained; empty where all is."""
        kept = [(name, p) for name, p in self.model.named_parameters() if not p.requires_grad]
        digest = hashlib.sha256()
        for name, parameter in kept:
            digest.update(name.encode())
            held = parameter.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(held.numpy().data)
        return digest.hexdigest() if kept else ""

    def _prune(self, state: State) -> None:
        steps = sorted(self.folder.glob("step-*"), key=_number, reverse=True)
        # steps beyond this one were left by a run that was taken up again before them
        newer = [old for old in steps if _number(old) > state.step]
        for old in [*newer, *steps[len(newer) + self.keep :]]:
            if _number(old) != state.best_step:
                shutil.rmtree(old, ignore_errors=True)

    def _latest(self) -> Path | None:
        pointer = self.folder / "latest"
        if not pointer.exists():
            return None
        return self.folder / pointer.read_text(encoding="utf-8").strip()

    def steps(self) -> list[int]:
        """Of the checkpoints that are kept, in order."""
        return sorted(map(_number, self.folder.glob("step-*")))

    def load(self, step: int | None = None) -> State | None:
        """Take up the newest checkpoint, or that of a step; None where there is none."""
        source = self._latest() if step is None else self.folder / f"step-{step}"
        if source is None:
            return None
        try:
            with safe_open(source / "weights.safetensors", framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in file.keys()}
                frozen = (file.metadata() or {}).get("frozen", "")
            moments = load_file(source / "optimizer.safetensors")
            averages = load_file(source / "averages.safetensors")
            state = State(**json.loads((source / "state.json").read_text(encoding="utf-8")))
        except Exception as error:
            raise InputError(
                f"checkpoint {source} cannot be read ({error}); remove {self.folder} to start anew"
            ) from error
        self._check(source, weights, moments)
        if frozen != self._frozen:
            raise InputError(
                f"checkpoint {source} was made over other frozen weights; give the model that the "
                f"run began with, or remove {self.folder} to start anew"
            )
        with torch.no_grad():
            for name, parameter in self._trained().items():
                parameter.copy_(weights[name])
        self.optimizer.load(moments)
        self.averages.load(averages)
        return state

    def _check(self, source: Path, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        """That names and shapes are this model's."""
        wanted = {name: parameter.shape for name, parameter in self._trained().items()}
        if wanted.keys() != weights.keys():
            odd = sorted(wanted.keys() ^ weights.keys())
            raise InputError(
                f"checkpoint {source} belongs to another model: {', '.join(odd[:5])}; "
                f"remove {self.folder}"
            )
        stated = [(key, key.rpartition("/")[0]) for key, value in moments.items() if value.ndim]
        shaped = {key: wanted[name] for key, name in stated if name in wanted}
        for tensors, shapes in ((weights, wanted), (moments, shaped)):
            for name, shape in shapes.items():
                if tensors[name].shape != shape:
                    raise InputError(
                        f"checkpoint {source} belongs to another model: {name} has shape "
                        f"{tuple(tensors[name].shape)}, the model's has {tuple(shape)}; "
                        f"remove {self.folder} to start anew"
                    )


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}

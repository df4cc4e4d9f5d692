"""The tensors of a folder, by name, without reading more than is asked for.

Safetensors are mapped into memory: a tensor costs nothing until it is used. Knows no architecture.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tercet.errors import InputError, undamaged

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"

Shapes = dict[str, tuple[int, ...]]  # of tensors, by name


class Weights:
    """Names, shapes and tensors of one folder's files. shapes: those of files that are not there,
    of which no tensor can be had."""

    def __init__(
        self, folder: Path, *, allow_pickle: bool = False, shapes: Shapes | None = None
    ) -> None:
        self.folder = folder
        self._tensors: dict[str, Tensor] = {}  # of pickles, which cannot be read in part
        self._files: dict[str, Any] = {}  # the open file of each name
        self.shapes: Shapes = {} if shapes is None else shapes
        self._absent = shapes is not None
        if self._absent:
            return
        if (folder / SINGLE).is_file():
            self._map([SINGLE])
        elif (folder / INDEX).is_file():
            self._map(_shards(folder / INDEX))
        elif pickles := sorted(path.name for path in folder.glob("*.bin") if _weights(path)):
            if not allow_pickle:
                raise InputError(
                    f"{folder}: has only pickled weights ({', '.join(pickles[:3])}), which could "
                    "run code when loaded; save them as safetensors, or, if you trust their "
                    "origin, load with allow_pickle=True (--allow-pickle)"
                )
            self._unpickle(
                _shards(folder / PICKLE_INDEX) if (folder / PICKLE_INDEX).is_file() else pickles
            )
        else:
            raise InputError(f"{folder}: has no weights; expected {SINGLE} or {INDEX}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def get(self, name: str) -> Tensor:
        if name in self._tensors:
            return self._tensors[name]
        return self._files[name].get_tensor(name)

    def lay_over(self, tensors: dict[str, Tensor]) -> None:
        """Take these in the place of those of the same name, or beside them."""
        self._tensors |= tensors
        self.shapes = self.shapes | {name: tuple(t.shape) for name, t in tensors.items()}

    def alike(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same. Of files that are not there it is taken to be so."""
        if self.shapes[one] != self.shapes[other]:
            return False
        return self._absent or torch.equal(self.get(one), self.get(other))

    def _map(self, files: list[str]) -> None:
        for file in files:
            path = self.folder / file
            if not path.is_file():
                raise InputError(f"{path}: is missing; {INDEX} names it, fetch it again")
            try:
                opened = safe_open(path, framework="pt")
                for name in opened.keys():
                    self._files[name] = opened
                    self.shapes[name] = tuple(opened.get_slice(name).get_shape())
            except (SafetensorError, OSError) as error:
                raise InputError(
                    f"{path}: is no whole safetensors file ({error}); it is cut off or damaged, "
                    "fetch or save it again"
                ) from error

    def _unpickle(self, files: list[str]) -> None:
        for file in files:
            path = self.folder / file
            try:
                tensors = torch.load(
                    path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
                )
            except Exception as error:  # whatever the file makes the reader stumble over
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise InputError(
                    f"{path}: cannot be read as a plain pickle of tensors ({reason}); "
                    "save the model as safetensors where it was made"
                ) from error
            self._tensors |= {name: t for name, t in tensors.items() if isinstance(t, Tensor)}
        self.shapes = {name: tuple(t.shape) for name, t in self._tensors.items()}


def _weights(path: Path) -> bool:
    return path.name == PICKLE or path.name.startswith("pytorch_model-")


def _shards(index: Path) -> list[str]:
    with undamaged(index):
        files = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        return sorted(files, key=lambda file: index.parent / file)  # raises for what is no name

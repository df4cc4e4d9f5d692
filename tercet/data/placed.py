"""Windows of tokens with something to be learned at some of them: tags of words, or where an answer
begins and ends. Knows neither words nor questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tercet.data.draw import Draw, Sample
from tercet.data.order import CountOrder
from tercet.data.shape import Batch
from tercet.errors import InputError
from tercet.model.layout import Layout


@dataclass(frozen=True)
class Placed:
    """ids: T tokens, with whatever special ones the model expects. places: some of them, each once.
    targets: of each place a number; empty where the places themselves are to be found. types: which
    text of a pair each token belongs to, or None."""

    ids: Sequence[int]
    places: Sequence[int]
    targets: Sequence[int] = ()
    types: Sequence[int] | None = None


class PlacedWindows(Draw):
    """``rows`` windows a step."""

    def __init__(self, windows: Sequence[Placed], *, rows: int, seed: int = 0) -> None:
        if not windows:
            raise InputError("there is nothing to learn from; give at least one example")
        if rows < 1:
            raise InputError(f"rows {rows} must be 1 or more windows a step")
        self.windows = windows
        mean = sum(len(window.ids) for window in windows) / len(windows)
        self.order = CountOrder(len(windows), rows, mean, seed)

    def sample(self, epoch: int, number: int) -> Sample:
        window = self.windows[number]
        return Sample(
            (epoch, number),
            torch.tensor(window.ids),
            targets=torch.tensor(window.targets, dtype=torch.int64),
            places=torch.tensor(window.places, dtype=torch.int64),
            types=None if window.types is None else torch.tensor(window.types),
            document=number,
        )


@dataclass(frozen=True)
class AtPlaces:
    """The number that belongs to each place: targets of the batch's selected tokens."""

    @property
    def added(self) -> int:
        return 0

    def batch(self, samples: Sequence[Sample]) -> Batch:
        tokens, layout, types = _stream(samples)
        places = [start + _places(sample) for start, sample in zip(layout.starts, samples)]
        targets = [sample.targets for sample in samples if sample.targets is not None]
        keys = tuple(sample.key for sample in samples)
        return Batch(tokens, layout, torch.cat(targets), torch.cat(places), types=types, keys=keys)


@dataclass(frozen=True)
class WhichPlaces:
    """The places themselves, of every sequence the same number of them: the batch's labels (B, n),
    counted from each sequence's first token."""

    @property
    def added(self) -> int:
        return 0

    def batch(self, samples: Sequence[Sample]) -> Batch:
        tokens, layout, types = _stream(samples)
        labels = torch.stack([_places(sample) for sample in samples])
        keys = tuple(sample.key for sample in samples)
        nothing = torch.empty(0, dtype=torch.int64)
        return Batch(tokens, layout, nothing, types=types, labels=labels, keys=keys)


def _places(sample: Sample) -> torch.Tensor:
    assert sample.places is not None, "this draw has no places"
    return sample.places


def _stream(samples: Sequence[Sample]) -> tuple[torch.Tensor, Layout, torch.Tensor | None]:
    types = [sample.types for sample in samples if sample.types is not None]
    return (
        torch.cat([sample.ids for sample in samples]),
        Layout([len(sample.ids) for sample in samples]),
        torch.cat(types) if types else None,
    )

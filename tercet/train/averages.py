"""Averages of weights over the steps of a run: what is evaluated and saved in their place.

``ema`` follows every step (Polyak & Juditsky 1992); ``last`` is the plain mean of the last K
snapshots (Vaswani et al. 2017, section 6.1, averaged checkpoints so).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tercet.errors import InputError


@dataclass(frozen=True)
class Average:
    """Which average: ``ema`` with a decay, ``last`` of so many snapshots, or neither."""

    ema: float | None = None  # 0.999: about the last thousand steps
    last: int | None = None  # snapshots
    every: int = 100  # steps between snapshots

    def __post_init__(self) -> None:
        if self.ema is not None and self.last is not None:
            raise InputError(f"average: ema {self.ema} and last {self.last}; choose one of the two")
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(f"average: ema {self.ema} must be between 0 and 1, such as 0.999")
        if self.last is not None and self.last < 1 or self.every < 1:
            raise InputError(f"average: last {self.last} and every {self.every} must be positive")


class Averages:
    """Keeps the average of a model's weights in float32, beside the model."""

    def __init__(self, model: nn.Module, settings: Average = Average()) -> None:
        self.model, self.settings = model, settings
        self.kept: deque[dict[str, Tensor]] = deque(maxlen=settings.last or 1)
        self.count = 0

    def update(self, step: int) -> None:
        """After step number ``step``."""
        if self.settings.ema is not None:
            self._follow(self.settings.ema)
        elif self.settings.last is not None and step % self.settings.every == 0:
            self.kept.append(self._now())

    def _follow(self, decay: float) -> None:
        if not self.kept:
            self.kept.append(self._now())
        self.count += 1
        # the first steps weigh as in a plain mean, or the random start would linger for 1/(1-decay)
        weight = max(1 - decay, 1 / self.count)
        mean, now = self.kept[0], self._parameters()
        with torch.no_grad():
            torch._foreach_lerp_(  # type: ignore[attr-defined]
                [mean[name] for name in now], list(now.values()), weight
            )

    def _parameters(self) -> dict[str, Tensor]:
        """What is trained: the average of what stays is itself."""
        named = self.model.named_parameters()
        return {name: p.detach() for name, p in named if p.requires_grad}

    def _now(self) -> dict[str, Tensor]:
        return {name: p.clone() for name, p in self._parameters().items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average inside the block, and its own weights again behind it."""
        if not self.kept:
            yield
            return
        own = self._now()
        self._put({name: torch.stack([k[name] for k in self.kept]).mean(0) for name in own})
        try:
            yield
        finally:
            self._put(own)

    def _put(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters().items():
                parameter.copy_(tensors[name])

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, as ``<number>/<parameter>``, and the count."""
        kept = {f"{i}/{name}": t for i, one in enumerate(self.kept) for name, t in one.items()}
        return {**kept, "count": torch.tensor(self.count)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``tensors`` gave."""
        self.count = int(tensors["count"])
        self.kept.clear()
        found: dict[int, dict[str, Tensor]] = {}
        own = self._parameters()
        for key, value in tensors.items():
            number, _, name = key.partition("/")
            if name:
                found.setdefault(int(number), {})[name] = value.to(own[name].device, copy=True)
        self.kept.extend(found[number] for number in sorted(found))

"""Learning rates as pure functions of the step: the share of the largest rate, 0 to 1.

``steps`` is None while a run under a clock still measures its speed; it then keeps the plateau.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tercet.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """``kind``: constant, linear, cosine, inverse-sqrt or stable (warm-up, plateau, decay)."""

    kind: str = "stable"
    warmup: int = 20  # steps of linear warm-up
    decay: float = 0.7  # stable: the share of all steps, at the end, in which the rate falls
    final: float = 0.0  # where it ends, as a share of the largest rate

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"schedule {self.kind!r} is unknown; use one of {', '.join(KINDS)}")
        if self.warmup < 0:
            raise InputError(f"warmup {self.warmup} must be 0 or more steps")
        for name in ("decay", "final"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} {getattr(self, name)} must be between 0 and 1")

    def falls(self, steps: int) -> int | None:
        """The step from which the rate falls off its plateau; None where there is no plateau."""
        return round((1 - self.decay) * steps) if self.kind == "stable" else None

    def share(self, step: int, steps: int | None) -> float:
        """Of the largest rate, in a step (counted from 0) of ``steps``."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if steps is None and self.kind != "inverse-sqrt":
            return warm
        return min(warm, KINDS[self.kind](self, step, steps or 0))


def _constant(schedule: Schedule, step: int, steps: int) -> float:
    return 1.0


def _stable(schedule: Schedule, step: int, steps: int) -> float:
    """The plateau holds until the last ``decay`` of the steps (Hu et al. 2024, section 4)."""
    left = (steps - step) / max(1.0, schedule.decay * steps)
    return schedule.final + (1 - schedule.final) * min(1.0, left)


def _linear(schedule: Schedule, step: int, steps: int) -> float:
    return schedule.final + (1 - schedule.final) * (1 - _progress(schedule, step, steps))


def _cosine(schedule: Schedule, step: int, steps: int) -> float:
    """Loshchilov & Hutter 2017, without restarts."""
    wave = (1 + math.cos(math.pi * _progress(schedule, step, steps))) / 2
    return schedule.final + (1 - schedule.final) * wave


def _inverse_sqrt(schedule: Schedule, step: int, steps: int) -> float:
    """Vaswani et al. 2017, section 5.3: from the end of the warm-up with step ** -0.5."""
    return (max(1, schedule.warmup) / max(step + 1, schedule.warmup, 1)) ** 0.5


def _progress(schedule: Schedule, step: int, steps: int) -> float:
    """0 at the end of the warm-up, 1 behind the last step."""
    return min(1.0, max(0.0, (step - schedule.warmup) / max(1, steps - schedule.warmup)))


KINDS: dict[str, Callable[[Schedule, int, int], float]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "inverse-sqrt": _inverse_sqrt,
    "stable": _stable,
}

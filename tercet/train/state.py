"""Where a run stands, and what a user asked of it: plain data, written into every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from tercet.errors import InputError
from tercet.train.schedules import Schedule

RECENT = 100  # losses kept for the eye and for the notion of a spike


@dataclass(frozen=True)
class Recipe:
    """How to train, for ``steps`` or for ``seconds``: then the measured speed fixes the steps."""

    learning_rate: float
    steps: int | None = None
    seconds: float | None = None
    schedule: Schedule = Schedule()
    clip: float = 1.0  # the longest gradient; 0: none is shortened
    seed: int = 0
    bfloat16: bool = False
    on_trouble: str = "stop"  # at a loss or gradient that is not finite, or a spike: stop or skip
    spike: float = 10.0  # standard deviations above the recent losses; 0: only what is not finite
    corrections: int = 0  # how often the number of steps is measured again under a clock

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise InputError(f"steps {self.steps}, seconds {self.seconds}: give one of the two")
        for name in ("steps", "seconds", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} {value} must be above 0")
        for name in ("clip", "spike", "corrections"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} {getattr(self, name)} must be 0 or more")
        if self.on_trouble not in ("stop", "skip"):
            raise InputError(f"on_trouble {self.on_trouble!r} is unknown; use stop or skip")

    def rate(self, step: int, steps: int | None) -> float:
        """Learning rate of a step; ``steps`` is None while the speed is still being measured."""
        return self.learning_rate * self.schedule.share(step, steps)


@dataclass
class State:
    """All that a resumed run needs beside weights, optimizer and averages."""

    step: int = 0
    steps: int | None = None  # planned; None: not yet known
    seconds: float = 0.0  # spent in steps
    tokens: int = 0  # read
    skipped: int = 0  # steps whose update was left out
    recent: list[float] = field(default_factory=list)  # losses of the last steps
    last: dict[str, float] = field(default_factory=dict)  # what is known of the last step
    plan: dict[str, int] = field(default_factory=dict)  # step -> number of steps decided there
    measured_from: int = 0  # the step since which the speed is being measured,
    measured_at: float = 0.0  # and the seconds that had been spent by then
    best: float | None = None  # of the watched metric,
    beside: list[float] = field(default_factory=list)  # figures that decide between equals,
    best_step: int | None = None  # when,
    waited: int = 0  # and for how many evaluations since
    stopped: str | None = None  # why the run ended before its last step

    @property
    def done(self) -> bool:
        return self.stopped is not None or (self.steps is not None and self.step >= self.steps)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

"""The training step, on one screen, and the clock that decides how many there are.

The loop knows objectives only as sums, data only as a function of the step, and what should
happen now and then only as a list of (every, action). A step is a pure function of the state and
its number.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from tercet.data import Batch, keyed
from tercet.errors import InputError
from tercet.train.optimizers import Optimizer
from tercet.train.parallel import World

Objective = Callable[[nn.Module, Batch], Tensor]
Data = Callable[[int], list[Batch]]
Item = TypeVar("Item")

# Of the budget: when the speed is measured and the steps fixed; again at 16, 32 and 64 %, since
# other programs come and go (a run begun beside one ended after half of its time).
PROBE_SHARE = 0.08
PROBE_STEPS = 4


@dataclass(frozen=True)
class Recipe:
    """How to train, for ``steps`` or for ``seconds``: then the measured speed fixes the steps."""

    learning_rate: float
    steps: int | None = None
    seconds: float | None = None
    warmup: int = 20  # steps of linear warm-up
    decay: float = 0.7  # the share of all steps, at the end, in which the rate falls linearly to 0
    clip: float = 1.0  # the longest gradient
    seed: int = 0
    bfloat16: bool = False

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise InputError(f"steps {self.steps}, seconds {self.seconds}: give one of the two")

    def rate(self, step: int, steps: int | None) -> float:
        """Learning rate of a step; ``steps`` is None while the speed is still being measured."""
        warm = min(1.0, (step + 1) / self.warmup)
        if steps is None:
            return self.learning_rate * warm
        falling = (steps - step) / max(1.0, self.decay * steps)
        return self.learning_rate * min(warm, 1.0, falling)


@dataclass
class State:
    """Where a run stands: all that a resumed run needs beside weights and optimizer."""

    step: int = 0
    steps: int | None = None  # planned; None: not yet known
    seconds: float = 0.0  # spent in steps
    tokens: int = 0  # read
    measured_from: int = 0  # the step since which the speed is being measured
    measured_until: float = PROBE_SHARE  # the share of the seconds at which that ends
    losses: list[float] = field(default_factory=list)  # nats a target, of each step
    times: list[float] = field(
        default_factory=list
    )  # seconds since the start, at the end of each step

    @property
    def done(self) -> bool:
        return self.steps is not None and self.step >= self.steps

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


Action = Callable[[State], None]


def fit(
    model: nn.Module,
    data: Data,
    objective: Objective,
    recipe: Recipe,
    optimizer: Optimizer,
    *,
    state: State | None = None,
    actions: Sequence[tuple[int, Action]] = (),
    world: World | None = None,
) -> State:
    """Train from ``state`` to the end of ``recipe``; the state at the end.

    The first Ctrl-C ends the step it meets, runs every action once more and raises
    KeyboardInterrupt. Raises InputError for a step without targets.
    """
    state, world = state or State(), world or World()
    state.steps = state.steps or recipe.steps
    model.train()
    with _interruptible() as interrupted:
        while not state.done and not interrupted.is_set():
            started = time.perf_counter()
            batches = data(state.step)
            targets = world.sum(sum(batch.n_targets for batch in batches))  # all micro-batches
            if not targets:
                raise InputError(
                    f"step {state.step} has no targets; give longer rows or more of them"
                )
            loss = 0.0
            for number, (last, batch) in enumerate(_mark_last(batches)):
                torch.manual_seed(keyed(recipe.seed, state.step, world.rank, number))  # dropout
                world.sync_gradients(model, on=last)
                with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                    part = objective(model, batch)
                (part * world.grad_scale / targets).backward()
                loss += float(part.detach()) / targets
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step(recipe.rate(state.step, state.steps))
            _count(state, recipe, loss, batches, time.perf_counter() - started)
            for every, action in actions:
                if state.step % every == 0 or state.done or interrupted.is_set():
                    action(state)
    model.eval()
    if interrupted.is_set() and not state.done:
        raise KeyboardInterrupt
    return state


def _count(state: State, recipe: Recipe, loss: float, batches: list[Batch], seconds: float) -> None:
    """Write the step down; fix the number of steps once the speed is known."""
    state.step += 1
    state.seconds += seconds
    state.tokens += sum(batch.n_tokens for batch in batches)
    state.losses.append(loss)
    state.times.append(state.seconds)
    if recipe.seconds is None or state.step < state.measured_from + PROBE_STEPS:
        return
    if state.seconds >= state.measured_until * recipe.seconds:
        start = max(1, state.measured_from)  # the first step warms up
        each = (state.seconds - state.times[start - 1]) / (state.step - start)
        state.steps = state.step + max(0, round((recipe.seconds - state.seconds) / each))
        state.measured_from, state.measured_until = state.step, 2 * state.measured_until


def _mark_last(items: Iterable[Item]) -> Iterator[tuple[bool, Item]]:
    """(is it the last?, item)."""
    items = list(items)
    for i, item in enumerate(items):
        yield i == len(items) - 1, item


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set the event; a second one stops at once. Only the main thread can."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The training step, on one screen, and the clock that decides how many there are.

The loop knows objectives only as sums, data only as a function of the step, processes only as a
World, and what should happen now and then only as a list of (every, action). A step is a pure
function of the state and its number.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tercet.data import Batch, keyed
from tercet.errors import InputError
from tercet.train.averages import Averages
from tercet.train.optimizers import Optimizer
from tercet.train.parallel import World
from tercet.train.recorder import Recorder
from tercet.train.state import RECENT, Recipe, State

Objective = Callable[[nn.Module, Batch], Tensor]
Data = Callable[[int], list[Batch]]
Action = Callable[[State], None]

# Of a budget of seconds: when the speed is measured and the steps fixed. With corrections again at
# 16, 32 and 64 %, since other programs come and go.
PROBE_SHARE = 0.08
PROBE_STEPS = 4


def fit(
    model: nn.Module,
    data: Data,
    objective: Objective,
    recipe: Recipe,
    optimizer: Optimizer,
    *,
    state: State | None = None,
    actions: Sequence[tuple[int, Action]] = (),
    on_stop: Action = lambda state: None,
    averages: Averages | None = None,
    recorder: Recorder | None = None,
    world: World = World(),
) -> State:
    """Train from ``state`` to the end of ``recipe``; the state at the end.

    ``actions`` run behind every so many steps and behind the last. The first Ctrl-C or SIGTERM ends
    the step it meets, be it the last, and what is due behind it, calls ``on_stop`` and raises
    KeyboardInterrupt.
    Raises InputError, where ``recipe`` says stop, for a step without targets and at a loss or
    gradient that is not finite or spikes: nothing of such a step reaches the weights, and
    ``on_stop`` is called before.
    """
    state, averages = state or State(), averages or Averages(model)
    recorder = recorder or Recorder(model)
    state.steps = state.steps or recipe.steps
    model.train()
    with _interruptible() as interrupted:
        while not state.done:
            started = time.perf_counter()
            batches, failed = _read(data, state.step)
            if world.any(failed is not None):
                on_stop(state)
                raise failed or InputError("the run is saved: another process has failed")
            targets = world.sum(count_targets(batches))  # (k,) of all ranks and micro-batches
            empty = not targets.all()
            if empty and recipe.on_trouble == "stop":
                on_stop(state)
                raise InputError(
                    f"step {state.step} has no targets; give longer samples or more of them, or "
                    "set on_trouble to skip"
                )
            if empty:
                terms, norm = torch.full_like(targets, torch.nan), recorder.empty()
            else:
                how = (recipe, state.step, world)
                terms = accumulate(model, objective, batches, targets, *how)  # (k,)
                norm = recorder.clip(recipe.clip)
            rate = recipe.rate(state.step, state.steps)
            facts = {"loss": float(terms.sum()), "norm": norm, "rate": rate}
            facts |= seen(objective, targets, world)
            trouble = recorder.note(state, facts, batches, recipe)
            if trouble and recipe.on_trouble == "stop":
                on_stop(state)
                raise InputError(f"step {state.step}: {trouble}; {recorder.saved()}")
            optimizer.skip() if trouble else optimizer.step(rate)
            n_tokens = int(world.sum(torch.tensor(sum(batch.n_tokens for batch in batches))))
            _count(state, facts, terms, n_tokens, skipped=trouble is not None)
            averages.update(state.step)
            state.seconds += world.first(time.perf_counter() - started)
            _plan(state, recipe)
            for every, action in actions:
                if state.step % every == 0 or state.done:
                    action(state)
            if world.any(interrupted.is_set()):
                on_stop(state)
                raise KeyboardInterrupt
    model.eval()
    return state


def _read(data: Data, step: int) -> tuple[list[Batch], InputError | None]:
    """A step's micro-batches, or why there are none: where they are written on the way, a user's
    function may fail."""
    try:
        return data(step), None
    except InputError as error:
        return [], error


def accumulate(
    model: nn.Module,
    objective: Objective,
    batches: list[Batch],
    targets: Tensor,
    recipe: Recipe,
    step: int,
    world: World,
) -> Tensor:
    """The gradient of a step from its micro-batches, each divided by all the step's targets; the
    loss in its terms (k,), nats a target.

    An objective that couples the micro-batches has a ``backward`` of its own.
    """
    device = next(model.parameters()).device

    def reading(number: int) -> AbstractContextManager[Any]:
        torch.manual_seed(keyed(recipe.seed, step, world.rank, number))  # dropout
        return torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16)

    backward = getattr(objective, "backward", None) or partial(_each_alone, objective)
    here = [batch.to(device) for batch in batches]
    sums = backward(model, here, targets, reading).to(targets)  # (k,)
    world.sum_gradients(model)
    return world.sum(sums) / targets


def _each_alone(
    objective: Objective,
    model: nn.Module,
    batches: Sequence[Batch],
    targets: Tensor,
    reading: Callable[[int], AbstractContextManager[Any]],
) -> Tensor:
    """(k,) summed loss of micro-batches that know nothing of each other."""
    sums = torch.zeros_like(targets)  # (k,)
    for number, batch in enumerate(batches):
        with reading(number):
            part = objective(model, batch)  # (k,)
        (part / targets.to(part)).sum().backward()
        sums += part.detach().to(sums)
    return sums


def seen(objective: Any, targets: Tensor, world: World) -> dict[str, float]:
    """What an objective has seen beside its loss since it was asked last, by name and on average;
    nothing of one that has no words for it."""
    names = getattr(objective, "seen", ())
    if not names:
        return {}
    sums, counts = world.sum(objective.taken().to(targets))
    return {name: float(mean) for name, mean in zip(names, sums / counts)}


def count_targets(batches: Sequence[Batch]) -> Tensor:
    """(k,) targets of each term of the loss, in all the micro-batches."""
    return torch.tensor([batch.counts for batch in batches], dtype=torch.float64).sum(0)


def _count(
    state: State, facts: dict[str, float], terms: Tensor, n_tokens: int, *, skipped: bool
) -> None:
    """Write the step down."""
    state.step += 1
    state.skipped += skipped
    state.tokens += n_tokens
    if not skipped:
        state.recent = [*state.recent[1 - RECENT :], facts["loss"]]
    parts = {f"loss_{i}": float(term) for i, term in enumerate(terms)} if len(terms) > 1 else {}
    state.last = facts | parts | {"skipped": float(skipped)}


def _plan(state: State, recipe: Recipe) -> None:
    """Under a clock, fix the number of steps once the speed is known. What an earlier session has
    decided (``state.plan``, from its log) is taken as it was, so that a resumed run is the run."""
    if recipe.seconds is None:
        return
    here = str(state.step)
    if here not in state.plan:
        if state.step == 1:  # the first step warms up
            state.measured_from, state.measured_at = 1, state.seconds
        until = PROBE_SHARE * 2 ** len(state.plan) * recipe.seconds
        measured = state.step - state.measured_from
        if len(state.plan) > recipe.corrections or measured < PROBE_STEPS or state.seconds < until:
            return
        each = (state.seconds - state.measured_at) / measured
        state.plan[here] = state.step + max(0, round((recipe.seconds - state.seconds) / each))
        state.measured_from, state.measured_at = state.step, state.seconds
    state.steps = state.plan[here]


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

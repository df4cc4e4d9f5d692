"""What a person sees of long work: a bar on a terminal, else a line every half minute."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tercet.train.state import State

EVERY = 30.0  # seconds between lines
RECENT = 20  # steps that the shown loss is averaged over


class Bar:
    """``with`` it, and ``show`` as often as you like. Lines about results belong on stdout, those
    beside a result on stderr."""

    def __init__(self, *, quiet: bool = False, stderr: bool = False) -> None:
        self.quiet = quiet
        self._stream = sys.stderr if stderr else sys.stdout
        self._said = time.monotonic()
        self._bar: Progress | None = None
        self._stage = ""

    def __enter__(self) -> Self:
        if not self.quiet and self._stream.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[facts]}"),
            )
            console = Console(file=self._stream)
            self._bar = Progress(*columns, console=console, transient=self._stream is sys.stderr)
            self._bar.start()
            self._task = self._bar.add_task("", total=None, facts="")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, label: str, done: int, total: int | None, facts: Callable[[], str]) -> None:
        """``facts`` are asked for where they are seen."""
        if self._bar is not None:
            self._bar.update(
                self._task, description=label, completed=done, total=total, facts=facts()
            )
        elif not self.quiet and time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            print(f"  {label}: {facts()}", file=self._stream, flush=True)

    def count(self, stage: str, done: int, total: int | None, tokens: int) -> None:
        """How much is done of all, in bytes, rows or tokens, and the tokens so far."""
        now = time.monotonic()
        if stage != self._stage or not done:
            self._stage, self._began = stage, (now, done, tokens)
        self.show(stage, done, total, lambda: self._counted(now, done, total, tokens))

    def _counted(self, now: float, done: int, total: int | None, tokens: int) -> str:
        """ "41 %, 1,234,567 tokens, 812,000 tokens/s, 3:20 left"."""
        began, done_before, tokens_before = self._began
        seconds = max(now - began, 1e-3)
        facts = [f"{100 * done / total:.0f} %"] if total else []
        if tokens:
            facts += [f"{tokens:,} tokens", f"{(tokens - tokens_before) / seconds:,.0f} tokens/s"]
        if total and done > done_before:
            facts.append(f"{clock(seconds * (total - done) / (done - done_before))} left")
        return ", ".join(facts)


class Watch(Bar):
    """An action for every step: ``with Watch("decoder") as watch: fit(..., actions=[(1, watch)])``.

    ``left`` gives the seconds to the end of the whole job where a run is one part of it.
    ``share``: of the machine's matrix peak, that a token a second is; None: it is not shown.
    """

    def __init__(
        self,
        label: str,
        *,
        quiet: bool = False,
        left: Callable[[], float] | None = None,
        share: float | None = None,
    ) -> None:
        super().__init__(quiet=quiet)
        self.label, self._left, self._share = label, left, share
        self._since: State | None = None

    def __call__(self, state: State) -> None:
        if self._since is None:
            self._since = replace(state) if state.step > 1 else State()
        self.show(self.label, state.step, state.steps, lambda: self._facts(state))

    def reading(self, done: int, total: int) -> None:
        """For ``heard``: tokens of texts that are read between the steps, as to measure."""
        self.count(f"{self.label}, reading", done, total, done)

    def _facts(self, state: State) -> str:
        recent = state.recent[-RECENT:] or [math.nan]
        speed, each = self._pace(state)
        steps = "?" if state.steps is None else f"{state.steps:,}"
        facts = f"step {state.step:,} of {steps}, loss {sum(recent) / len(recent):.3f}"
        if "reward" in state.last:  # whose loss says nothing
            facts = f"step {state.step:,} of {steps}, reward {state.last['reward']:.3f}"
        facts += f", {speed:,.0f} tokens/s"
        if self._share is not None:
            facts += f" ({speed * self._share:.0%} of the matrix peak)"
        if state.steps is not None:
            facts += f", {clock(each * (state.steps - state.step))} left"
        return facts + (f", {clock(self._left())} in all" if self._left else "")

    def _pace(self, state: State) -> tuple[float, float]:
        """Tokens a second and seconds a step in this process: what was done before a resume may
        have been done on another machine, and tells for the first step alone."""
        since = self._since if self._since and state.step > self._since.step else State()
        steps, seconds = state.step - since.step, state.seconds - since.seconds
        return (state.tokens - since.tokens) / max(seconds, 1e-9), seconds / steps


def clock(seconds: float) -> str:
    """75.3 -> "1:15", 3675 -> "1:01:15"."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"

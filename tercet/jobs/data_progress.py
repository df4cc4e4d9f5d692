"""What a person sees of `data prepare`: a bar on a terminal, else a line every half minute."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tercet.jobs.flags import say
from tercet.train.progress import clock

EVERY = 30.0  # seconds between lines


class Display:
    """A callback for `prepare`: stage, bytes done of all, tokens so far. Writes to stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._stage = ""
        self._said = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Display:
        if not self.quiet and sys.stderr.isatty():
            words = TextColumn("{task.description}")
            self._bar = Progress(
                words,
                BarColumn(),
                TextColumn("{task.fields[facts]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=None, facts="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int | None, tokens: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began = stage, (now, done, tokens)
        if self._bar is not None:
            facts = self._facts(now, done, total, tokens)
            self._bar.update(
                self._task, description=stage, completed=done, total=total, facts=facts
            )
        elif not self.quiet and now - self._said >= EVERY:
            self._said = now
            say(f"{stage}: {self._facts(now, done, total, tokens)}")

    def _facts(self, now: float, done: int, total: int | None, tokens: int) -> str:
        """ "41 %, 1,234,567 tokens, 812,000 tokens/s, 3:20 left"."""
        began, done_before, tokens_before = self._began
        seconds = max(now - began, 1e-3)
        facts = [f"{100 * done / total:.0f} %"] if total else []
        if tokens:
            facts += [f"{tokens:,} tokens", f"{(tokens - tokens_before) / seconds:,.0f} tokens/s"]
        if total and done > done_before:
            facts.append(f"{clock(seconds * (total - done) / (done - done_before))} left")
        return ", ".join(facts)

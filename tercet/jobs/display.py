"""What a person sees of long work that is counted in bytes or rows."""

from __future__ import annotations

import time

from tercet.train.progress import Bar, clock


class Display(Bar):
    """A callback: stage, how much is done of all, tokens so far. Writes to stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet, stderr=True)
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int | None, tokens: int) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._began = stage, (now, done, tokens)
        self.show(stage, done, total, lambda: self._facts(now, done, total, tokens))

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

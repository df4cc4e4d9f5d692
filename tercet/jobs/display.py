"""What a person sees of long work that is counted in bytes or rows."""

from __future__ import annotations

from tercet.train.progress import Bar


class Display(Bar):
    """A callback: stage, how much is done of all, tokens so far. Writes to stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet, stderr=True)

    def __call__(self, stage: str, done: int, total: int | None, tokens: int) -> None:
        self.count(stage, done, total, tokens)

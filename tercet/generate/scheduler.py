"""Who reads what next: many texts share a few rows a step, and a store of a fixed size.

Every text that is being written gets its row in every step; what is left of a step's rows reads
prompts, the oldest first, in chunks. Texts are admitted in the order of their arrival. Where the
store is full, the youngest text gives its pages back, waits at the front, and is read again. Knows
numbers only: no tensor, no network, no text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from tercet.errors import InputError

PAGE = 64  # tokens; a text's keys lie in whole pages, so that nothing moves when it grows


@dataclass
class Job:
    """A text. ``known``: its tokens so far, written ones too; ``read``: of those, in the store."""

    name: Hashable
    known: int
    longest: int  # known tokens at the most
    read: int = 0
    pages: list[int] = field(default_factory=list)

    @property
    def unread(self) -> int:
        return self.known - self.read


class Scheduler:
    """``pages``: of the store. ``rows``: tokens of a step. ``texts``: written at the same time."""

    def __init__(self, pages: int, *, rows: int = 64, texts: int = 48) -> None:
        if not 0 < texts < rows:
            raise InputError(
                f"{texts} texts at once and {rows} rows a step: texts must be 1 or more and fewer "
                "than the rows, or prompts would never be read"
            )
        self.n_pages, self.rows, self.texts = pages, rows, texts
        self.free = list(range(pages - 1, -1, -1))
        self.live: list[Job] = []  # in the order of their arrival
        self.waiting: deque[Job] = deque()

    # what comes from outside ------------------------------------------------------------------

    def add(self, name: Hashable, known: int, new: int) -> None:
        """A text with so many tokens, to which up to ``new`` are written. Raises InputError where
        it could never be held."""
        if _pages(known + new) > self.n_pages:
            raise InputError(
                f"a text of {known:,} tokens and {new:,} new ones does not fit into a memory for "
                f"{self.n_pages * PAGE:,}; give more memory, or ask for fewer tokens"
            )
        self.waiting.append(Job(name, known, known + new))

    def wrote(self, name: Hashable) -> None:
        """A token was written to a text that had been read to its end."""
        job = self.job(name)
        assert job.unread == 0 and job.known < job.longest, job
        job.known += 1

    def remove(self, name: Hashable) -> None:
        """The text is finished, or nobody wants it any more: its pages are free at once."""
        for job in [job for job in self.live if job.name == name]:
            self._release(job)
        self.waiting = deque(job for job in self.waiting if job.name != name)

    def job(self, name: Hashable) -> Job:
        """A text that is being read or written."""
        return next(job for job in self.live if job.name == name)

    # a step -----------------------------------------------------------------------------------

    def turn(self) -> list[tuple[Job, int]]:
        """The next step: how many unread tokens of which texts; empty where nobody is left. They
        count as read from now on."""
        self._admit()
        left, turn = self.rows, []
        writing = [job for job in self.live if job.unread == 1]
        for job in [*writing, *(job for job in self.live if job.unread > 1)]:
            count = min(left, job.unread)
            if count and job in self.live and self._has_room(job, count):
                turn.append((job, count))
                left -= count
        turn = [(job, count) for job, count in turn if job in self.live]  # some had to go since
        for job, count in turn:
            job.read += count
        return turn

    def undo(self, turn: list[tuple[Job, int]]) -> None:
        """A step came to nothing: what it was to read is unread."""
        for job, count in turn:
            job.read -= count

    def _admit(self) -> None:
        """Those who wait, in their order, while there is room for all that they are to read, and
        for a page more of each who writes."""
        while self.waiting and len(self.live) < self.texts:
            held = sum(_pages(job.known) - len(job.pages) for job in self.live)
            wanted = _pages(self.waiting[0].known) + len(self.live)
            if self.live and wanted > len(self.free) - held:
                return
            self.live.append(self.waiting.popleft())

    def _has_room(self, job: Job, count: int) -> bool:
        """Pages for ``count`` more tokens; False where the text itself had to go."""
        need = _pages(job.read + count) - len(job.pages)
        while need > len(self.free):
            youngest = self.live[-1]
            self._release(youngest)
            youngest.read = 0
            self.waiting.appendleft(youngest)
            if youngest is job:
                return False
        job.pages += [self.free.pop() for _ in range(need)]
        return True

    def _release(self, job: Job) -> None:
        self.live.remove(job)
        self.free += job.pages
        job.pages = []


def _pages(tokens: int) -> int:
    return -(-tokens // PAGE)

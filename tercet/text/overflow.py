"""What happens to a text that is longer than the model's context: one policy, for every job.

    error        refuse, naming both lengths and the other choices
    keep-start   keep the first tokens
    keep-end     keep the last tokens
    middle-out   keep the first and the last, drop the middle
    slide        drop nothing: several windows

Special tokens at the ends of a text ([CLS] ... [SEP], ... </s>) are kept at the ends of every
window. Nothing is cut in silence: hand a `CutReport` to every call and print it at the end.

How the jobs use it:

* embed: one vector per window, then the mean weighted by `Window.weight`.
* score: `slide` with `stride=room // 2`; only the tokens in `Window.counts` are scored, each token
  of the text exactly once, and all but the first window's with half a window before them.
* chat: whole turns of a conversation in the place of tokens, see turns.py.
* generate: does not come here. A text that reaches the edge of the context goes on from its newest
  half, behind a begin-of-text token where one stood first (`Text.slide` of generate/prompts.py).

Numbers only: no text, no tokenizer, no network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tercet.errors import InputError

Overflow = Literal["error", "keep-start", "keep-end", "middle-out", "slide"]
POLICIES: tuple[str, ...] = get_args(Overflow)


@dataclass(frozen=True)
class Window:
    """A stretch of a text that fits into the model.

    ids        T token ids, special tokens included
    positions  T indices: where each of them stands in the text's own list of ids
    counts     the places in `ids` that no earlier window has had; over the windows of `slide` they
               name every token of the text once
    weight     number of tokens that are not special: the window's share in a mean
    """

    ids: list[int]
    positions: Sequence[int]
    counts: range
    weight: int


@dataclass
class CutReport:
    """Counts what was cut. `str()` is one line for the user, empty when nothing was lost."""

    texts: int = 0
    cut_texts: int = 0
    tokens_of_cut_texts: int = 0
    lost_tokens: int = 0

    def add(self, n_tokens: int, n_lost: int) -> None:
        """One text of `n_tokens`, of which `n_lost` reach no window."""
        self.texts += 1
        if n_lost:
            self.cut_texts += 1
            self.tokens_of_cut_texts += n_tokens
            self.lost_tokens += n_lost

    def __str__(self) -> str:
        if not self.cut_texts:
            return ""
        texts = _percent(self.cut_texts, self.texts)
        lost = _percent(self.lost_tokens, self.tokens_of_cut_texts)
        return f"{texts} of texts lost {lost} of their tokens"


def fit(
    ids: Sequence[int],
    limit: int,
    policy: Overflow,
    *,
    special: tuple[int, int] = (0, 0),
    stride: int | None = None,
    report: CutReport | None = None,
    name: str = "the text",
    choices: Sequence[str] = POLICIES[1:],
) -> list[Window]:
    """The windows, each of at most `limit` tokens, in which a text of `ids` goes to the model.

    `special` says how many special tokens stand at the start and at the end of `ids`; they stand in
    every window. `stride` (for `slide`) is how many tokens a window starts after the one before;
    by default a window's whole room, so that no token is seen twice. `name` stands in the error;
    `choices`: the other policies that the user could have chosen, which the error then names.
    A text that fits is one window whatever the policy. `slide`: each token counts in one window;
    special tokens at the start count in the first window, those at the end in the last.

    Raises InputError for policy `error`, an unknown policy, a limit without room for a token, and a
    stride outside 1..room.
    """
    before, after = special
    text = range(before, len(ids) - after)
    assert len(ids) >= before + after, f"{len(ids)} ids with {before} + {after} special tokens"
    if policy not in POLICIES:
        raise InputError(f"unknown overflow policy {policy!r}; choose from: {', '.join(POLICIES)}")
    if len(ids) <= limit:
        windows = [Window(list(ids), range(len(ids)), range(len(ids)), len(text))]
    else:
        room = limit - before - after
        if policy == "error":
            others = f", or choose an overflow policy: {', '.join(choices)}" if choices else ""
            raise InputError(
                f"{name} has {len(ids):,} tokens and the model takes {limit:,}; shorten it{others}"
            )
        if room < 1:
            raise InputError(
                f"a limit of {limit} tokens leaves no room beside {before + after} special tokens;"
                f" give at least {before + after + 1}"
            )
        windows = _windows(ids, _stretches(text, room, policy, stride), text)
    if report is not None:
        counted = sum(len(window.counts) for window in windows) - before - after
        report.add(len(text), len(text) - counted)
    return windows


def _stretches(text: range, room: int, policy: str, stride: int | None) -> list[list[int]]:
    """Which tokens of `text`, longer than `room`, go into each window."""
    head = (room + 1) // 2
    if policy == "keep-start":
        return [list(text[:room])]
    if policy == "keep-end":
        return [list(text[-room:])]
    if policy == "middle-out":
        return [[*text[:head], *text[len(text) - (room - head) :]]]
    step = room if stride is None else stride
    if not 1 <= step <= room:
        raise InputError(f"a stride of {step} is outside 1..{room}, the tokens that fit a window")
    starts = range(
        0, len(text) - room + step, step
    )  # the last window is the first to reach the end
    return [list(text[start : start + room]) for start in starts]


def _windows(ids: Sequence[int], stretches: list[list[int]], text: range) -> list[Window]:
    """Put the special tokens around each stretch and say which of its tokens are new."""
    windows = []
    seen = text.start
    for number, stretch in enumerate(stretches):
        positions = [*range(text.start), *stretch, *range(text.stop, len(ids))]
        repeated = sum(1 for position in stretch if position < seen)
        first = 0 if number == 0 else text.start + repeated
        last = len(positions) if number == len(stretches) - 1 else text.start + len(stretch)
        window_ids = [ids[position] for position in positions]
        windows.append(Window(window_ids, positions, range(first, last), len(stretch)))
        seen = stretch[-1] + 1 if stretch else seen
    return windows


def _percent(part: int, whole: int) -> str:
    """ "7.3 %", "41 %": two figures below ten, whole numbers above."""
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.2g} %"

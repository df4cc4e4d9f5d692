"""Where the answers stand in a conversation's text, for templates that do not say it themselves.

What belongs to an answer is what a model would have to write: it starts where the prompt for it
would end, and stops behind the first control token after its content. Both are found by rendering
the conversation again with marks in it, never by looking for the content's words, which may stand
anywhere. Knows no tokens.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import takewhile

from tercet.errors import InputError
from tercet.text.controls import Controls
from tercet.text.messages import Message

END = "\ufdee"  # around the number of a message, where its content ends: a noncharacter
ENDED = re.compile(f"{END}(\\d+){END}")
SINGLY = 64  # answers whose prompt is rendered for them alone; most templates need none
UNCLEAR = (
    "it cannot be told what belongs to an answer; put {% generation %} around the answer in it"
)

Render = Callable[[Sequence[Message], bool], str]  # with the prompt for an answer, or without
Span = tuple[int, int]


def answer_spans(
    render: Render, controls: Controls, messages: Sequence[Message], text: str
) -> list[Span]:
    """(start, stop) of each answer in `text`, which is `render(messages, False)`.

    Every content gets a mark behind its last visible character; without the marks the rendering
    must be `text` again. Three renderings, however long the conversation. Raises InputError where
    the template lets it not be told.
    """
    ended = [_ended(message, number) for number, message in enumerate(messages)]
    marked = render(ended, False)
    places = _ends(marked, len(messages))
    if ENDED.sub("", marked) != text:
        raise InputError(
            f"the chat template writes other things where a content ends otherwise, so {UNCLEAR}"
        )
    written = list(controls.find(text))
    starts = [start for start, _ in written]
    prompts = _Prompts(render, controls, ended)
    spans = []
    for number in range(len(messages)):
        if messages[number].role != "assistant":
            continue
        before, end = places[number - 1], places[number]
        following = [*places[number + 1 : number + 2], len(text)][0]
        behind = bisect_left(starts, end)
        if behind == len(written) or written[behind][1] > following:
            raise InputError(
                f"the chat template writes no special token behind answer {number + 1}, so a model "
                "would never learn to stop; put {{ eos_token }} behind it"
            )
        length = prompts.length(number, text[before:end], messages[number].content.rstrip())
        spans.append((before + length, written[behind][1]))
    return spans


def _ended(message: Message, number: int) -> Message:
    """A message with its number behind the body of its content, before the blanks at its end, which
    a template may take off."""
    body = message.content.rstrip()
    blanks = message.content[len(body) :]
    return Message(message.role, f"{body}{END}{number}{END}{blanks}")


def _ends(marked: str, count: int) -> list[int]:
    """Where each message's body ends in the rendering without the marks."""
    places: list[list[int]] = [[] for _ in range(count)]
    taken = 0
    for mark in ENDED.finditer(marked):
        places[int(mark[1])].append(mark.start() - taken)
        taken += len(mark[0])
    for number, found in enumerate(places, 1):
        if len(found) != 1:
            times = f"{len(found)} times" if found else "not at all"
            raise InputError(
                f"the chat template writes the content of message {number} {times}, so {UNCLEAR}"
            )
    return [found[0] for found in places]


class _Prompts:
    """How much of the text behind a question belongs to the prompt. The prompt for the last answer
    serves for all that begin alike; others are rendered for themselves."""

    def __init__(self, render: Render, controls: Controls, ended: Sequence[Message]) -> None:
        self._render, self._controls, self._ended = render, controls, ended
        self._last = self._opening(len(ended) - 1).lstrip()
        self._singly = 0

    def length(self, number: int, found: str, body: str) -> int:
        """found: from the end of the question's body to that of the answer's, which is `body`."""
        blank = len(found) - len(found.lstrip())
        if self._last:  # blanks behind the question's body may be its own: they are left out
            length = self._common(self._last, found[blank:], body)
            if length is not None:
                return blank + length
        self._singly += 1
        if self._singly > SINGLY:
            raise InputError(
                f"the chat template begins more than {SINGLY} answers otherwise than the last one, "
                f"so {UNCLEAR}"
            )
        opening = self._opening(number)
        length = self._common(opening, found, body)
        if length is None:
            raise InputError(
                f"the chat template's prompt ends in {opening[-60:]!r}, and answer {number + 1} "
                f"begins otherwise, so {UNCLEAR}"
            )
        return length

    def _opening(self, number: int) -> str:
        """What stands behind the last content where this answer is to be given."""
        return ENDED.split(self._render(self._ended[:number], True))[-1]

    def _common(self, opening: str, found: str, body: str) -> int | None:
        """How many characters of `found` the prompt gives. A prompt may go on where the
        conversation does not (it begins a thought that the answer lacks): then what both have, if
        nothing but the answer's content follows, of which a thought at its beginning may have been
        dropped."""
        if found.startswith(opening):
            return len(opening)
        both = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(opening, found))))
        within = {
            place for a, b in self._controls.find(found) for place in range(a + 1, b) if a < both
        }
        rests = range(max(0, len(found) - len(body)), both + 1)
        cuts = (cut for cut in rests if cut not in within and body.endswith(found[cut:]))
        return next(cuts, None)

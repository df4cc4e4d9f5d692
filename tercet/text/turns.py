"""What of a conversation a model reads that is longer than its context: the policies of overflow.py
for messages instead of tokens.

    error        refuse, naming the numbers and the other choices
    keep-end     leave out the oldest turns
    middle-out   leave out turns of the middle, keep the first and the last
    slide        keep-end, and while the answer is written what has become too old goes too

A turn is a question with its answer, and goes as a whole. The system message and the last question
stay: where they alone are too long, the conversation is refused. Nothing goes in silence: `Sight`
has the numbers, and says them in a sentence.

Knows templates and tokens, no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tercet.errors import InputError
from tercet.text.chat import ChatTemplate
from tercet.text.messages import Message, Messages, conversation

KEEPING = ("keep-end", "middle-out", "slide")
SHARE = 4  # where nobody says how long an answer may be, a quarter of the context is kept for it


@dataclass(frozen=True)
class Sight:
    """What a model reads of a conversation.

    ids      what it reads, tokens
    tokens   of the whole conversation
    turns    of the whole conversation: questions with their answers, the last question beside them
    dropped  how many of the turns are left out
    room     tokens that are kept free for the answer
    context  tokens that the model can read
    policy   the overflow policy
    `str()` is a sentence for the user, empty when nothing is left out.
    """

    ids: list[int]
    tokens: int
    turns: int
    dropped: int
    room: int
    context: int
    policy: str

    @property
    def lost(self) -> int:
        """Tokens that are left out."""
        return self.tokens - len(self.ids)

    @property
    def numbers(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "tokens": self.tokens,
            "read_tokens": len(self.ids),
            "dropped_tokens": self.lost,
            "turns": self.turns,
            "dropped_turns": self.dropped,
            "room": self.room,
            "context": self.context,
            "overflow": self.policy,
        }

    def __str__(self) -> str:
        if not self.dropped:
            return ""
        are = "is" if self.dropped == 1 else "are"
        return (
            f"{self.dropped:,} of {counted(self.turns, 'earlier turn')} {are} left out, "
            f"{self.lost:,} of {self.tokens:,} tokens: the context is {self.context:,}, of which "
            f"{self.room:,} for the answer (overflow {self.policy!r})"
        )


class Turns:
    """A conversation in pieces that may be left out: turns, between what stays."""

    def __init__(
        self, template: ChatTemplate, messages: Messages, *, answered: bool = False
    ) -> None:
        """answered: it ends with an answer, and the last turn stays, else with a question. Raises
        InputError as `conversation` does."""
        read = conversation(messages, answered=answered)
        begin = 1 if read[0].role == "system" else 0
        self.template = template
        end = len(read) - (2 if answered else 1)
        self.system, self.last = read[:begin], read[end:]
        self.turns = [read[place : place + 2] for place in range(begin, end, 2)]

    def fit(self, context: int, room: int, policy: str) -> Sight:
        """What a model of `context` tokens reads that is to write `room` more.

        Raises InputError for an unknown policy, for `error` where it does not fit as it is, and
        where it does not fit even without any turn.
        """
        sight = self.look(context, room, policy)
        if len(sight.ids) <= context - room:
            return sight
        if policy == "error":
            raise InputError(
                f"{_beyond('the conversation has', sight)}; ask for fewer new tokens "
                f"(max_new_tokens), begin anew, or choose an overflow policy: {', '.join(KEEPING)}"
            )
        what, it = "the question alone has", "it"
        if self.system:
            what, it = "the system message and the last question alone have", "them"
        raise InputError(
            f"{_beyond(what, sight)}; shorten {it}, or ask for fewer new tokens (max_new_tokens)"
        )

    def look(self, context: int, room: int, policy: str) -> Sight:
        """As `fit`, of what is refused too: all of it for `error`, else what must stay."""
        check_policy(policy)
        ids, dropped = self.ids(0, policy), 0
        tokens = len(ids)
        if tokens > context - room and policy != "error":
            ids, dropped = self.within(context - room, policy)
        return Sight(ids, tokens, len(self.turns), dropped, room, context, policy)

    def within(self, limit: int, policy: str) -> tuple[list[int], int]:
        """The ids of as many turns as go into `limit` tokens, and how many are left out: all of
        them where nothing fits.

        Looks from few turns to many, so that it costs what is kept and not what there is.
        """
        n = len(self.turns)
        kept, ids = 0, self.ids(n, policy)
        if len(ids) > limit:
            return ids, n
        step, beyond = 1, n + 1
        while beyond - kept > 1:
            tried = kept + min(step, (beyond - kept) // 2)
            more = self.ids(n - tried, policy)
            if len(more) <= limit:
                kept, ids, step = tried, more, 2 * step
            else:
                beyond = tried
        return ids, n - kept

    def ids(self, dropped: int, policy: str) -> list[int]:
        """The ids without so many turns."""
        head = self._head(dropped, policy)
        turns = [*self.turns[:head], *self.turns[head + dropped :]]
        messages = [*self.system, *(one for turn in turns for one in turn), *self.last]
        return self.template.ids(messages)

    def next(self, dropped: int, policy: str) -> list[Message]:
        """The turn that goes when one more has to, empty where none is left."""
        if dropped == len(self.turns):
            return []
        head, shorter = self._head(dropped, policy), self._head(dropped + 1, policy)
        return self.turns[shorter if shorter < head else head + dropped]

    def _head(self, dropped: int, policy: str) -> int:
        """How many turns stay before those that are left out."""
        return (len(self.turns) - dropped + 1) // 2 if policy == "middle-out" else 0


def check_policy(policy: str) -> None:
    """Raises InputError for what is no policy for conversations."""
    if policy not in ("error", *KEEPING):
        raise InputError(
            f"overflow {policy!r} is not for conversations; choose from: "
            f"{', '.join(('error', *KEEPING))}"
        )


def room_for(max_new_tokens: int | None, context: int, policy: str) -> int:
    """Tokens kept free for an answer: all that it may have, a share of the context where that is
    not said, and no more than the share where what is old slides out of its way."""
    share = max(2, context // SHARE)
    if max_new_tokens is None:
        return share
    return min(share, max_new_tokens) if policy == "slide" else max_new_tokens


def counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _beyond(what: str, sight: Sight) -> str:
    tokens = len(sight.ids)
    return (
        f"{what} {tokens:,} tokens, and with {sight.room:,} for the answer that is "
        f"{tokens + sight.room:,}, beyond the context of {sight.context:,}"
    )

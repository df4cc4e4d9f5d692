"""Answering in a conversation: a chat template makes ids of messages, the writer answers them, and
what does not fit the context is left out by a policy and counted.

One path for `m.chat`, `m.chat_stream` and `tercet chat`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tercet.answers import CutWarning
from tercet.generate.answering import Answering
from tercet.generate.prompts import check_options
from tercet.generate.reader import Kept
from tercet.generate.texts import Request, Writer
from tercet.text.chat import CHATML_TOKENS, ChatTemplate
from tercet.text.messages import Messages
from tercet.text.turns import Sight, Turns, check_policy, counted, room_for


@dataclass(frozen=True)
class Reply:
    """What a model answers in a conversation; ``str()`` is the text.

    ids: its tokens, the one that ends the turn included. finish: "stop" (it ended its turn, or at a
    stop string), "length" (no room left) or "interrupted". log_probabilities: of each id, the
    model's own, natural. sight: what was read of the conversation, and the numbers of what was not.
    slid_turns, slid_tokens: turns, and tokens of them and of the answer's beginning, that slid out
    of the model's sight while it answered.
    """

    text: str
    ids: list[int]
    finish: str
    log_probabilities: list[float]
    sight: Sight
    slid_turns: int = 0
    slid_tokens: int = 0

    def __str__(self) -> str:
        return self.text

    @property
    def notice(self) -> str:
        """What the model did not see, in a sentence; empty where it saw everything."""
        return "; ".join(filter(None, [str(self.sight), self.slides]))

    @property
    def slides(self) -> str:
        if not self.slid_tokens:
            return ""
        turns = f"{counted(self.slid_turns, 'turn')} and " if self.slid_turns else ""
        return (
            f"while it answered, {turns}{counted(self.slid_tokens, 'token')} in all slid out of "
            f"the model's sight (overflow {self.sight.policy!r})"
        )

    @property
    def numbers(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            **self.sight.numbers,
            "slid_turns": self.slid_turns,
            "slid_tokens": self.slid_tokens,
        }


class Conversing:
    """A writer with the chat template of its model.

    keep: hold the keys and values of what was read last, so that of a conversation that grows only
    what is new is read.
    """

    def __init__(self, writer: Writer, *, keep: bool = False) -> None:
        template = ChatTemplate.of(writer.tokenizer)
        self.spelled = bool(template.added)
        if self.spelled:  # tokens without a vector: the model reads their letters instead
            template = ChatTemplate(template.source, writer.tokenizer, given=False)
        self.template = template
        self.writer = replace(writer, ends=(*template.answer.ends, *writer.ends))
        self.kept = Kept() if keep else None

    @property
    def context(self) -> int:
        return self.writer.network.config.context_length

    @property
    def about(self) -> str:
        """What a user should know of the template; empty for a model's own."""
        if self.template.given:
            return ""
        said = "the model has no chat template: ChatML is taken"
        if self.spelled:
            said += (
                f", whose tokens {' and '.join(CHATML_TOKENS)} the model does not know: they are "
                "spelled out. A model that never learned conversations answers as it likes"
            )
        return said

    def check(self, request: Request) -> None:
        """Raises InputError for what would be wrong with every conversation."""
        check_policy(request.overflow)
        check_options(request.max_new_tokens, _edge(request.overflow), slides=True)

    def room(self, request: Request) -> int:
        """Tokens that are kept free for an answer."""
        return room_for(request.max_new_tokens, self.context, request.overflow)

    def stream(self, messages: Messages, request: Request) -> Replying:
        """The answer in pieces. Input is checked at the call."""
        turns = Turns(self.template, messages)
        self.check(request)
        sight = turns.fit(self.context, self.room(request), request.overflow)
        return Replying(self, turns, sight, request)


class Replying(Iterator[str]):
    """The pieces of an answer. `sight`: what is read of the conversation, known at once. `reply`:
    what there is of the answer so far. Who leaves early calls `close`."""

    def __init__(
        self, conversing: Conversing, turns: Turns, sight: Sight, request: Request
    ) -> None:
        self.sight = sight
        self._around = conversing.template.answer
        self._slid = sight  # what is read after turns have slid out
        slides = request.overflow == "slide"
        stop = request.stop
        if conversing.spelled and request.grammar is None:  # which says itself where it ends
            stop = (*stop, CHATML_TOKENS[1])

        def again(room: int) -> list[int]:
            ids, dropped = turns.within(room, request.overflow)
            self._slid = replace(sight, ids=ids, dropped=dropped)
            return ids

        self._answering = Answering(
            conversing.writer,
            sight.ids,
            replace(request, stop=stop, overflow=_edge(request.overflow)),
            again=again if slides else None,
            kept=conversing.kept,
        )
        self._given: list[str] = []
        self._pieces = self._answer()

    def _answer(self) -> Iterator[str]:
        """Without what the template itself writes before an answer."""
        before, held, begun = self._around.before, "", False
        for piece in self._answering:
            held += piece
            if not begun and held != before and before.startswith(held):
                continue
            text, held = (held if begun else held.removeprefix(before)), ""
            begun = True
            if text:
                yield text
        if held:
            yield held
        if notice := self.reply.notice:
            warnings.warn(notice, CutWarning, stacklevel=3)

    def __next__(self) -> str:
        piece = next(self._pieces)
        self._given.append(piece)
        return piece

    def close(self) -> None:
        """Ends the answer where it is; what was written stays in `reply`."""
        self._answering.close()

    @property
    def reply(self) -> Reply:
        done = self._answering
        text = "".join(self._given)
        if done.finish == "stop":
            text = text.removesuffix(self._around.after)
        return Reply(
            text,
            list(done.ids),
            done.finish,
            list(done.log_probabilities),
            self.sight,
            self._slid.dropped - self.sight.dropped,
            done.dropped,
        )


def _edge(policy: str) -> str:
    """What is to happen at the edge while an answer is written."""
    return "slide" if policy == "slide" else "error"

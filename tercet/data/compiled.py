"""Conversations as token ids with what is learned of them, refused where learning them would go
wrong without a word: nothing learned, no end of a turn learned, two beginnings.

Knows no network and no order of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from tercet.data.conversations import Conversation
from tercet.errors import InputError
from tercet.text.chat import ChatTemplate, Compiled


def compiled(rows: Iterable[Conversation], template: ChatTemplate) -> Iterator[Compiled]:
    """Each conversation's ids and mask. Raises InputError for what `ChatTemplate.compile` and
    `check` refuse, with the conversation's file and line."""
    for row in rows:
        one = template.compile(row.messages, name=row.where)
        check(one, template, name=row.where)
        yield one


def check(one: Compiled, template: ChatTemplate, *, name: str = "the conversation") -> None:
    """Raises InputError where no token is learned, where none is learned that ends a turn (a model
    would never stop), and where the token that begins a text stands twice at the beginning."""
    tokenizer = template.tokenizer
    learned = list(stretches(one))
    if not learned:
        raise InputError(
            f"{name}: nothing of it would be learned; the template's {{% generation %}} must "
            "stand around the answers"
        )
    if all(template.end_of(ids) is None for ids in learned):
        raise InputError(
            f"{name}: no special token would be learned at the end of an answer, so a model would "
            "never stop; put the token that ends a turn within the template's {% generation %}"
        )
    begin = tokenizer.bos_id
    if begin is not None and one.ids[:2] == [begin, begin]:
        raise InputError(
            f"{name}: begins with {tokenizer.roles['bos']} twice; the template should write it once"
        )


def stretches(one: Compiled) -> Iterator[list[int]]:
    """The ids of each stretch that is learned."""
    for learned, run in groupby(zip(*one, strict=True), key=lambda pair: pair[1]):
        if learned:
            yield [token for token, _ in run]


@dataclass(frozen=True)
class Counts:
    """turns: stretches that are learned. beyond: conversations longer than the context, of how many
    tokens; None where nobody knows."""

    conversations: int
    turns: int
    tokens: int
    learned: int
    longest: int
    beyond: int | None
    context: int | None

    @classmethod
    def of(cls, rows: Sequence[Compiled], context: int | None) -> Counts:
        lengths = [len(row.ids) for row in rows]
        return cls(
            conversations=len(rows),
            turns=sum(1 for row in rows for _ in stretches(row)),
            tokens=sum(lengths),
            learned=sum(sum(row.mask) for row in rows),
            longest=max(lengths, default=0),
            beyond=None if context is None else sum(length > context for length in lengths),
            context=context,
        )

    def __str__(self) -> str:
        share = 100 * self.learned / max(1, self.tokens)
        said = (
            f"{self.conversations:,} conversations, {self.turns:,} turns; {self.learned:,} of "
            f"{self.tokens:,} tokens learned ({share:.0f} %); longest {self.longest:,}"
        )
        if self.beyond is None:
            return said
        return f"{said}; {self.beyond:,} beyond the context of {self.context:,}"

"""Chat templates: a conversation becomes token ids, and a mask of those that are learned.

A template is Hugging Face's: Jinja, in a model's `chat_template.jinja` or `tokenizer_config.json`;
ChatML where a model has none. One object serves training, evaluation and chat, and its hash says
whether two of them are the same. What is learned of an answer is what a model would have to write
behind the prompt, with the token that ends its turn. No content can spell a control token.
Knows no network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tercet.errors import InputError
from tercet.text.controls import Controls, StandIns
from tercet.text.messages import Message, Messages, conversation
from tercet.text.sandbox import CLOSE, OPEN, Template
from tercet.text.special import ROLES
from tercet.text.tokenizer import Tokenizer

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
DEFAULT = "default"
END = "\ufdee"  # around the number of a message, where its content ends
ENDED = re.compile(f"{END}(\\d+){END}")
UNCLEAR = (
    "it cannot be told what belongs to an answer; put {% generation %} around the answer in it"
)
SINGLY = 64  # answers whose prompt is rendered for them alone; most templates need none


class Compiled(NamedTuple):
    """ids: T token ids. mask: T bools, whether the token is learned."""

    ids: list[int]
    mask: list[bool]


class ChatTemplate:
    """A template with the tokenizer that it is for.

    source       the Jinja text
    tokenizer    the tokenizer; its settings hold the template, so that both are saved together
    added        special tokens that the tokenizer lacked: new rows of the embedding
    given        whether it is a model's own, and not ChatML for want of one
    marked       whether the template says itself what is learned, by {% generation %}
    """

    def __init__(self, source: str, tokenizer: Tokenizer, *, added: Sequence[str] = ()) -> None:
        """Raises InputError for a mistake in the template's syntax."""
        self.source = source
        self.added = tuple(added)
        self.given = tokenizer.settings.get("chat_template") is not None
        self.tokenizer = tokenizer.with_special(added, chat_template=source)
        self._template = Template(source)
        self.marked = self._template.marks
        tokenizer, written = self.tokenizer, set()
        for token in tokenizer.added_tokens - tokenizer.special_tokens:
            written |= {token} if token in source else set()
        # An answer may hold what the template writes of tokens that are not special, as <think>
        self._within_answers = Controls(tokenizer.special_tokens)
        self._controls = Controls(tokenizer.special_tokens | written)
        self._values = {
            f"{role}_token": tokenizer.roles[role] for role in ROLES if tokenizer.roles[role]
        }

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, name: str | None = None) -> ChatTemplate:
        """The template of a model's folder, ChatML where it has none.

        name: which one, where the folder has several; "default" if not given. ChatML's two tokens
        are added to a tokenizer that lacks them. Raises InputError for a name that is not there.
        """
        found = tokenizer.settings.get("chat_template")
        if found is None:
            if name is not None:
                raise InputError(f"template {name!r}: the model has no chat template; give no name")
            begins = tokenizer.bos_id is not None and tokenizer.bos_id in tokenizer.around[0]
            lacking = [token for token in CHATML_TOKENS if token not in tokenizer.special_tokens]
            source = "{{- bos_token }}\n" + CHATML if begins else CHATML
            return cls(source, tokenizer, added=lacking)
        return cls(_named(found, name), tokenizer)

    @property
    def hash(self) -> str:
        """Equal hashes, equal ids and masks (a template may ask for the date). 64 digits."""
        return hashlib.sha256(f"{self.source}\0{self.tokenizer.hash}".encode()).hexdigest()

    def compile(self, messages: Messages, *, name: str = "the conversation") -> Compiled:
        """The ids of a conversation that ends with an answer, and which of them are learned.

        Raises InputError, beginning with `name`, for what `conversation` and the template refuse,
        and where it cannot be told what belongs to an answer.
        """
        stand_ins, hidden = self._hidden(conversation(messages, answered=True, name=name))
        with _about(name):
            text, spans = _unmarked(self._template(_dicts(hidden), self._all(prompt=False)))
            if not self.marked:
                spans = self._answers(hidden, text)
        ids, places = self._encoded(text, stand_ins)
        return Compiled(ids, _covered(places, spans))

    def prompt(self, messages: Messages, *, name: str = "the conversation") -> list[int]:
        """The ids of a conversation that ends with a question, and of what comes before an answer.
        Raises InputError as `compile` does."""
        stand_ins, hidden = self._hidden(conversation(messages, answered=False, name=name))
        with _about(name):
            text, _ = _unmarked(self._template(_dicts(hidden), self._all(prompt=True)))
        return self._encoded(text, stand_ins)[0]

    def _all(self, *, prompt: bool) -> dict[str, object]:
        more = {"tools": None, "documents": None, "add_generation_prompt": prompt}
        return {**self._values, **more}

    def _hidden(self, messages: list[Message]) -> tuple[StandIns, list[Message]]:
        """The messages with stand-ins for what must not be taken for a control token."""
        stand_ins = StandIns([message.content for message in messages], OPEN + CLOSE + END)
        return stand_ins, [
            Message(
                message.role,
                stand_ins.hide(
                    message.content,
                    self._within_answers if message.role == "assistant" else self._controls,
                ),
            )
            for message in messages
        ]

    def _encoded(self, text: str, stand_ins: StandIns) -> tuple[list[int], list[tuple[int, int]]]:
        parts = [(stand_ins.show(part), control) for part, control in self._controls.parts(text)]
        return self.tokenizer.encode_parts(parts, self._controls.spellings)

    # Where the answers of a template without marks stand

    def _answers(self, messages: list[Message], text: str) -> list[tuple[int, int]]:
        """(start, stop) of each answer in the text, its end of turn included.

        The conversation is rendered again with a mark behind the body of each content. An answer
        starts where the prompt for it would end, and stops behind the first control token after its
        body.
        """
        ended = _ended(messages)
        marked = self._template(_dicts(ended), self._all(prompt=False))
        places = _ends(marked, len(messages))
        if ENDED.sub("", marked) != text:
            raise InputError(
                "the chat template writes other things where a content ends otherwise, so "
                f"{UNCLEAR}"
            )
        controls = [*self._controls.find(text)]
        opening = self._openings(ended)
        spans = []
        for number, message in enumerate(messages):
            if message.role == "assistant":
                before, end = places[number - 1], places[number]
                following = places[number + 1] if number + 1 < len(messages) else len(text)
                stop = next((b for a, b in controls if end <= a and b <= following), None)
                if stop is None:
                    raise InputError(
                        f"the chat template writes no special token behind answer {number + 1}, so "
                        "a model would never learn to stop; put {{ eos_token }} behind it"
                    )
                spans.append((before + opening(number, text[before:end]), stop))
        return spans

    def _openings(self, ended: list[Message]) -> Callable[[int, str], int]:
        """How many characters behind a question belong to the prompt, by message and the text from
        there to the answer's end. The last answer's prompt serves for all that begin alike."""

        def own(number: int) -> str:
            prompt = self._template(_dicts(ended[:number]), self._all(prompt=True))
            return ENDED.split(prompt)[-1]

        last = own(len(ended) - 1)
        singly: list[int] = []

        def length(number: int, found: str) -> int:
            blank = len(found) - len(found.lstrip())
            if last.strip() and found.startswith(last.lstrip(), blank):
                return blank + len(last.lstrip())
            singly.append(number)
            if len(singly) > SINGLY:
                raise InputError(
                    f"the chat template begins more than {SINGLY} answers otherwise than the last "
                    f"one, so {UNCLEAR}"
                )
            opening = own(number)
            if found.startswith(opening):
                return len(opening)
            return self._shared(opening, found, number)

        return length

    def _shared(self, opening: str, found: str, number: int) -> int:
        """Of a prompt that goes on otherwise than the conversation does (it may begin a thought
        that the answer lacks): up to the control token or line that both have, where an answer with
        no further control token follows."""
        cuts = {place for stretch in self._controls.find(opening) for place in stretch}
        cuts |= {place + 1 for place, character in enumerate(opening) if character == "\n"}
        for cut in sorted(cuts, reverse=True):
            if found.startswith(opening[:cut]) and not any(self._controls.find(found[cut:])):
                return cut
        raise InputError(
            f"the chat template's prompt ends in {opening[-60:]!r}, and answer {number + 1} begins "
            f"otherwise, so {UNCLEAR}"
        )


def _named(found: object, name: str | None) -> str:
    """One template of what a folder holds: a text, or several with names."""
    if isinstance(found, Sequence) and not isinstance(found, str):
        found = {one.get("name"): one.get("template") for one in found if isinstance(one, Mapping)}
    if isinstance(found, Mapping):
        wanted = name or (DEFAULT if DEFAULT in found or len(found) != 1 else next(iter(found)))
        chosen = found.get(wanted)
        if not isinstance(chosen, str):
            names = ", ".join(map(repr, found)) or "none"
            raise InputError(f"the model has no chat template {wanted!r}; it has {names}")
        return chosen
    if not isinstance(found, str):
        raise InputError(
            f"chat_template in tokenizer_config.json is {type(found).__name__}, not a text; mend it"
        )
    if name not in (None, DEFAULT):
        raise InputError(f"the model has one chat template without a name, not {name!r}")
    return found


def _dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _unmarked(rendered: str) -> tuple[str, list[tuple[int, int]]]:
    """A rendering without the marks of {% generation %}, and the stretches between them."""
    text: list[str] = []
    opened: list[int] = []
    spans, length = [], 0
    for piece in re.split(f"([{OPEN}{CLOSE}])", rendered):
        if piece == OPEN:
            opened.append(length)
        elif piece == CLOSE and opened:
            spans.append((opened.pop(), length))
        else:
            text.append(piece)
            length += len(piece)
    return "".join(text), spans


def _ended(messages: Sequence[Message]) -> list[Message]:
    """Messages with their number behind the body of the content, before the blanks at its end,
    which a template may take off."""
    ended = []
    for number, message in enumerate(messages):
        body = message.content.rstrip()
        blanks = message.content[len(body) :]
        ended.append(Message(message.role, f"{body}{END}{number}{END}{blanks}"))
    return ended


def _ends(marked: str, count: int) -> list[int]:
    """Where each message's body ends in the rendering without the marks."""
    places: dict[int, list[int]] = {number: [] for number in range(count)}
    taken = 0
    for mark in ENDED.finditer(marked):
        places[int(mark[1])].append(mark.start() - taken)
        taken += len(mark[0])
    for number, found in places.items():
        if len(found) != 1:
            times = f"{len(found)} times" if found else "not at all"
            raise InputError(
                f"the chat template writes the content of message {number + 1} {times}, so "
                f"{UNCLEAR}"
            )
    return [found[0] for found in places.values()]


def _covered(places: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Which tokens hold a character of some span; both are in order."""
    mask, waiting = [], sorted(spans)
    for start, stop in places:
        while waiting and waiting[0][1] <= start:
            waiting.pop(0)
        mask.append(bool(waiting) and max(stop, start + 1) > waiting[0][0])
    return mask


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Puts a conversation's name before what a template refuses."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error

"""Chat templates: a conversation becomes token ids, and a mask of those that are learned.

A template is Hugging Face's: Jinja, in a model's `chat_template.jinja` or `tokenizer_config.json`;
ChatML where a model has none. One object serves training, evaluation and chat, and its hash says
whether two of them are the same. What is learned of an answer is what a model would have to write
behind the prompt, with the token that ends its turn. No content can spell a control token.
Knows no network.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import NamedTuple, get_args

from tercet.errors import InputError
from tercet.text.answer_spans import END, answer_spans
from tercet.text.controls import Controls, StandIns
from tercet.text.messages import Message, Messages, Role, conversation
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
HASH = "chat_template_hash"  # among the settings of a tuned model's tokenizer
DEFAULT = "default"


class Compiled(NamedTuple):
    """ids: T token ids. mask: T bools, whether the token is learned."""

    ids: list[int]
    mask: list[bool]


class Answer(NamedTuple):
    """ends: the token that ends a turn, none where no special one does. before, after: the text
    that a template writes between the prompt and an answer's content, and behind it."""

    ends: tuple[int, ...] = ()
    before: str = ""
    after: str = ""


class ChatTemplate:
    """A template with the tokenizer that it is for.

    source       the Jinja text
    tokenizer    the tokenizer; its settings hold the template, so that both are saved together
    added        special tokens that the tokenizer lacked: new rows of the embedding
    given        whether it is a model's own, and not ChatML for want of one
    marked       whether the template says itself what is learned, by {% generation %}
    """

    def __init__(
        self,
        source: str,
        tokenizer: Tokenizer,
        *,
        added: Sequence[str] = (),
        given: bool = True,
    ) -> None:
        """Raises InputError for a mistake in the template's syntax."""
        self.source = source
        self.added = tuple(added)
        self.given = given
        self.tokenizer = tokenizer.with_special(added, chat_template=source)
        self._template = Template(source)
        self.marked = self._template.marks
        roles = self.tokenizer.roles
        self._values = {f"{role}_token": roles[role] for role in ROLES if roles[role]}
        # An answer may hold what the template writes of tokens that are not special, as <think>
        special = self.tokenizer.special_tokens
        self._within_answers = Controls(special)
        self._controls = Controls(special | self._written(self.tokenizer.added_tokens - special))

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, name: str | None = None) -> ChatTemplate:
        """The template of a model's folder, ChatML where it has none.

        name: which one, where the folder has several; "default" if not given. ChatML's two tokens
        are added to a tokenizer that lacks them. Raises InputError for a name that is not there,
        and where a model was tuned with another template or tokenizer than its folder holds.
        """
        found = tokenizer.settings.get("chat_template")
        if found is None:
            if name is not None:
                raise InputError(f"template {name!r}: the model has no chat template; give no name")
            begins = tokenizer.bos_id is not None and tokenizer.bos_id in tokenizer.around[0]
            lacking = [token for token in CHATML_TOKENS if token not in tokenizer.special_tokens]
            source = "{{- bos_token }}\n" + CHATML if begins else CHATML
            return cls(source, tokenizer, added=lacking, given=False)
        template, tuned = cls(_named(found, name), tokenizer), tokenizer.settings.get(HASH)
        if tuned is not None and tuned != template.hash:
            raise InputError(
                f"the model was tuned with the chat template {str(tuned)[:12]}, and the folder's "
                f"template and tokenizer are {template.hash[:12]}; copy the folder anew, or take "
                f"{HASH} out of tokenizer_config.json to use what is there"
            )
        return template

    @property
    def signed(self) -> Tokenizer:
        """The tokenizer with the template and its hash in its settings, to be saved with a model
        that learns with them."""
        return self.tokenizer.with_special((), **{HASH: self.hash})

    @property
    def hash(self) -> str:
        """Equal hashes, equal ids and masks (a template may ask for the date). 64 digits."""
        tokens = sorted(self._controls.spellings)
        said = json.dumps([self.source, self.tokenizer.hash, tokens])
        return hashlib.sha256(said.encode()).hexdigest()

    def compile(self, messages: Messages, *, name: str = "the conversation") -> Compiled:
        """The ids of a conversation that ends with an answer, and which of them are learned.

        Raises InputError, beginning with `name`, for what `conversation` and the template refuse,
        and where it cannot be told what belongs to an answer.
        """
        stand_ins, hidden = self._hidden(conversation(messages, answered=True, name=name))
        with _about(name):
            text, spans = _unmarked(self._rendered(hidden, False))
            if not self.marked:
                spans = answer_spans(self._rendered, self._controls, hidden, text)
            ids, places = self._encoded(text, stand_ins)
        return Compiled(ids, _covered(places, spans))

    def prompt(self, messages: Messages) -> list[int]:
        """The ids of a conversation that ends with a question, and of what comes before an answer.
        Raises InputError as `compile` does."""
        return self.ids(conversation(messages, answered=False))

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids of messages in their order, and behind a question of what comes before an answer.
        Raises InputError for what the template refuses."""
        stand_ins, hidden = self._hidden(list(messages))
        with _about("the conversation"):
            text, _ = _unmarked(self._rendered(hidden, messages[-1].role == "user"))
            return self._encoded(text, stand_ins)[0]

    @cached_property
    def answer(self) -> Answer:
        """What the template puts around an answer."""
        said = "answer"
        try:
            ids, mask = self.compile([Message("user", "question"), Message("assistant", said)])
        except InputError:  # it ends no turn, or it cannot be told where: a prompt it has still
            return Answer()
        learned = [token for token, is_learned in zip(ids, mask, strict=True) if is_learned]
        behind = ids[len(mask) - mask[::-1].index(True) :] if learned else []
        special = self.tokenizer.special_ids
        ends = [self.end_of(learned), *(token for token in behind if token in special)]
        before, found, after = self.tokenizer.decode(learned).partition(said)
        ends = tuple(token for token in ends if token is not None)[:1]
        return Answer(ends, *((before, after) if found else ("", "")))

    def end_of(self, ids: Sequence[int]) -> int | None:
        """The special token that some ids end with; blanks may stand behind it."""
        special = self.tokenizer.special_ids
        place = next((place for place in reversed(range(len(ids))) if ids[place] in special), None)
        if place is None or self.tokenizer.decode(ids[place + 1 :], skip_special=False).strip():
            return None
        return ids[place]

    def _written(self, tokens: frozenset[str]) -> set[str]:
        """Those that stand in the template, or that it puts together."""
        shown = [self.source]
        for first in (0, 1):  # with a system message, and for templates that know none
            messages = [Message(role, "x") for role in get_args(Role)][first:]
            with suppress(InputError):
                shown.append(self._rendered(messages, False))
        return {token for token in tokens if any(token in text for text in shown)}

    def _rendered(self, messages: Sequence[Message], prompt: bool) -> str:
        dicts = [{"role": message.role, "content": message.content} for message in messages]
        more = {"tools": None, "documents": None, "add_generation_prompt": prompt}
        return self._template(dicts, {**self._values, **more})

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


def _unmarked(rendered: str) -> tuple[str, list[tuple[int, int]]]:
    """A rendering without the marks of {% generation %}, and the stretches between them."""
    text: list[str] = []
    opened: list[int] = []
    spans, length = [], 0
    for piece in re.split(f"([{OPEN}{CLOSE}])", rendered):
        if piece == OPEN:
            opened.append(length)
        elif piece == CLOSE and opened:
            spans += [(opened[-1], length)] if length > opened[-1] else []
            opened.pop()
        else:
            text.append(piece)
            length += len(piece)
    return "".join(text), spans


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

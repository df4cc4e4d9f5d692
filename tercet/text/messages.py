"""One format for conversations: messages with a role and a content, as OpenAI's interface has them.

A system message may come first; then questions and answers take turns. Knows no tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

from tercet.errors import InputError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)
OTHER_NAMES = {"developer": "system"}  # the newer name for the same
TOOLS, CALLS = ("tool", "function"), ("tool_calls", "function_call")


@dataclass(frozen=True)
class Message:
    """role: system, user or assistant. content: its text, never blank."""

    role: Role
    content: str


Messages = Sequence[Message | Mapping[str, Any]]


def conversation(
    messages: Messages, *, answered: bool, name: str = "the conversation"
) -> list[Message]:
    """Messages as they should be: a system message or none, a user's, an assistant's, and so on.

    Dicts have `role` and `content`, a text or a list of parts {"type": "text", "text": ...};
    "developer" is read as "system". answered: the last one must be an answer, else a question.
    Raises InputError, beginning with `name`, for roles out of order, unknown roles, empty content,
    what is no text (images, calls of tools), and a conversation with the wrong end.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise InputError(
            f"{name}: expected a list of messages, got {type(messages).__name__}; write "
            '[{"role": "user", "content": "..."}]'
        )
    if not messages:
        raise InputError(f"{name}: holds no message; give at least a user's")
    read = [_message(one, f"{name}, message {i}") for i, one in enumerate(messages, 1)]
    begins = 1 if read[0].role == "system" else 0
    for place, message in enumerate(read):
        if place == 0 and begins:
            continue
        expected = ("user", "assistant")[(place - begins) % 2]
        if message.role != expected:
            before = f"after {read[place - 1].role}" if place else "at the beginning"
            also = " (or a system message)" if not place else ""
            raise InputError(
                f"{name}, message {place + 1}: {message.role} {before}, where {expected} should "
                f"stand{also}; put the messages in order, or join two of one role"
            )
    last = read[-1].role
    if answered and last != "assistant":
        raise InputError(
            f"{name}: has no answer, it ends with {last}; add the assistant's message, or leave it "
            "out"
        )
    if not answered and last != "user":
        raise InputError(f"{name}: ends with {last}; end with the question that is to be answered")
    return read


def _message(message: Any, name: str) -> Message:
    if isinstance(message, Message):
        message = {"role": message.role, "content": message.content}
    if not isinstance(message, Mapping):
        kind = type(message).__name__
        raise InputError(f"{name}: {kind} {message!r:.40}, not an object with role and content")
    for key in ("role", "content"):
        if key not in message:
            held = ", ".join(map(repr, message)) or "nothing"
            raise InputError(f"{name}: has no {key!r} but {held}; add it")
    role = message["role"]
    role = OTHER_NAMES.get(role, role) if isinstance(role, str) else role
    if role in TOOLS or any(message.get(key) for key in CALLS):
        raise InputError(f"{name}: tools and calls of them are not supported; take it out")
    if role not in ROLES:
        near = get_close_matches(str(role).lower(), ROLES, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"the roles are {', '.join(ROLES)}"
        raise InputError(f"{name}: unknown role {role!r}; {remedy}")
    content = text_of(message["content"], name)
    if not content.strip():
        raise InputError(f"{name}: the content of {role} is empty; fill it or leave it out")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name}: the content of {role} has half a surrogate pair, {content[error.start]!r} at "
            f"character {error.start}; read the text anew, or take it out"
        ) from error
    return Message(ROLES[ROLES.index(role)], content)


def text_of(content: Any, name: str) -> str:
    """A content as one text: a string, or the texts of a list of parts, joined."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = content if isinstance(content, Sequence) else [content]
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str) or (isinstance(part, Mapping) and part.get("type") != "text"):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise InputError(f"{name}: a part of the content is {kind!r}, not text; take it out")
        texts.append(text)
    return "".join(texts)

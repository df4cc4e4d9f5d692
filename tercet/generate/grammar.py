"""What a text must be: JSON of a schema, or a match of a regular expression (by llguidance).

At every step the tokens with which the text could not become one any more are ruled out. A text
that is cut by its length is then a beginning of one, and ``finish`` says ``length``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tercet.errors import InputError
from tercet.text import Tokenizer

# As json.dumps writes: where any white space may stand, a model may write it till it is cut.
SPELLED = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class Grammar:
    """``Grammar.json(schema)`` or ``Grammar.regex(pattern)``."""

    source: str  # llguidance's own words
    said: str  # how the user called it

    @classmethod
    def json(cls, schema: dict[str, Any] | str) -> Grammar:
        """JSON that a schema (a dict, or its text) describes. Raises InputError for a bad one."""
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"the JSON schema cannot be read: {error.msg}, line {error.lineno}, column "
                    f"{error.colno}"
                ) from error
        try:
            said = json.dumps(schema)
            made = _library().LLMatcher.grammar_from_json_schema(said, overrides=SPELLED)
        except (TypeError, ValueError) as error:
            raise InputError(f"the JSON schema {schema!r} is none: {error}") from error
        if wrong := _wrong(made):
            place, wrong = _place(schema, wrong)
            raise InputError(f"the JSON schema cannot be met at {place}: {wrong}")
        return cls(made, "the JSON schema")

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Texts that a regular expression matches from beginning to end."""
        said = f"the regular expression {pattern!r}"
        if not isinstance(pattern, str):
            raise InputError(f"{said} is no text; give a string")
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:  # the library drops it in silence
            raise InputError(
                f"{said} cannot be met: a lone backslash at its end; write two for one"
            )
        made = _library().LLMatcher.grammar_from_regex(pattern)
        if wrong := _wrong(made):
            raise InputError(f"{said} cannot be met: {_regex_problem(wrong)}")
        return cls(made, said)


class Form:
    """How far one text has come in its grammar."""

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer, ends: Sequence[int]) -> None:
        self.said = grammar.said
        ends = tuple(end for end in ends if end < tokenizer.vocab_size)
        if not ends:
            raise InputError(
                "the tokenizer has none of the model's end-of-text tokens, which a grammar needs "
                "where it ends"
            )
        self.matcher = _library().LLMatcher(_tokens(tokenizer, ends), grammar.source)
        self.consumed = 0
        self.matcher.compute_bitmask()  # what can never begin is known before anything is computed
        self._well()

    def allowed(self, ids: Sequence[int], vocab_size: int) -> np.ndarray:
        """(V,) of bool: what may stand behind the ids that were written so far."""
        self._consume(ids)
        bits = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
        found = np.unpackbits(bits, bitorder="little").astype(bool)[:vocab_size]
        self._well()
        return np.pad(found, (0, vocab_size - len(found)))

    def complete(self, ids: Sequence[int]) -> bool:
        """Whether nothing can follow."""
        self._consume(ids)
        return self.matcher.is_stopped()

    def _consume(self, ids: Sequence[int]) -> None:
        for token in ids[self.consumed :]:
            if not self.matcher.is_stopped():
                self.matcher.consume_token(token)
        self.consumed = len(ids)
        self._well()

    def _well(self) -> None:
        if self.matcher.is_error():
            reason = self.matcher.get_error().split("<state>")[0].strip()
            raise InputError(
                f"{self.said} cannot be met: behind {self.consumed} tokens nothing that the "
                f"tokenizer can write may follow ({reason})"
            )


def _wrong(source: str) -> str:
    """Why a grammar can be met by nothing; empty where it can."""
    wrong, messages = _library().LLMatcher.validate_grammar_with_warnings(source, None)
    return ("; ".join(messages) or "it says nothing") if wrong else ""


def _place(schema: Any, wrong: str, path: str = "#") -> tuple[str, str]:
    """The innermost part of a schema that is wrong by itself, as a JSON pointer, and why."""
    inner: list[tuple[str, Any]] = []
    for key, part in schema.items() if isinstance(schema, dict) else ():
        if isinstance(part, dict) and key in ("properties", "patternProperties", "$defs"):
            inner += [(f"{key}/{name}", one) for name, one in part.items()]
        elif isinstance(part, list) and key in ("oneOf", "allOf", "prefixItems"):
            inner += [(f"{key}/{i}", one) for i, one in enumerate(part)]
        elif key in ("items", "additionalProperties"):
            inner.append((key, part))
    for name, part in inner:
        said = json.dumps(part)
        if isinstance(part, dict) and "$ref" not in said:  # what it names lies outside
            made = _library().LLMatcher.grammar_from_json_schema(said, overrides=SPELLED)
            if found := _wrong(made):
                return _place(part, found, f"{path}/{name}")
    return path, wrong


def _regex_problem(said: str) -> str:
    """The library draws a caret under the place; in a line it becomes a number."""
    lines = said.splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith("error: ")), None)
    if end is None:  # it is no expression's fault alone
        return lines[0].partition("(in regex): ")[2] or lines[0]
    reason = lines[end].removeprefix("error: ")
    caret = next((line for line in lines[:end] if set(line.strip()) == {"^"}), None)
    if caret is None:
        return reason
    return f"{reason} at character {caret.index('^') - 3}"  # the pattern is indented by four


@lru_cache(maxsize=8)
def _tokens(tokenizer: Tokenizer, ends: tuple[int, ...]) -> Any:
    """The vocabulary as llguidance wants it."""
    library = _library()
    return library.LLTokenizer(
        library.TokenizerWrapper(_Vocabulary(tokenizer, ends)), eos_token=list(ends)
    )


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, ends: tuple[int, ...]) -> None:
        written = [tokenizer.written(number) for number in range(tokenizer.vocab_size)]
        self.tokens = [b"" if w is None else w[0] for w in written]
        self.special_token_ids = [number for number, w in enumerate(written) if w is None]
        self.eos_token_id, self.bos_token_id = ends[0], tokenizer.bos_id

        self.ids = {token: number for number, token in reversed(list(enumerate(self.tokens)))}
        self.longest = max(map(len, self.tokens))

    def __call__(self, text: str | bytes) -> list[int]:
        """The longest token each time: what a grammar forces is bytes, and a tokenizer's own way
        with whole texts (a space before the first word, lower case) would put in others."""
        data = text.encode() if isinstance(text, str) else text
        found, at = [], 0
        while at < len(data):
            sizes = range(min(self.longest, len(data) - at), 0, -1)
            size = next((n for n in sizes if data[at : at + n] in self.ids), None)
            if size is None:
                break  # the vocabulary cannot say it
            found.append(self.ids[data[at : at + size]])
            at += size
        return found


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise InputError(
            'a schema or a regular expression needs llguidance: pip install "tercet[json]"'
        ) from error
    return llguidance

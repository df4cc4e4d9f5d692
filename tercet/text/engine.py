"""Segmenting text with the `tokenizers` library: everything that a tokenizer.json can describe.

An engine turns text into ids and back, knows the spelling of an id and how to write itself into a
folder. It knows no roles and no settings: that is `Tokenizer`. (The other engine, for SentencePiece
models, is `sentence_pieces.py`.)
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tokenizers import AddedToken
from tokenizers import Tokenizer as Library
from tokenizers.processors import TemplateProcessing

from tercet.errors import InputError
from tercet.text.controls import Part, Respelled

if threads := os.environ.get("OMP_NUM_THREADS"):  # one setting: the library reads its own later
    os.environ.setdefault("RAYON_NUM_THREADS", threads)

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
WORD_MARK = "▁"


class Engine(Protocol):
    """What `Tokenizer` asks of either engine."""

    vocab_size: int  # the largest id + 1

    @property
    def special(self) -> dict[str, int]: ...
    @property
    def added(self) -> set[str]: ...
    def encode(self, text: str, special: bool) -> list[int]: ...
    def encode_batch(self, texts: Sequence[str], special: bool) -> list[list[int]]: ...
    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]: ...
    def encode_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]: ...
    def encode_parts(
        self, parts: Sequence[Part], controls: frozenset[str]
    ) -> tuple[list[int], list[tuple[int, int]]]: ...
    def with_special(self, tokens: Sequence[str]) -> "Engine": ...
    def dressed(
        self, before: Sequence[str], after: Sequence[str]
    ) -> tuple["Engine", dict[str, Any]]: ...
    def decode(self, ids: Sequence[int], skip_special: bool) -> str: ...
    def token(self, token_id: int) -> str | None: ...
    def token_id(self, token: str) -> int | None: ...
    def readable(self, token: str) -> str: ...
    def written(self, token: str) -> tuple[bytes, bool | None]: ...
    def files(self) -> dict[str, bytes]: ...
    def target(self) -> "Engine": ...


class LibraryEngine:
    """An engine over `tokenizers.Tokenizer`; takes the object over (padding and truncation off)."""

    def __init__(self, library: Library) -> None:
        # Folders ship tokenizers that cut and pad by themselves; here nothing is cut in silence.
        library.no_truncation()
        library.no_padding()
        self._library = library
        self._respelled = Respelled(library)
        self.vocab_size = max(library.get_vocab().values(), default=-1) + 1
        description = json.loads(library.to_str())
        self._byte_characters = _byte_characters() if '"ByteLevel"' in _steps(description) else None
        self._word_end = description["model"].get("end_of_word_suffix") or ""
        self._word_part = description["model"].get("continuing_subword_prefix") or ""

    @property
    def special(self) -> dict[str, int]:
        added = self._library.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    @property
    def added(self) -> set[str]:
        """The tokens that are found in the text before it is split."""
        return {token.content for token in self._library.get_added_tokens_decoder().values()}

    def add_tokens(self, tokens: Iterable[Any]) -> None:
        """Tokens to be found in the text before it is split, special or not as their dict says;
        those that the vocabulary lacks get the next ids."""
        for token in map(added_token, tokens):
            add = self._library.add_special_tokens if token.special else self._library.add_tokens
            add([token])
        self.vocab_size = max(self._library.get_vocab().values(), default=-1) + 1

    def surround(self, before: Sequence[str], after: Sequence[str], pair: str = "") -> None:
        """Put special tokens around each text. `pair` is the template for two texts ("$A:0", "$B:1"
        and tokens with their types); by default `before A after B after`, B and its end of type 1.
        """
        start, end = [f"{token}:0" for token in before], [f"{token}:0" for token in after]
        # Where nothing ends A, only what B begins with can tell the two apart.
        again = [] if after else [f"{token}:1" for token in before]
        second = [*again, "$B:1", *(f"{token}:1" for token in after)]
        ids = [(token, self._library.token_to_id(token)) for token in sorted({*before, *after})]
        self._library.post_processor = TemplateProcessing(
            single=[*start, "$A:0", *end],
            pair=pair.split() or [*start, "$A:0", *end, *second],
            special_tokens=ids,
        )

    def encode(self, text: str, special: bool) -> list[int]:
        return self._library.encode(text, add_special_tokens=special).ids

    def encode_batch(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        encodings = self._library.encode_batch_fast(texts, add_special_tokens=special)
        return [encoding.ids for encoding in encodings]

    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        encoding = self._library.encode(first, second)
        return encoding.ids, encoding.type_ids

    def encode_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self._library.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def encode_parts(
        self, parts: Sequence[Part], controls: frozenset[str]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        return self._respelled.encode(parts, controls)

    def with_special(self, tokens: Sequence[str]) -> "LibraryEngine":
        engine = LibraryEngine(Library.from_str(self._library.to_str()))
        engine.add_tokens(tokens)
        return engine

    def dressed(
        self, before: Sequence[str], after: Sequence[str]
    ) -> tuple["LibraryEngine", dict[str, Any]]:
        """With these tokens around a text; what the settings must say of it is nothing."""
        engine = self.with_special([])
        engine.surround(before, after)
        return engine, {}

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        return self._library.decode(ids, skip_special_tokens=skip_special)

    def token(self, token_id: int) -> str | None:
        return self._library.id_to_token(token_id)

    def token_id(self, token: str) -> int | None:
        return self._library.token_to_id(token)

    def readable(self, token: str) -> str:
        if self._byte_characters is not None:
            data = self._bytes(token)
            try:
                token = data.decode()
            except UnicodeDecodeError:  # a token may be a part of a character
                return data.hex()
            return token.replace(" ", WORD_MARK)
        if self._word_end:  # words end in a mark: show instead where one goes on, "tok@@ en"
            return (
                token.removesuffix(self._word_end)
                if token.endswith(self._word_end)
                else f"{token}@@"
            )
        return token

    def _bytes(self, token: str) -> bytes:
        """Of a token of a byte-level vocabulary. Added tokens are spelled as they are."""
        known = self._byte_characters or {}
        return b"".join(
            bytes([known[character]]) if character in known else character.encode()
            for character in token
        )

    def written(self, token: str) -> tuple[bytes, bool | None]:
        """A token's bytes, a space where a word begins or ends; and whether it goes on with the
        word before it, where the vocabulary marks that (else None)."""
        if self._byte_characters is not None:
            return self._bytes(token), None
        if self._word_end:
            if token.endswith(self._word_end):
                return token.removesuffix(self._word_end).encode() + b" ", None
            return token.encode(), None
        if self._word_part:
            return token.removeprefix(self._word_part).encode(), token.startswith(self._word_part)
        return marked(token), None

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.json": self._library.to_str(pretty=True).encode()}

    def target(self) -> "LibraryEngine":
        return self


def marked(token: str) -> bytes:
    """The bytes of a piece that marks a word's beginning with "▁", or that stands for a byte."""
    if BYTE_TOKEN.fullmatch(token):
        return bytes([int(token[3:5], 16)])
    return token.replace(WORD_MARK, " ").encode()


def library_from_file(path: Path) -> Library:
    """A tokenizer.json. Raises InputError where the library cannot read it."""
    try:
        return Library.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check it is there") from error
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a tokenizer ({error}); copy or download it anew") from error


def added_token(token: Any) -> AddedToken:
    """What the library calls a token beside the vocabulary, from its spelling or its dict in a
    settings file; special unless the dict says otherwise."""
    if isinstance(token, AddedToken):
        return token
    settings = token if isinstance(token, dict) else {"content": token}
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    return AddedToken(
        settings["content"],
        special=settings.get("special", True),
        **{flag: bool(settings.get(flag, False)) for flag in flags},
    )


def _steps(description: dict[str, Any]) -> str:
    """The normalizer, pre-tokenizer and decoder of a tokenizer.json, to look a kind up in."""
    return json.dumps([description[step] for step in ("normalizer", "pre_tokenizer", "decoder")])


def _byte_characters() -> dict[str, int]:
    """The visible character that stands for each byte in a byte-level vocabulary -> the byte.

    Radford et al. 2019: printable bytes are themselves, the 68 others are shifted to U+0100 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    shifted = [byte for byte in range(256) if byte not in plain]
    characters = {chr(byte): byte for byte in plain}
    return characters | {chr(0x100 + place): byte for place, byte in enumerate(shifted)}

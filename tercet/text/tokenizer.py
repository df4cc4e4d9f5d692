"""The tokenizer: text to ids and back, the special ids, and the folder it is kept in.

What splits the text is an engine (`engine.py`, `sentence_pieces.py`); the roles of the special
tokens come from the folder's settings (`special.py`). Knows nothing of models and their contexts
beyond `max_length`, the maximum that the folder states; cutting is `overflow.py`'s.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from tercet.errors import InputError, undamaged
from tercet.files import written_folder
from tercet.text.controls import Part
from tercet.text.engine import BYTE_TOKEN, WORD_MARK, Engine
from tercet.text.files import engine_from_folder
from tercet.text.special import ROLES, TEMPLATES, max_length_of, read_settings, roles_of
from tercet.text.streamer import Streamer

# The class name under which Hugging Face's AutoTokenizer takes tokenizer.json as it is.
PLAIN_CLASS = "PreTrainedTokenizerFast"
# Settings that tokenizer.json already embodies; repeated, they would be applied to it again.
EMBODIED = ("add_bos_token", "add_eos_token", "added_tokens_decoder", "auto_map", "tokenizer_file")
PRIVATE = ("name_or_path", "special_tokens_map_file")  # where somebody's file once lay
# What a saved folder may hold; of an older one, whatever is not written anew is removed.
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("*.model", "*.spm", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    f"{TEMPLATES}/*.jinja",
)
READABLE = str.maketrans({" ": WORD_MARK, "\n": "⏎", "\t": "⇥", "\r": "␍"})


class Tokenizer:
    """Text to ids and back.

    vocab_size   the largest id + 1
    max_length   the longest text in tokens, special ones included, that the folder states, or None
    roles        role ("bos", "eos", "unk", "sep", "pad", "cls", "mask") -> spelling or None
    settings     tokenizer_config.json as read; `chat_template` among it is kept when saving
    """

    def __init__(self, engine: Engine, settings: dict[str, Any]) -> None:
        self._engine = engine
        self.settings = settings
        self.max_length = max_length_of(settings)
        self.roles = roles_of(settings, engine.special)
        (
            self.bos_id,
            self.eos_id,
            self.unk_id,
            self.sep_id,
            self.pad_id,
            self.cls_id,
            self.mask_id,
        ) = (
            None if self.roles[role] is None else engine.token_id(self.roles[role] or "")
            for role in ROLES
        )
        self._special_ids = frozenset(engine.special.values())

    @classmethod
    def load(cls, folder: Path | str, *, max_length: int | None = None) -> "Tokenizer":
        """The tokenizer in a model's folder; the formats are listed in `files.py`.

        max_length: in the place of the one that the folder states. Raises InputError for a folder
        without a tokenizer or with a damaged one, and for SentencePiece models where the optional
        package is missing.
        """
        folder = Path(folder)
        with undamaged(folder):
            settings = read_settings(folder)
            if max_length is not None:
                settings = {**settings, "model_max_length": max_length}
            return cls(engine_from_folder(folder, settings), settings)

    @property
    def vocab_size(self) -> int:
        """The largest id + 1: what a model's embedding must hold."""
        return self._engine.vocab_size

    @cached_property
    def target(self) -> "Tokenizer":
        """The tokenizer of the language translated into: this one, unless the folder has two."""
        engine = self._engine.target()
        return self if engine is self._engine else Tokenizer(engine, self.settings)

    @property
    def description(self) -> dict[str, Any]:
        """tokenizer.json: how a text is split. Empty for a SentencePiece model."""
        return json.loads(self._engine.files().get("tokenizer.json", b"{}"))

    def id_of(self, token: str) -> int | None:
        """The id of a token by its spelling in the vocabulary, or None."""
        return self._engine.token_id(token)

    # Text to ids

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The ids of one text; `special` adds what the model expects around it ([CLS] ... [SEP]).

        Special tokens spelled out in the text are recognised. Raises InputError for text that is
        not Unicode (half a surrogate pair).
        """
        _check([text])
        return self._engine.encode(text, special)

    def encode_batch(self, texts: Sequence[str], special: bool = True) -> list[list[int]]:
        """The ids of each text, on all cores."""
        _check(texts)
        return self._engine.encode_batch(texts, special)

    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Ids of two texts in one, with the special tokens between and around, and token types."""
        _check([first, second])
        return self._engine.encode_pair(first, second)

    def encode_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of one text, no special ones around it, and the characters of each: (start, stop)
        without the white space at the ends. Raises InputError for SentencePiece models."""
        _check([text])
        ids, places = self._engine.encode_places(text)
        return ids, [_within(text, *place) for place in places]

    def encode_parts(
        self, parts: Sequence[Part], controls: frozenset[str]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text that is given in parts, and the characters of each: (start, stop).

        A part is a text, or (True) one of the tokens `controls`, which are recognised nowhere else.
        The whole is segmented in one go, with nothing put around it.
        """
        _check([part for part, _ in parts])
        return self._engine.encode_parts(parts, controls)

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The special tokens that `encode` puts before and after a text."""
        tokens = (self._engine.token(number) or "" for number in range(self.vocab_size))
        sample = next((text for text in chain("a", tokens) if self.encode(text, special=False)), "")
        whole, plain = self.encode(sample), self.encode(sample, special=False)
        places = range(len(whole) - len(plain) + 1)
        before = next(place for place in places if whole[place : place + len(plain)] == plain)
        return whole[:before], whole[before + len(plain) :]

    @cached_property
    def special_counts(self) -> tuple[int, int]:
        """How many special tokens `encode` puts before and after a text: `fit`'s `special`."""
        before, after = self.around
        return len(before), len(after)

    @property
    def special_ids(self) -> frozenset[int]:
        return self._special_ids

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        """The spellings that are marked as special."""
        return frozenset(self._engine.special)

    @cached_property
    def added_tokens(self) -> frozenset[str]:
        """The spellings, special or not, that are found in a text before it is split."""
        return frozenset(self._engine.added)

    def with_special(self, tokens: Sequence[str], **settings: Any) -> "Tokenizer":
        """A tokenizer with more special tokens, which get the next ids, and other settings."""
        engine = self._engine
        if tokens:
            engine = engine.with_special(tokens)
            named = self.settings.get("additional_special_tokens") or []
            settings["additional_special_tokens"] = [*named, *tokens]
        return Tokenizer(engine, {**self.settings, **settings})

    def dressed(self, before: Sequence[str], after: Sequence[str]) -> "Tokenizer":
        """A tokenizer that puts these special tokens, by their spellings, around each text, in the
        place of others. Raises InputError for more than SentencePiece models can have."""
        engine, settings = self._engine.dressed(before, after)
        return Tokenizer(engine, {**self.settings, **settings})

    # Ids to text

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of some ids. Ids beyond the vocabulary (models round it up) have no text.

        Raises InputError for a negative id.
        """
        ids = [int(token) for token in ids]
        if ids and min(ids) < 0:
            raise InputError(f"token id {min(ids)} is negative; ids are 0..{self.vocab_size - 1}")
        return self._engine.decode(ids, skip_special)

    def streamer(self, *, skip_special: bool = True) -> Streamer:
        """`put(id) -> str` and `end() -> str`: the text of `decode` as soon as it is certain."""
        return Streamer(
            lambda ids: self._engine.decode(ids, skip_special),
            skip=lambda token: skip_special and token in self._special_ids,
            wait=lambda token: BYTE_TOKEN.fullmatch(self._engine.token(token) or "") is not None,
        )

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as a label for an axis: "▁" where a word begins, "⏎" for a line's end, the
        bytes in hexadecimal where a token is a part of a character."""
        return [self._piece(int(token)) for token in ids]

    def _piece(self, token_id: int) -> str:
        token = self._engine.token(token_id)
        if token is None:
            return f"#{token_id}"
        if token_id in self._special_ids:
            return token
        return self._engine.readable(token).translate(READABLE)

    def written(self, token_id: int) -> tuple[bytes, bool | None] | None:
        """A token's bytes, a space where a word begins or ends; and whether it goes on with the
        word before it, where the vocabulary marks that (else None). None for special tokens."""
        token = self._engine.token(token_id)
        if token is None or token_id in self._special_ids:
            return None
        return self._engine.written(token)

    # The folder

    def save(self, folder: Path | str, *, types: bool = False) -> None:
        """Write the tokenizer's files and `tokenizer_config.json` into a folder, which is made.

        types: the model tells the two texts of a pair apart, so `transformers` must hand it types.
        `transformers.AutoTokenizer.from_pretrained(folder)` opens it with the same ids. Old
        files stay until the new ones are whole. Raises InputError where it cannot be written.
        """
        settings = self._saved_settings()
        if types:
            settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        config = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        files = self._engine.files() | {"tokenizer_config.json": config.encode()}
        with written_folder(folder, instead_of=FILES) as scratch:
            for name, content in files.items():
                (scratch / name).write_bytes(content)

    @cached_property
    def hash(self) -> str:
        """Of everything that decides the ids: equal hashes, equal ids. 64 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(self.roles, sort_keys=True).encode())
        for name, content in sorted(self._engine.files().items()):
            digest.update(name.encode() + b"\0" + content)
        return digest.hexdigest()

    def _saved_settings(self) -> dict[str, Any]:
        """tokenizer_config.json: what was loaded, the roles written out (null where there is none,
        so that nobody guesses)."""
        settings = {key: value for key, value in self.settings.items() if key not in PRIVATE}
        if "tokenizer.json" in self._engine.files():
            settings = {key: value for key, value in settings.items() if key not in EMBODIED}
            settings["tokenizer_class"] = PLAIN_CLASS
        settings |= {f"{role}_token": self.roles[role] for role in ROLES}
        settings.pop("model_max_length", None)
        if self.max_length is not None:
            settings["model_max_length"] = self.max_length
        settings.setdefault("clean_up_tokenization_spaces", False)
        return settings


def _within(text: str, start: int, stop: int) -> tuple[int, int]:
    """A stretch of a text without the white space at its ends; one of nothing else stays."""
    inner = text[start:stop].strip()
    if not inner:
        return start, stop
    start = text.index(inner, start)
    return start, start + len(inner)


def _check(texts: Sequence[str]) -> None:
    """Refuse what is no list of texts, and text that has no UTF-8 form."""
    if isinstance(texts, str):
        raise InputError(f"expected a list of texts, got one text: {texts[:40]!r}; write [text]")
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"expected a text, got {type(text).__name__} {text!r:.40}")
        try:
            if not text.isascii():
                text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"text has half a surrogate pair, {text[error.start]!r} at character {error.start};"
                " read the text anew, or clean it: text.encode(errors='replace').decode()"
            ) from error

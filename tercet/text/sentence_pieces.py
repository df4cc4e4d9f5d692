"""Segmenting text with SentencePiece models (Kudo and Richardson 2018), by their own library.

An engine like `engine.py`'s for folders that hold no tokenizer.json: one `*.model`, or a
translator's pair (source.spm, target.spm) whose ids are looked up in a common vocab.json.
The library is the optional package `sentencepiece`; nothing else needs it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tercet.errors import InputError
from tercet.text.controls import Part
from tercet.text.engine import marked
from tercet.text.special import named_tokens, read_json, spelling

LANGUAGE = re.compile(r">>.+?<<")  # a translator's text may begin with the language to write
SOURCE, TARGET = "source.spm", "target.spm"


class SentencePieceEngine:
    """One SentencePiece model, its special tokens, and the files it came from.

    side         the model's name among `files` (name -> content, as read)
    vocabulary   piece -> id where a vocab.json numbers the pieces, None where the model does
    """

    def __init__(
        self,
        side: str,
        files: dict[str, bytes],
        vocabulary: dict[str, int] | None,
        settings: Mapping[str, Any],
    ) -> None:
        self._side = side
        self._files = files
        self._vocabulary = vocabulary
        self._settings = settings
        self._model = _processor(files[side], side)
        own = {self._model.id_to_piece(number): number for number in range(len(self._model))}
        numbered = own if vocabulary is None else vocabulary
        self.special = self._special_tokens(numbered)
        self._ids = numbered | self.special
        self._tokens = {number: token for token, number in self._ids.items()}
        self.vocab_size = max(self._tokens) + 1
        self._unknown = self._ids.get(spelling(settings.get("unk_token")) or "<unk>", 0)
        self._before, self._after = self._ends()
        longest_first = sorted(self.special, key=len, reverse=True)
        self._splitter = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def _special_tokens(self, numbered: Mapping[str, int]) -> dict[str, int]:
        """The model's control and user-defined pieces, then what the settings add, with ids."""
        model, settings = self._model, self._settings
        size = len(model)
        special = {
            model.id_to_piece(number): number
            for number in range(size)
            if model.is_control(number) or model.is_unknown(number)
        }
        if self._vocabulary is not None:
            special = {token: numbered[token] for token in special if token in numbered}
        for number, token in (settings.get("added_tokens_decoder") or {}).items():
            special[spelling(token) or ""] = int(number)
        named = [spelling(token) or "" for token in named_tokens(settings)]
        spans = max(settings.get("extra_ids", 0), sum("<extra_id_" in token for token in named))
        for number in range(spans):  # they are numbered from the end
            special.setdefault(f"<extra_id_{number}>", size + spans - 1 - number)
        for token in named:
            beyond = max(*numbered.values(), *special.values()) + 1
            special.setdefault(token, numbered.get(token, beyond))
        return special

    def _ends(self) -> tuple[list[int], list[int]]:
        """Ids put before and after a text: as the settings say, else the token that begins texts
        where one is named, else the one that ends them."""
        settings = self._settings
        begin = spelling(settings.get("bos_token", None if settings else "<s>")) or ""
        end = spelling(settings.get("eos_token")) or "</s>"
        begins = settings.get("add_bos_token", self._vocabulary is None and begin in self._ids)
        ends = settings.get("add_eos_token", not begins)
        before = [self._ids[begin]] if begins and begin in self._ids else []
        after = [self._ids[end]] if ends and end in self._ids else []
        return before, after

    def encode(self, text: str, special: bool) -> list[int]:
        ids: list[int] = []
        if self._vocabulary is not None and (language := LANGUAGE.match(text)):
            ids.append(self._ids.get(language[0], self._unknown))
            text = text[language.end() :]
        for part in self._splitter.split(text):
            if part in self.special:
                ids.append(self.special[part])
            elif self._vocabulary is None:
                ids.extend(self._model.encode(part))
            else:
                pieces = self._model.encode(part, out_type=str)
                ids.extend(self._vocabulary.get(piece, self._unknown) for piece in pieces)
        return [*self._before, *ids, *self._after] if special else ids

    def encode_batch(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        return [self.encode(text, special) for text in texts]

    def encode_pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        ids = self.encode(first, special=True)
        more = self.encode(second, special=True)
        return ids + more, [0] * len(ids) + [1] * len(more)

    def encode_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        raise InputError(
            f"{self._side} is a SentencePiece model, which does not say where its tokens stand in "
            "a text; take a model with a tokenizer.json"
        )

    @property
    def added(self) -> set[str]:
        return set(self.special)

    def encode_parts(
        self, parts: Sequence[Part], controls: frozenset[str]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        done = 0
        for part, control in parts:
            if control:
                ids.append(self.special[part])
                places.append((done, done + len(part)))
            else:
                found: Any = self._model.encode(part, return_type="offset_mapping")
                ids.extend(map(self._id_of, found["pieces"], found["ids"]))
                places.extend((done + start, done + stop) for start, stop in found["offsets"])
            done += len(part)
        return ids, places

    def _id_of(self, piece: str, number: int) -> int:
        """Of a piece of plain text; what is unknown may be spelled as a special token is."""
        if self._vocabulary is None:
            return number
        return (
            self._unknown if piece in self.special else self._vocabulary.get(piece, self._unknown)
        )

    def with_special(self, tokens: Sequence[str]) -> "SentencePieceEngine":
        named = [*(self._settings.get("additional_special_tokens") or []), *tokens]
        settings = {**self._settings, "additional_special_tokens": named}
        return SentencePieceEngine(self._side, self._files, self._vocabulary, settings)

    def dressed(
        self, before: Sequence[str], after: Sequence[str]
    ) -> tuple["SentencePieceEngine", dict[str, Any]]:
        """With these tokens around a text, and the settings that say so: one begins it, one ends
        it. Raises InputError for more of them."""
        if len(before) > 1 or len(after) > 1:
            raise InputError(
                f"{self._side}: a SentencePiece model puts one token before a text and one after "
                f"it, not {' '.join(before)} … {' '.join(after)}"
            )
        settings: dict[str, Any] = {"add_bos_token": bool(before), "add_eos_token": bool(after)}
        settings |= dict(zip(("bos_token",), before)) | dict(zip(("eos_token",), after))
        whole = {**self._settings, **settings}
        return SentencePieceEngine(self._side, self._files, self._vocabulary, whole), settings

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        text: list[str] = []
        pieces: list[str] = []
        for token in (self._tokens.get(number) for number in ids):
            if token is None or (token in self.special and skip_special):
                continue
            if token not in self.special:
                pieces.append(token)
                continue
            text.extend((self._model.decode_pieces(pieces), token))
            pieces = []
        text.append(self._model.decode_pieces(pieces))
        return " ".join(part for part in text if part)

    def token(self, token_id: int) -> str | None:
        return self._tokens.get(token_id)

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def readable(self, token: str) -> str:
        return token

    def written(self, token: str) -> tuple[bytes, bool | None]:
        return marked(token), None

    def files(self) -> dict[str, bytes]:
        return self._files

    def target(self) -> "SentencePieceEngine":
        if self._side != SOURCE:
            return self
        return SentencePieceEngine(TARGET, self._files, self._vocabulary, self._settings)


def sentence_piece_engine(folder: Path, settings: Mapping[str, Any]) -> SentencePieceEngine:
    """The engine of a folder with a translator's pair or with one `*.model`.

    Raises InputError without the package `sentencepiece`, for damaged models, and for a pair with
    two vocabularies.
    """
    if not (folder / SOURCE).is_file():
        path = sorted(folder.glob("*.model"))[0]
        return SentencePieceEngine(path.name, {path.name: _read(path)}, None, settings)
    if settings.get("separate_vocabs"):
        raise InputError(f"{folder}: separate_vocabs is true; only one common vocab.json is known")
    vocabulary = read_json(folder / "vocab.json")
    files = {name: _read(folder / name) for name in (SOURCE, TARGET, "vocab.json")}
    return SentencePieceEngine(SOURCE, files, vocabulary, settings)


def _read(path: Path) -> bytes:
    """A file's bytes. Raises InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check it is there") from error


def _processor(content: bytes, name: str) -> Any:
    """The library's object for a model. Raises InputError without the library, or if damaged."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise InputError(
            f"{name} is a SentencePiece model, which needs the package sentencepiece; install it:"
            " pip install 'tercet[translate]'"
        ) from None
    try:
        return SentencePieceProcessor(model_proto=content)
    except Exception as error:  # the library raises RuntimeError or worse for foreign bytes
        raise InputError(f"{name}: not a SentencePiece model; copy or download it anew") from error

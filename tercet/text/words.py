"""Where words begin: in a text, and in one that is given as token ids, read off the tokenizer's own
pieces.

Where the tokenizer marks the parts of words itself ("##"), a word is what it says. Elsewhere (byte
by byte, or with "▁") a word is a run of letters and digits, or a piece of anything else by itself:
"well-read," is "well", "-", "read" and ",". Characters of scripts that put no spaces between words
(Chinese, Japanese kana) are words by themselves, as in Devlin et al.'s code.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from tercet.text.tokenizer import Tokenizer

# Han ideographs with their radicals, extensions and compatibility forms, and kana.
UNSPACED = (
    *((0x2E80, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),
    (0x20000, 0x3FFFF),
)


class Piece(NamedTuple):
    """How a token stands to the word before it. One that neither begins nor joins goes on."""

    begins: bool  # a word, whatever stands before
    joins: bool  # the word before if that is open, else it begins one
    open: bool  # a token that joins, standing behind this one, is of the same word


ALONE = Piece(begins=True, joins=False, open=False)
INSIDE = Piece(begins=False, joins=False, open=True)


def words_in(text: str) -> list[tuple[int, int]]:
    """(start, stop) of each word: a run of letters, marks and digits, or any other character that
    is no white space by itself."""
    found: list[tuple[int, int]] = []
    open_ = False  # whether a letter would go on with the last word
    for place, character in enumerate(text):
        joins = _of_word(character) and not _unspaced(character)
        if joins and open_:
            found[-1] = (found[-1][0], place + 1)
        elif not character.isspace():
            found.append((place, place + 1))
        open_ = joins
    return found


def word_pieces(tokenizer: Tokenizer) -> list[Piece]:
    """A Piece for each id of the vocabulary. Special tokens stand alone."""
    return [_piece(tokenizer.written(number)) for number in range(tokenizer.vocab_size)]


def _piece(written: tuple[bytes, bool | None] | None) -> Piece:
    if written is None or not written[0]:
        return ALONE
    text, goes_on = written
    if goes_on is not None:
        return INSIDE if goes_on else ALONE
    return Piece(*_start(text), _open(text))


def _start(text: bytes) -> tuple[bool, bool]:
    """(begins, joins) by the first character; a token may start in the middle of one."""
    if 0x80 <= text[0] < 0xC0:
        return False, False
    first = _first(text)
    return (False, True) if _of_word(first) and not _unspaced(first) else (True, False)


def _first(text: bytes) -> str:
    """The first character; of a token that holds only its first bytes, one that begins so."""
    for filler in (b"", b"\x80", b"\xa0"):
        for count in range(4):
            shown = (text[:4] + filler * count).decode(errors="ignore")
            if shown and (text[0] < 0x80 or ord(shown[0]) >= 0x80):
                return shown[0]
    return "\ufffd"


def _open(text: bytes) -> bool:
    """By the last character. A space alone is a word's beginning that its tokenizer cut off."""
    shown = text.decode(errors="replace")
    return _of_word(shown[-1]) or shown[-1] == "\ufffd" or not shown.strip(" ")


def _of_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in UNSPACED)

"""Reading text, a line or a block at a time: plain UTF-8, gzip, or standard input.

Every place that takes text from a file comes through here, so that a file which is not UTF-8 is
always answered with its name and the line's number. Knows nothing of tokens.
"""

import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from tercet.errors import InputError

STDIN = "-"
BYTE_ORDER_MARK = "\ufeff"
LONGEST = 1 << 20  # bytes of a line that `blocks` holds; a file may be one line


def lines(path: Path | str) -> Iterator[str]:
    """The lines of a UTF-8 file, without their line ends ("\\n" or "\\r\\n").

    `path` is a file, a `.gz` file (unpacked on the way), or "-" for standard input. Holds one line
    in memory. Raises InputError for a missing or unreadable file, and for bytes that are not UTF-8
    with file and line number.
    """
    for line, _ in _decoded(path):
        yield line.removesuffix("\n").removesuffix("\r")


def blocks(path: Path | str, *, characters: int = 1 << 16) -> Iterator[tuple[str, int]]:
    """Whole lines with their line ends, gathered to at least `characters`; and the bytes of the
    file read so far (of the packed file for `.gz`), for a progress bar.

    Line ends and blank lines are text too (a tokenizer learns them), so nothing is stripped. A line
    beyond a mebibyte goes in pieces, cut before a space where it has one: what is held is never
    more than `characters` and a mebibyte.
    """
    gathered: list[str] = []
    size = 0
    consumed = 0
    for line, consumed in _decoded(path, LONGEST):
        gathered.append(line)
        size += len(line)
        if size >= characters:
            yield "".join(gathered), consumed
            gathered, size = [], 0
    if gathered:
        yield "".join(gathered), consumed


def _decoded(path: Path | str, longest: int = -1) -> Iterator[tuple[str, int]]:
    """Each line with its line end, decoded, and the bytes of the file consumed so far; a line of
    more than `longest` bytes in pieces."""
    name = "standard input" if str(path) == STDIN else str(path)
    with _opened(path) as (raw, unpacked):
        number, rest = 1, b""
        try:
            while (read := unpacked.readline(longest)) or rest:
                line, rest = rest + read, b""
                if read and len(read) == longest and not read.endswith(b"\n"):
                    line, rest = _cut(line)
                text = _decode(line, name, number)
                yield text, (raw.tell() if raw.seekable() else 0)
                number += line.endswith(b"\n")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(
                f"{name}: not a whole gzip file after line {number - 1} ({error});"
                " pack or copy it anew"
            ) from error


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """A line's beginning and the rest, cut before its last space, or else between characters."""
    place = line.rfind(b" ")
    if place <= 0:
        place = len(line) - 1
        while place > 0 and line[place] & 0xC0 == 0x80:  # a character's second byte or a later one
            place -= 1
    return (line[:place], line[place:]) if place > 0 else (line, b"")


def _decode(line: bytes, name: str, number: int) -> str:
    """One line's text; the byte-order mark that some editors put first is no text."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        guess = "utf-16" if line.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252"
        raise InputError(
            f"{name}, line {number}: byte 0x{line[error.start]:02x} at position {error.start + 1}"
            f" is not UTF-8; convert it, for example: iconv -f {guess} -t utf-8"
        ) from error
    return text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text


@contextmanager
def _opened(path: Path | str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The raw file (for the position) and the file to read lines from; often the same one."""
    if str(path) == STDIN:
        yield sys.stdin.buffer, sys.stdin.buffer
        return
    try:
        raw = Path(path).open("rb")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; check the name, or give - to read from standard input"
        ) from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the text files in it") from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    except ValueError as error:  # a name that no file can have
        raise InputError(f"{str(path)!r}: cannot be read ({error}); check the name") from error
    with raw:
        packed = Path(path).suffix.lower() == ".gz"
        yield raw, (cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw)

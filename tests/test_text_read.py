"""Reading lines: line ends, gzip, standard input, and what is no text."""

import gzip
import io
import sys

import pytest

from tercet.errors import InputError
from tercet.text import blocks, lines, read


def test_lines_end_where_they_end(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffone\r\n\n zwei ü \nlast\x0bpart".encode())
    assert list(lines(path)) == ["one", "", " zwei ü ", "last\x0bpart"]
    assert list(lines(str(path))) == list(lines(path))


def test_gzip_and_standard_input(tmp_path, monkeypatch):
    path = tmp_path / "text.txt.gz"
    path.write_bytes(gzip.compress("ä\nb\n".encode()))
    assert list(lines(path)) == ["ä", "b"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x\ny")))
    assert list(lines("-")) == ["x", "y"]


def test_blocks_are_the_whole_text(tmp_path):
    path = tmp_path / "text.txt"
    text = "".join(f"line {number}\n\n" for number in range(100)) + "end"
    path.write_text(text)
    parts = list(blocks(path, characters=50))
    assert "".join(part for part, _ in parts) == text
    assert all(len(part) >= 50 for part, _ in parts[:-1])
    assert parts[-1][1] == len(text)


def test_a_line_longer_than_memory_goes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "LONGEST", 64)
    path = tmp_path / "text.txt.gz"
    text = (
        "short\n"
        + "words and ü " * 50
        + "\n"
        + "中" * 200
        + "\n\n"
        + "x" * 64
        + "\nend "
        + "y" * 99
    )
    path.write_bytes(gzip.compress(text.encode()))
    parts = [part for part, _ in blocks(path, characters=1)]
    assert "".join(parts) == text
    assert max(len(part.encode()) for part in parts) <= 2 * 64
    assert all(part.startswith(" ") for part in parts[2:9])  # words stay whole
    assert list(lines(path)) == text.split("\n")
    path.write_bytes(gzip.compress(text.encode() + b"\n" + b"a b " * 40 + b"\xef b"))
    with pytest.raises(InputError, match="line 7: byte 0xef"):
        list(blocks(path))


def test_bytes_that_are_no_text_are_named_with_file_and_line(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"fine\nna\xefve\n")
    with pytest.raises(InputError, match=r"latin\.txt, line 2: byte 0xef at position 3.*iconv"):
        list(lines(path))
    path.write_bytes("wide".encode("utf-16"))
    with pytest.raises(InputError, match="line 1.*utf-16"):
        list(lines(path))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"missing\.txt: no such file"):
        list(lines(tmp_path / "missing.txt"))
    with pytest.raises(InputError, match="is a folder"):
        list(lines(tmp_path))
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b"words and words\n" * 1000)[:40])
    with pytest.raises(InputError, match=r"broken\.gz: not a whole gzip file"):
        list(lines(broken))
    broken.write_bytes(b"not packed at all")
    with pytest.raises(InputError, match=r"broken\.gz: not a whole gzip file"):
        list(lines(broken))

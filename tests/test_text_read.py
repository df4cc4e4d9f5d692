"""Reading lines: line ends, gzip, standard input, and what is no text."""

import gzip
import io
import sys

import pytest

from tercet.errors import InputError
from tercet.text import blocks, lines


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

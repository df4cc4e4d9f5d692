"""`tercet data prepare` and `tercet data show`: what the words mean, what is printed, mistakes."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from pathlib import Path

import pytest

from tercet.data.corpus import Corpus
from tercet.jobs.display import Display
from tercet.text import train_tokenizer

LINES = [f"the cat number {number} sat on the mat" for number in range(200)]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with some texts."""
    monkeypatch.chdir(tmp_path)
    Path("books").mkdir()
    Path("books/a.md").write_text("# One\nfirst\n# Two\nsecond\n")
    Path("books/b.md.gz").write_bytes(gzip.compress(b"# Three\nthird\n"))
    Path("lines.txt").write_text("\n".join(LINES) + "\n\n")
    Path("a.en").write_text("\n".join(LINES) + "\n")
    Path("a.de").write_text("\n".join(line.upper() for line in LINES) + "\n")
    return tmp_path


def facts(out: str) -> dict:
    found = json.loads(out)
    assert Corpus.open(found["folder"], verify=True)
    return found


def test_a_folder_of_texts(run):
    args = ("data", "prepare", "books", "--split", "# ", "--tokenizer", "bytes")
    code, out, err = run(*args, "--validation", "0", "--out", "made/data")
    assert code == 0 and err == "" and out.startswith("made/data: text, 257 token ids\n")
    assert "train                3 documents" in out
    code, out, err = run("data", "show", "made/data", "--document", "2")
    assert (code, out) == (0, "# Three\nthird\n")
    assert err == "tercet: books/b.md.gz, document 1: 13 tokens\n"
    found = json.loads(run("data", "show", "made/data", "--document", "1", "--json")[1])
    assert found == {
        "document": 1,
        "origin": "books/a.md, document 2",
        "tokens": 12,
        "text": "# Two\nsecond",
    }


def test_characters_and_a_tail_for_validation(run):
    text = Path("lines.txt").read_text()
    args = ("data", "prepare", "lines.txt", "--tokenizer", "characters")
    code, out, _ = run(*args, "--validation", "tail:0.1", "--out", "d", "--json")
    source = facts(out)["sources"]["text"]
    assert code == 0 and source["train"]["characters"] == int(len(text) * 0.9)
    shown = run("data", "show", "d", "--document", "0", "--split", "validation")[1]
    assert shown == text[int(len(text) * 0.9) :] + "\n"


def test_what_is_skipped_is_shown_and_show_says_what_prepare_said(run):
    args = ("data", "prepare", "lines.txt", "--split", "line", "--vocab-size", "300", "--out", "d")
    code, out, _ = run(*args)
    assert code == 0 and "skipped: 1 (empty)" in out and "tokens a document: 0 %: " in out
    assert run("data", "show", "d", "--verify") == (0, out, "")
    assert run(*args) == (0, out, "")  # whole: nothing is done again
    whole = run(*args, "--json")[1]
    assert run("data", "show", "d", "--json")[1] == whole and facts(whole)["vocab_size"] == 294


def test_pairs_from_parallel_files_and_from_columns(run):
    Path("pairs.tsv").write_text("en\tde\n" + "".join(f"{x}\t{x.upper()}\n" for x in LINES))
    both = ("--vocab-size", "300", "--json", "--out")
    for words in (
        ("--source", "a.en", "--target", "a.de", "--validation", "a.en", "a.de", *both, "files"),
        ("pairs.tsv", "--source", "en", "--target", "de", "--validation", "0.2", *both, "columns"),
        (
            "pairs.tsv",
            "--source",
            "en",
            "--target",
            "de",
            *both,
            "own",
            "--validation",
            "pairs.tsv",
        ),
    ):
        code, out, err = run("data", "prepare", *words)
        found = facts(out)
        assert code == 0 and found["kind"] == "pairs", err
        corpus = Corpus.open(found["folder"])
        assert corpus.tokenizer.special_counts == (0, 1) and len(corpus.validation) > 40
        assert run("data", "show", found["folder"], "--document", "1")[1].startswith("THE CAT")


def test_sources_by_name(run):
    names = ("books=books", "lines.txt", "text=a.en")
    args = ("data", "prepare", *names, "--tokenizer", "bytes", "--out", "d")
    found = facts(run(*args, "--validation", "0", "--json")[1])
    assert list(found["sources"]) == ["books", "text"]
    assert found["sources"]["text"]["train"]["documents"] == 2
    assert run("data", "show", "d", "--document", "0", "--source", "books")[1].startswith("# One")
    own = ("--validation", "books=books/a.md", "text=a.de", "--out", "e", "--json")
    found = facts(run(*args[:-2], *own)[1])
    assert found["sources"]["text"]["validation"]["documents"] == 1
    one = (
        "data",
        "prepare",
        "a=a.en",
        "--tokenizer",
        "bytes",
        "--validation",
        "a.de",
        "--out",
        "f",
    )
    assert list(facts(run(*one, "--json")[1])["sources"]) == ["a"]


def test_a_tokenizer_from_a_folder(run):
    tokenizer = train_tokenizer(LINES, vocab_size=290)
    tokenizer.save("tok")
    args = ("data", "prepare", "lines.txt", "--split", "line", "--tokenizer", "tok", "--out", "d")
    assert facts(run(*args, "--json")[1])["tokenizer"] == tokenizer.hash


def test_standard_input(run, monkeypatch):
    train_tokenizer(LINES, vocab_size=290).save("tok")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(LINES).encode())))
    args = ("data", "prepare", "-", "--split", "line", "--tokenizer", "tok", "--out", "d")
    assert facts(run(*args, "--json")[1])["sources"]["text"]["skipped"] == {}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no text to prepare; name a FILE"),
        (("none.txt",), "none.txt: no such file"),
        (("lines.txt",), "of 1 documents none is for validation; cut the text into more"),
        (("lines.txt", "--split", "lines"), "write 'line'"),
        (("lines.txt", "--tokenizer", "none"), "--tokenizer none: no such folder, nor one of the"),
        (("lines.txt", "--tokenizer", "books"), "books: no tokenizer"),
        (("lines.txt", "--vocab-size", "0"), "vocab_size 0 is outside"),
        (("lines.txt", "--validation", "1.5"), "validation 1.5 must be a share"),
        (("lines.txt", "--validation", "tail:x"), "--validation tail:x: write tail:0.1"),
        (("lines.txt", "--validation", "none.txt"), "none.txt: no such file"),
        (("a=lines.txt", "b=a.en", "--validation", "a.de"), "as NAME=FILE; the sources are a, b"),
        (("--source", "a.en"), "--target is missing"),
        (("--source", "a.en", "--target", "a.de", "--validation", "a.en"), "give two files"),
        (("--source", "a.en", "--target", "a.de", "--validation", "tail:0.1"), "no tail"),
        (("--source", "a.en", "--target", "lines.txt"), "line 201 of lines.txt has no partner"),
        (("-",), "standard input is read once"),
        (("lines.txt", "--special", "bert"), "decoder"),
        (("lines.txt", "--out", "a.en/below"), "a.en/below: cannot be written"),
    ],
)
def test_a_mistake_is_a_line(args: tuple[str, ...], said: str, run):
    code, out, err = run("data", "prepare", *args)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("tercet: ") and said in err, err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("books",), "books: no prepared data"),
        (("d", "--document", "200"), "--document 200 is outside 0.."),
        (("d", "--document", "-1"), "--document -1 is outside 0.."),
        (("d", "--document", "0", "--source", "lines"), "source lines: d has none; there are"),
    ],
)
def test_what_cannot_be_shown_is_a_line(args: tuple[str, ...], said: str, run):
    run("data", "prepare", "lines.txt", "--split", "line", "--tokenizer", "bytes", "--out", "d")
    code, out, err = run("data", "show", *args)
    assert code == 2 and out == "" and err.count("\n") == 1 and said in err, err


def test_a_column_is_called_by_its_name(run):
    Path("x.jsonl").write_text("".join(json.dumps({"body": line}) + "\n" for line in LINES))
    args = ("data", "prepare", "x.jsonl", "--tokenizer", "bytes", "--out", "d")
    assert "x.jsonl, row 1: has no column 'text'; there are body" in run(*args)[2]
    assert run(*args, "--column", "body")[0] == 0


def test_a_line_every_half_minute_where_there_is_no_terminal(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("tercet.train.progress.time.monotonic", lambda: clock[0])
    for quiet in (False, True):
        with Display(quiet=quiet) as display:
            for step in range(71):
                display("books", step * 1000, 100_000, step * 250)
                clock[0] += 1.0
    assert capsys.readouterr().err.splitlines() == [
        "  books: 30 %, 7,500 tokens, 250 tokens/s, 1:10 left",
        "  books: 60 %, 15,000 tokens, 250 tokens/s, 0:40 left",
    ]


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setitem(os.environ, "TERM", "xterm")
    with Display() as display:
        display("books", 0, None, 0)
        display("books", 50_000, 100_000, 1234)
    assert "books" in terminal.getvalue() and "50 %, 1,234 tokens" in terminal.getvalue()

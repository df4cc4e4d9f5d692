"""Reading documents, records and pairs: every kind of file, every way to cut, what is no data."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.data import documents as readers
from tercet.data.documents import documents, records, slices, text_pairs
from tercet.data.sources import Tally, found
from tercet.errors import InputError

DATA = Path(os.environ.get("TERCET_DATA") or Path(__file__).parents[2] / "shared" / "data")
BOOK = "<<<Austen_Emma>>>\n\nEMMA\n\nVolume I\n\n<<<Empty>>>\n \n<<<Stoker_Dracula>>>\nBats.\n\n\n"
ROWS = [{"text": 'one, "two"\nthree', "label": "a"}, {"text": "ü", "label": "b"}]


def texts(*args, **settings) -> list[str]:
    return [document.text for document in documents(*args, **settings)]


def packed(path: Path) -> Path:
    """The same file beside it as .gz."""
    beside = path.with_name(path.name + ".gz")
    beside.write_bytes(gzip.compress(path.read_bytes()))
    return beside


def test_plain_text_is_cut_as_asked(tmp_path):
    file = tmp_path / "text.md"
    file.write_bytes("\ufeffone\r\n\r\n\r\ntwo ü\ntwo\n \nthree".encode())
    whole = "one\n\n\ntwo ü\ntwo\n \nthree"
    for name in (file, packed(file)):
        assert texts(name) == [whole]
        assert texts(name, split="line") == ["one", "two ü", "two", "three"]
        assert texts(name, split="paragraph") == ["one", "two ü\ntwo", "three"]
        assert texts(name, split="t.o") == ["one", "two ü", "two\n \nthree"]
    lines = list(documents(file, split="line"))
    assert [document.number for document in lines] == [1, 4, 5, 7]  # the lines
    assert lines[0].source == str(file)


def test_a_title_that_has_a_group_is_no_text(tmp_path):
    file = tmp_path / "novels.txt"
    file.write_text(BOOK)
    tally = Tally()
    emma, dracula = documents(file, split="<<<(.*)>>>", tally=tally)
    assert (emma.title, emma.text) == ("Austen_Emma", "EMMA\n\nVolume I")
    assert (dracula.title, dracula.text, dracula.number) == ("Stoker_Dracula", "Bats.", 3)
    assert tally.skipped == {"empty": 1} and tally.bytes_read == len(BOOK)
    kept = list(documents(file, split="<<<Stoker|<<<(A.*)>>>"))
    assert [document.title for document in kept] == ["Austen_Emma", "<<<Stoker_Dracula>>>"]
    assert kept[1].text == "<<<Stoker_Dracula>>>\nBats."


def test_what_is_skipped_is_counted(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n \ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"text": null}\n{"text": " "}\n\n{"text": "three"}\n')
    tally = Tally()
    assert texts(tmp_path, split="line", tally=tally) == ["one", "two", "three"]
    assert tally.skipped == {"empty": 4}
    (tmp_path / "c.txt").write_text("")
    texts(tmp_path, tally=(tally := Tally()))
    assert tally.skipped == {"empty": 3}  # two rows and a file
    assert tally.bytes_read == sum(path.stat().st_size for path in tmp_path.iterdir())


@given(st.text(st.sampled_from("ab \n"), max_size=300), st.sampled_from(["file", "paragraph", "a"]))
def test_a_document_in_parts_is_the_whole_document(tmp_path_factory, text, split):
    file = tmp_path_factory.mktemp("parts") / "text.txt"
    file.write_text(f"a\n{text}")
    whole = [(document.number, document.text) for document in documents(file, split=split)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "PART", 7)
        cut: dict[int, str] = {}
        for document in documents(file, split=split):
            assert (document.part == 0) == (document.number not in cut)
            cut[document.number] = cut.get(document.number, "") + document.text
    # A part of newlines only may stay where the whole would have dropped them at its end.
    assert [(n, text.rstrip("\n")) for n, text in cut.items()] == [
        (n, text.rstrip("\n")) for n, text in whole
    ]


@given(st.text(st.sampled_from("ab \n"), max_size=60), st.integers(1, 9))
def test_slices_are_short_and_whole(text, longest):
    pieces = list(slices(text, longest))
    assert "".join(pieces) == text and all(len(piece) <= longest for piece in pieces)


def test_a_document_larger_than_memory_is_one_document(tmp_path):
    """Twenty megabytes in many lines, and twenty in one, are read within eight."""
    file = tmp_path / "large.txt.gz"
    for line in ("a line of words " * 10 + "\n", "words without any end "):
        with gzip.open(file, "wt", compresslevel=1) as out:
            for _ in range(20):
                out.write(line * ((1 << 20) // len(line)))
        tracemalloc.start()
        characters, numbers = 0, set()
        for document in documents(file):
            characters += len(document.text)
            numbers.add(document.number)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert characters == 20 * ((1 << 20) // len(line)) * len(line) and numbers == {1}
        assert peak < 8 << 20


# tables -------------------------------------------------------------------------------------------


def table(folder: Path, kind: str) -> Path:
    path = folder / f"rows{kind}"
    if kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == ".csv":
        path.write_bytes(b'label,text\r\na,"one, ""two""\nthree"\r\n\r\nb,\xc3\xbc\r\n')
    elif kind == ".parquet":
        arrow = pytest.importorskip("pyarrow", reason="pyarrow (extra [data]) is not installed")
        from pyarrow import parquet

        parquet.write_table(arrow.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet"])
def test_tables_give_the_same_rows_packed_or_not(kind: str, tmp_path):
    path = table(tmp_path, kind)
    for name in (path, packed(path)):
        tally = Tally()
        assert list(records(name, tally=tally)) == ROWS
        assert tally.bytes_read == name.stat().st_size
        assert list(records(name, columns=["label"])) == [{"label": "a"}, {"label": "b"}]
        assert texts(name) == [row["text"] for row in ROWS]
        assert [tuple(pair)[:2] for pair in text_pairs("label", "text", files=name)] == [
            (row["label"], row["text"]) for row in ROWS
        ]


def test_tabs_separate_and_quotes_are_text(tmp_path):
    (tmp_path / "a.tsv").write_text("label\ttext\n1\tsaid \"so\n0\t'no'\t\n".replace("\t\n", "\n"))
    assert texts(tmp_path / "a.tsv") == ['said "so', "'no'"]
    (tmp_path / "b.tsv").write_text("Hi.\tHallo!\nRun!\tLauf!\n")
    pairs = list(text_pairs("2", "1", files=tmp_path / "b.tsv"))
    assert [(pair.source, pair.target, pair.number) for pair in pairs] == [
        ("Hallo!", "Hi.", 1),
        ("Lauf!", "Run!", 2),
    ]


def test_a_value_may_be_long(tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + "word " * 100_000 + "\n")
    parts = texts(tmp_path / "a.csv")
    assert "".join(parts) == "word " * 100_000 and len(parts) == 2


def test_a_deck_of_cards(tmp_path):
    deck = (
        "# Deck\n\n#### First\nSome background.\n\n:p What is\nit?\n??x\nAn answer.\n\n---\n"
        "#### in it\nx??\n\n---\n\n:p Again?\n??x short x??\n:p Never answered\n#### Second\n"
        ":p Who?\n??x\nShe.\nx??\n"
    )
    (tmp_path / "deck.md").write_text(deck)
    tally = Tally()
    first, again, who = records(tmp_path, tally=tally)
    assert first == {
        "title": "First",
        "background": "Some background.",
        "question": "What is\nit?",
        "answer": "An answer.\n\n---\n#### in it",
    }
    assert (again["title"], again["answer"], who["background"]) == ("First", "short", "")
    assert tally.skipped == {"question without an answer": 1}
    pairs = list(text_pairs("question", "answer", files=tmp_path))
    assert (pairs[2].source, pairs[2].target) == ("Who?", "She.")


def test_a_data_set_of_the_hub_is_asked_for_by_name(monkeypatch):
    asked = []

    def load_dataset(*args, **settings):
        asked.append((args, settings))
        if args[0] == "own/none":
            raise FileNotFoundError("there is\nno such set")
        return iter([{"text": "one"}, {"text": "two"}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert texts("hub:own/set") == ["one", "two"]
    assert list(records("hub:own/set/small:test")) == [{"text": "one"}, {"text": "two"}]
    assert asked == [
        (("own/set",), {"split": "train", "streaming": True}),
        (("own/set", "small"), {"split": "test", "streaming": True}),
    ]
    with pytest.raises(InputError, match="hub:own/none: cannot be read .there is no such set"):
        texts("hub:own/none")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'tercet\[data\]'"):
        texts("hub:own/set")


# where files lie ----------------------------------------------------------------------------------


def test_folders_and_globs_are_sorted_and_each_file_is_read_once(tmp_path, monkeypatch):
    for name in ("b.txt", "a/z.md", "a/b.txt.gz", "c.jsonl", "notes.rst", ".git/x.txt", "a/.y.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    names = [Path(name).relative_to(tmp_path).as_posix() for name in found(tmp_path)]
    assert names == ["a/b.txt.gz", "a/z.md", "b.txt", "c.jsonl"]
    named = [tmp_path / "notes.rst", str(tmp_path / "**" / "*.md"), tmp_path]
    names = [Path(name).relative_to(tmp_path).as_posix() for name in found(named)]
    assert names == ["notes.rst", "a/z.md", "a/b.txt.gz", "b.txt", "c.jsonl"]
    (tmp_path / "[a]*.txt").write_text("")
    assert found(tmp_path / "[a]*.txt") == [str(tmp_path / "[a]*.txt")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x\n\ny")))
    assert texts("-", split="paragraph") == ["x", "y"]


# pairs of texts -----------------------------------------------------------------------------------


def test_parallel_lines_are_pairs(tmp_path):
    (tmp_path / "a.en").write_text("one\n\ntwo\n\nthree")
    (tmp_path / "a.de.gz").write_bytes(gzip.compress(b"eins\nx\nzwei\n\n \n"))
    tally = Tally()
    pairs = list(text_pairs(str(tmp_path / "a.en"), str(tmp_path / "a.de.gz"), tally=tally))
    assert [(pair.source, pair.target, pair.number) for pair in pairs] == [
        ("one", "eins", 1),
        ("two", "zwei", 3),
    ]
    assert tally.skipped == {"source empty": 1, "target empty": 1, "empty": 1}


def test_parallel_files_of_unequal_length_are_told_apart_by_line(tmp_path, monkeypatch):
    source, target = str(tmp_path / "a.en"), str(tmp_path / "a.de")
    Path(source).write_text("1\n2\n3\n4\n5\n")
    Path(target).write_text("1\n2\n3\n")
    for pair in ((source, target), (target, source)):
        with pytest.raises(InputError) as caught:
            next(text_pairs(*pair))
        assert f"{source} has 5 lines" in str(caught.value) or "has 5:" in str(caught.value)
        assert f"line 4 of {source} has no partner in {target}, which ends at line 3" in str(
            caught.value
        )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1\n2\n3\n4\n")))
    with pytest.raises(InputError, match=r"a\.de ends after line 3 where - goes on"):
        list(text_pairs("-", target))


# what is no data ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"fine\nna\xefve\n", ["a.txt, line 2", "0xef"]),
        ("a.txt.gz", b"not packed", ["a.txt.gz", "gzip"]),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', ["a.jsonl, line 2", "not JSON"]),
        ("a.jsonl", b"[1, 2]\n", ["a.jsonl, line 1", "list"]),
        ("a.jsonl", b'{"text": "x"}\n{"texts": "x"}\n', ["a.jsonl, row 2", "'text'", "'texts'?"]),
        ("a.jsonl", b'{"text": 12}\n', ["a.jsonl, row 1", "int 12"]),
        ("a.jsonl", b"{}\n", ["'text'", "there are none"]),
        ("a.csv", b"Text,label\nx,y\n", ["a.csv, row 1", "did you mean 'Text'?"]),
        ("a.csv", b"text,label\nx,y\nz\n", ["a.csv, line 3", "1 columns", "2"]),
        ("a.csv", b'text,label\n"x"z,y\n', ["a.csv, line 2", "not csv"]),
        ("a.csv", b"text,text\nx,y\n", ["a.csv", "'text' more than once", "by number"]),
        ("a.parquet", b"PAR1 no", ["a.parquet", "parquet"]),
        ("a.parquet.gz", b"PAR1 no", ["a.parquet.gz", "parquet"]),
    ],
)
def test_a_damaged_file_is_named_with_the_place(name, content, words, tmp_path):
    if "parquet" in name:
        pytest.importorskip("pyarrow", reason="pyarrow (extra [data]) is not installed")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        texts(tmp_path / name)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda at: texts(at / "none.txt"), ["none.txt: no such file"]),
        (lambda at: texts(at / "*.rst"), ["*.rst: no such file"]),
        (lambda at: texts(at / "hidden"), ["hidden: a folder without any file", ".parquet"]),
        (lambda at: texts([]), ["no file is named"]),
        (lambda at: texts(at / "a.txt", split="lines"), ["'lines'", "write 'line'"]),
        (lambda at: texts(at / "a.txt", split="("), ["'('", "regular expression"]),
        (lambda at: texts(at / "a.txt", split="<<<"), ["a.txt", "no line begins with '<<<'"]),
        (lambda at: texts("hub:own"), ["hub:own", "hub:owner/name"]),
        (lambda at: list(records(at / "a.txt")), ["a.txt: holds no cards"]),
        (lambda at: list(records(at / "open.md")), ["open.md, line 2", "no end"]),
        (lambda at: list(records(at / "bare.md")), ["bare.md, line 1", "without a question"]),
        (lambda at: list(text_pairs(str(at), str(at))), ["not one file of plain text"]),
        (lambda at: list(text_pairs("a", "c", files=at / "a.csv")), ["'c'", "a, b"]),
        (lambda at: list(text_pairs("1", "3", files=at / "a.csv")), ["'3'", "1, 2"]),
    ],
)
def test_what_cannot_be_read_is_said(read, words, tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".a.txt").write_text("x")
    (tmp_path / "a.txt").write_text("x\n")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "open.md").write_text(":p What?\n??x\nThis")
    (tmp_path / "bare.md").write_text("??x\nThis\nx??\n")
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


# real data ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data in {DATA} (TERCET_DATA)")
def test_the_sets_at_hand_are_read_by_short_settings():
    novels = list(documents(DATA / "english-novels" / "valid.txt", split="<<<(.*)>>>"))
    assert {novel.title for novel in novels} == {"Stevenson_Treasure_1883"}
    modules = list(documents(DATA / "openstax-textbooks" / "valid.txt.gz", split="# "))
    assert len(modules) == 55 and all(module.text.startswith("# ") for module in modules)
    play = (DATA / "tinyshakespeare" / "input.txt").read_text()
    assert "".join(texts(DATA / "tinyshakespeare")) == play
    raw = DATA / "multi30k-en-de" / "raw"
    assert len(list(text_pairs(str(raw / "val.en"), str(raw / "val.de")))) == 1014
    first = next(text_pairs("1", "2", files=DATA / "tatoeba-en-de" / "en-de.tsv.gz"))
    assert (first.source, first.target) == ("Hi.", "Hallo!")
    cards = list(records(DATA / "flashcards"))
    assert len(cards) == 21 and all(card["question"] and card["answer"] for card in cards)
    assert sum(1 for _ in records(DATA / "trec", columns=["coarse", "text"])) == 5452 + 500

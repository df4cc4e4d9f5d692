"""From texts to token shards: what is in them, that no kill changes a byte, what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tercet.data import documents as readers
from tercet.data import preparation, writer
from tercet.data.manifest import MANIFEST, Manifest
from tercet.data.prepare import Corpus, Learn, Pairs, Source, Tail, Texts, prepare
from tercet.data.shards import Tokens, token_type
from tercet.errors import InputError
from tercet.files import locked
from tercet.text import Special, Tokenizer, train_tokenizer

WORDS = "the cat sat on a mat while dogs slept and birds sang of spring in the old garden".split()


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 20))) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(sentences(200), vocab_size=300)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with some texts, the working directory."""
    monkeypatch.chdir(tmp_path)
    lines = sentences(400)
    Path("lines.txt").write_text("\n".join(lines) + "\n")
    Path("a.en").write_text("\n".join(lines[:200]) + "\n")
    Path("a.de").write_text("\n".join(line.upper() for line in lines[:200]) + "\n")
    Path("one.txt").write_text("\n".join(lines))
    return tmp_path


def lines_of(*files: str, **settings) -> dict[str, Source]:
    return {"text": Source(Texts(files or ("lines.txt",), split="line"), **settings)}


def texts_of(corpus: Corpus, tokens: Tokens) -> list[str]:
    return [
        corpus.tokenizer.decode(tokens.document(number).tolist()) for number in range(len(tokens))
    ]


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is cut is cut often."""
    monkeypatch.setattr(writer, "SHARD_TOKENS", 1000)
    monkeypatch.setattr(preparation, "BATCH", 500)
    monkeypatch.setattr(preparation, "COMMIT", 2000)
    monkeypatch.setattr(readers, "PART", 300)


# what is written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", ["usual", "small"])
def test_the_stream_is_the_documents_behind_separators(sizes, place, tokenizer, monkeypatch):
    if sizes == "small":
        small(monkeypatch)
    corpus = prepare(place / "data", lines_of(validation=0.2), tokenizer)
    texts = Path("lines.txt").read_text().splitlines()
    held_out = [
        int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) < 0.2 * 2**64 for text in texts
    ]
    for tokens, wanted in ((corpus.train, False), (corpus.validation, True)):
        kept = [text for text, out in zip(texts, held_out) if out == wanted]
        plain = Tokens.of(tokenizer.encode_batch(kept), tokenizer.eos_id)
        assert len(tokens) == len(plain) > 40 and tokens.n_tokens == plain.n_tokens
        assert tokens.take(0, tokens.n_tokens).equal(plain.take(0, plain.n_tokens))
        np.testing.assert_array_equal(tokens.starts, plain.starts)
        np.testing.assert_array_equal(tokens.lengths, plain.lengths)
        assert texts_of(corpus, tokens) == kept
    if sizes == "small":
        assert len(corpus.manifest.sources["text"].train.shards) > 3
    line = texts.index(texts_of(corpus, corpus.validation)[7]) + 1
    assert corpus.origin("text", "validation", 7) == f"lines.txt, document {line}"


def test_tokens_across_shards():
    flat = np.arange(23, dtype="<u2")
    tokens = Tokens([flat[:10], flat[10:20], flat[20:]], np.array([0, 5, 12]))
    for start in range(24):
        for stop in range(start, 24):
            assert tokens.take(start, stop).tolist() == list(range(start, stop))
    assert tokens.lengths.tolist() == [5, 7, 11] and tokens.document(2).tolist() == [*range(12, 23)]
    none = Tokens.of([], 0)
    assert (len(none), none.n_tokens, none.take(0, 0).tolist()) == (0, 0, [])
    both = Tokens.of([[5, 6], [], [7]], 0)
    assert both.take(0, both.n_tokens).tolist() == [0, 5, 6, 0, 0, 7, 0]
    assert both.lengths.tolist() == [3, 1, 2] and both.document(1).tolist() == []


def test_two_bytes_a_token_where_the_vocabulary_fits(place):
    assert token_type(65_536).itemsize == 2 and token_type(65_537).itemsize == 4
    special = Special({"eos": "<e>"}, extra=tuple(f"<{number}>" for number in range(70_000)))
    large = train_tokenizer(["a"], kind="bytes", special=special)
    Path("x.txt").write_text("a<69999>b\n<e>\n")
    corpus = prepare("data", lines_of("x.txt", validation=0), large)
    a, b = (large.id_of(letter) for letter in "ab")
    number = large.id_of("<69999>")
    assert number is not None and number > 65_535
    assert corpus.train.take(0, 6).tolist() == [0, a, number, b, 0, 0]
    assert Path("data/text.train.00000.tokens").stat().st_size == corpus.train.n_tokens * 4
    assert len(corpus.validation) == 0 and corpus.validation.n_tokens == 0


def test_the_split_hangs_on_the_text_alone(place, tokenizer):
    lines = Path("lines.txt").read_text().splitlines()
    random.Random(1).shuffle(lines)
    Path("b.txt").write_text("\n".join(lines[:100]))
    Path("c.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines[100:]))
    first = prepare("first", lines_of(), tokenizer)
    second = prepare("second", lines_of("b.txt", "c.jsonl"), tokenizer)
    assert sorted(texts_of(first, first.validation)) == sorted(texts_of(second, second.validation))
    assert 8 <= len(first.validation) <= 35  # of 400, within four standard deviations of 20
    assert not set(texts_of(first, first.validation)) & set(texts_of(first, first.train))
    assert second.origin("text", "train", len(second.train) - 1).startswith("c.jsonl, ")


def test_a_tail_is_cut_to_the_character(place, monkeypatch):
    text = Path("one.txt").read_text()
    for part in (1 << 18, 300, 7):
        monkeypatch.setattr(readers, "PART", part)
        source = Source(Texts(("one.txt",)), validation=Tail(0.1))
        corpus = prepare(f"data{part}", {"text": source}, Learn("characters"))
        cut = int(len(text) * 0.9)
        assert texts_of(corpus, corpus.train) == [text[:cut]]
        assert texts_of(corpus, corpus.validation) == [text[cut:]]


def test_validation_may_have_files_of_its_own(place, tokenizer):
    Path("valid.txt").write_text("dogs sang\nthe mat\n\n")
    corpus = prepare("data", lines_of(validation=Texts(("valid.txt",), split="line")), tokenizer)
    assert len(corpus.train) == 400
    assert texts_of(corpus, corpus.validation) == ["dogs sang", "the mat"]
    assert corpus.origin("text", "validation", 1) == "valid.txt, document 2"
    assert corpus.manifest.sources["text"].skipped == {"empty": 1}


def test_pairs_alternate_and_a_repeated_source_stays_on_one_side(place, tokenizer, monkeypatch):
    small(monkeypatch)
    lines = sentences(40)
    rows = [f"{line}\t{line.upper()} {number}" for line in lines for number in range(3)]
    Path("pairs.tsv").write_text("\n".join([*rows, "\tno source", "no target\t"]))
    source = {"text": Source(Pairs("1", "2", ("pairs.tsv",)), validation=0.3)}
    corpus = prepare("data", source, tokenizer)
    assert corpus.manifest.kind == "pairs" and corpus.train.separator is None
    assert corpus.manifest.sources["text"].skipped == {"source empty": 1, "target empty": 1}
    sides = []
    for tokens in (corpus.train, corpus.validation):
        texts = texts_of(corpus, tokens)
        assert all(t.rpartition(" ")[0] == s.upper() for s, t in zip(texts[::2], texts[1::2]))
        assert tokens.n_tokens == tokens.lengths.sum()
        sides.append(texts[::2])
    assert len(sides[0]) + len(sides[1]) == 120 and sides[1] and not set(sides[0]) & set(sides[1])
    lengths = corpus.manifest.sources["text"].train.lengths
    assert lengths["source"]["100"] < lengths["target"]["100"]


def test_a_long_document_is_one_document(place, tokenizer, monkeypatch):
    small(monkeypatch)
    text = Path("one.txt").read_text()
    corpus = prepare("data", {"text": Source(Texts(("one.txt",)), validation=0)}, tokenizer)
    assert texts_of(corpus, corpus.train) == [text] and len(text) > 50 * 300


def test_the_manifest_says_what_there_is(place):
    Path("x.txt").write_text("abba\n\n ab\nüa\n")
    Path("y.txt").write_text("ab?\n")
    source = Source(Texts(("x.txt",), "line"), Texts(("y.txt",), "line"))
    prepare("data", {"letters": source}, Learn("characters"))
    manifest = Manifest.read(Path("data"))
    facts = manifest.sources["letters"]
    assert facts.skipped == {"empty": 1}
    train = facts.train
    assert (train.documents, train.tokens, train.characters, train.bytes) == (3, 13, 9, 10)
    assert train.unknown == 0 and facts.validation.unknown == 1
    lengths = train.lengths["document"]
    assert list(lengths) == "0 5 25 50 75 95 99 100".split()  # per cent
    assert list(lengths.values()) == [2, 2, 2, 3, 4, 4, 4, 4]
    content = Path("data/letters.train.00000.tokens").read_bytes()
    assert train.shards[0].sha256 == hashlib.sha256(content).hexdigest()
    assert manifest.settings["sources"]["letters"]["files"][0] == {
        "name": "x.txt",
        "bytes": 14,
        "sha256": hashlib.sha256(Path("x.txt").read_bytes()).hexdigest(),
    }
    assert json.loads(Path("data", MANIFEST).read_text())["format"] == 1


def test_a_tokenizer_is_learned_from_the_texts_for_training(place):
    Path("x.jsonl").write_text('{"text": "abba"}\n{"text": "ab"}\n')
    Path("y.txt").write_text("xyz\n")
    source = {"text": Source(Texts(("x.jsonl",)), Texts(("y.txt",)))}
    corpus = prepare("data", source, Learn("characters"))
    assert corpus.tokenizer.vocab_size == 4  # two special tokens, a, b
    for kind in ("bpe", "wordpiece", "unigram", "bytes"):
        corpus = prepare(kind, lines_of(), Learn(kind, vocab_size=400, special="encoder-decoder"))
        text = Path("lines.txt").read_text().splitlines()[0]
        ids = corpus.tokenizer.encode(text, special=False)
        assert corpus.train.document(0).tolist() == ids and corpus.train.separator == 1
        assert Tokenizer.load(f"{kind}/tokenizer").hash == corpus.tokenizer_hash


def test_several_sources_stay_apart(place, tokenizer):
    sources = {**lines_of(), "other": Source(Texts(("one.txt",)), validation=0)}
    corpus = prepare("data", sources, tokenizer)
    assert list(corpus.sources) == ["text", "other"]
    assert len(corpus.sources["other"].train) == 1
    with pytest.raises(InputError, match="holds 2 sources; name one of them: text, other"):
        assert corpus.train


def test_the_same_texts_give_the_same_bytes_and_a_whole_corpus_is_left_alone(place):
    for folder in ("first", "second"):
        prepare(folder, lines_of(), Learn("bpe", vocab_size=300))
    assert files_in(place / "first") == files_in(place / "second")
    before = {path: path.stat().st_mtime_ns for path in (place / "first").rglob("*.tokens")}
    prepare("first", lines_of(), Learn("bpe", vocab_size=300))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_progress_is_told(place, tokenizer, monkeypatch):
    small(monkeypatch)
    told = []
    prepare("data", lines_of(), tokenizer, progress=lambda *facts: told.append(facts))
    size = Path("lines.txt").stat().st_size
    reading = [facts for facts in told if facts[0] == "text"]
    assert reading[0][1:] == (0, size, 0) and reading[-1][1:3] == (size, size)
    assert [facts[3] for facts in reading] == sorted(facts[3] for facts in reading)
    assert told[-1][0] == "checksums" and told[-1][3] > 4000


# killed and resumed -------------------------------------------------------------------------------

KILLS = """
import os, random, signal, sys
from pathlib import Path
from tercet import files
from tercet.data import documents, preparation, writer
from tercet.data.prepare import Learn, Pairs, Source, Texts, prepare

writer.SHARD_TOKENS, preparation.BATCH, preparation.COMMIT, documents.PART = 1000, 500, 2000, 300
SOURCES = {
    "text": {"a": Source(Texts(("lines.txt",), "line")), "b": Source(Texts(("one.txt",)), 0)},
    "pairs": {"p": Source(Pairs("a.en", "a.de"), 0.2)},
}

def killed_at(moment, kind):
    # In a child: dies at its moment-th write, with half of it written, or rename.
    if child := os.fork():
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    counted = [0]
    write, replace = writer._write, Path.replace
    def die():
        counted[0] += 1
        return counted[0] == moment
    def half(file, numbers):
        if die():
            file.write(numbers.tobytes()[: numbers.nbytes // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(file, numbers)
    def renamed(path, target):
        if die():
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(path, target)
    writer._write, Path.replace = half, renamed
    prepare(kind, SOURCES[kind], Learn("bpe", vocab_size=300))
    os._exit(0)

for kind in SOURCES:
    draw, kills = random.Random(0), 0
    while killed_at(draw.randint(1, 25), kind):
        kills += 1
    print(kind, kills, flush=True)
"""


def in_a_process(program: str, *args: str, **options) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(
        [sys.executable, "-c", program, *args],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        **options,
    )


def test_kills_in_the_middle_of_writing_change_no_byte(place, monkeypatch):
    done = in_a_process(KILLS)
    assert done.returncode == 0, done.stderr
    kills = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert min(kills.values()) >= 3, kills
    small(monkeypatch)
    learn = Learn("bpe", vocab_size=300)
    text = {
        "a": Source(Texts(("lines.txt",), "line")),
        "b": Source(Texts(("one.txt",)), validation=0),
    }
    prepare("whole-text", text, learn)
    prepare("whole-pairs", {"p": Source(Pairs("a.en", "a.de"), 0.2)}, learn)
    for kind in ("text", "pairs"):
        assert files_in(place / kind) == files_in(place / f"whole-{kind}")
        assert Corpus.open(kind, verify=True)


VERB = """
import sys
from tercet import cli
from tercet.data import preparation, writer
writer.SHARD_TOKENS, preparation.BATCH, preparation.COMMIT = 100_000, 1 << 14, 1 << 17
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_byte(place):
    """The verb itself, killed from outside at any time from its start on."""
    Path("large.txt").write_text("\n".join(sentences(100_000, seed=1)))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}

    def run(folder: str, seconds: float | None) -> float:
        command = [sys.executable, "-c", VERB, "data", "prepare", "large.txt", "--split", "line"]
        start = time.monotonic()
        with subprocess.Popen(
            [*command, "--out", folder, "--vocab-size", "500", "--quiet"], env=environment
        ) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            code = process.wait()
        assert code in (0, -signal.SIGKILL)
        return time.monotonic() - start if code == 0 else 0.0

    whole = run("whole", None)
    draw, kills = random.Random(0), 0
    while kills < 20:
        if run("killed", draw.uniform(0.1, 0.7) * whole):  # it came to its end
            assert files_in(place / "killed") == files_in(place / "whole")
            shutil.rmtree("killed")
        else:
            kills += 1
    run("killed", None)
    assert files_in(place / "killed") == files_in(place / "whole")


def test_memory_does_not_grow_with_the_text(place):
    """The costliest case, a token a character: 80 MB a core and some, whatever the size."""
    line = "the cat sat on a mat while dogs slept; " * 4 + "\n"
    for name, megabytes in (("small.txt", 2), ("large.txt", 8)):
        Path(name).write_text(line * (megabytes * (1 << 20) // len(line)))
    program = (
        "import resource, sys\n"
        "from tercet.data.prepare import Learn, Source, Tail, Texts, prepare\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "found = [peak()]\n"
        "for name in ('small.txt', 'large.txt'):\n"
        "    source = Source(Texts((name,)), Tail(0.1))\n"
        "    prepare(name + '.d', {'text': source}, Learn('characters'))\n"
        "    found.append(peak())\n"
        "print(*found)"
    )
    done = in_a_process(program)
    assert done.returncode == 0, done.stderr
    start, small_peak, large_peak = map(int, done.stdout.split())
    assert small_peak - start < 80 * (os.cpu_count() or 1) + 20
    assert large_peak - small_peak < 20


# what is refused ----------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "name", "words"),
    [
        (cut, "text.train.00001.tokens", ["cut short", "2,000"]),
        (cut, "text.validation.index", ["cut short"]),
        (Path.unlink, "text.train.00000.tokens", ["No such file", "anew"]),
        (lambda path: path.write_text("{"), MANIFEST, ["not JSON"]),
        (lambda path: path.write_text('{"format": 2}'), MANIFEST, ["format 2", "reads 1"]),
        (lambda path: path.write_text('{"format": 1}'), MANIFEST, ["damaged"]),
        (Path.unlink, MANIFEST, ["no prepared data", "tercet data prepare"]),
    ],
)
def test_a_damaged_corpus_is_refused_by_file(damage, name, words, place, tokenizer, monkeypatch):
    small(monkeypatch)
    prepare("data", lines_of(), tokenizer)
    damage(Path("data", name))
    with pytest.raises(InputError) as caught:
        Corpus.open("data")
    assert "data" in str(caught.value) and all(word in str(caught.value) for word in words)
    assert (name in str(caught.value)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["text.train.00001.tokens", "text.validation.index"])
def test_an_altered_file_has_another_checksum(name, place, tokenizer, monkeypatch):
    small(monkeypatch)
    prepare("data", lines_of(), tokenizer)
    assert Corpus.open("data", verify=True)
    flip(Path("data", name))
    assert Corpus.open("data")
    with pytest.raises(InputError, match=rf"{name}: was altered, its checksum"):
        Corpus.open("data", verify=True)


def test_a_tokenizer_that_did_not_make_the_tokens_is_refused(place, tokenizer):
    prepare("data", lines_of(), tokenizer)
    other = train_tokenizer(sentences(200), vocab_size=301)
    assert Corpus.open("data", tokenizer=tokenizer)
    with pytest.raises(InputError, match=f"another tokenizer.*not {other.hash[:12]}"):
        Corpus.open("data", tokenizer=other)
    other.save("data/tokenizer")
    with pytest.raises(InputError, match="tokenizer: was altered"):
        assert Corpus.open("data").tokenizer


def test_a_corpus_without_text_is_refused(place, tokenizer):
    Path("blank.txt").write_text("\n \n\n")
    for made_with in (tokenizer, Learn("bytes")):
        with pytest.raises(InputError, match="blank.txt: no text to prepare .*3 empty"):
            prepare("data", lines_of("blank.txt"), made_with)
    with pytest.raises(InputError, match="nothing to learn a tokenizer from"):
        prepare("data", lines_of("blank.txt"), Learn("bpe"))
    with pytest.raises(InputError, match="of 1 documents none is for validation; cut the text"):
        prepare("data", {"text": Source(Texts(("one.txt",)), 1e-9)}, tokenizer)
    with pytest.raises(InputError, match="of 1 documents none is for training"):
        prepare("data", {"text": Source(Texts(("one.txt",)), 1 - 1e-9)}, tokenizer)
    Path("blank.txt").write_text("mended")  # the same folder serves, nothing was finished
    assert len(prepare("data", lines_of("blank.txt", validation=0), tokenizer).train) == 1


def test_a_corpus_made_otherwise_is_not_written_over(place, tokenizer):
    prepare("data", lines_of(), tokenizer)
    before = files_in(place / "data")
    with pytest.raises(
        InputError, match=r"prepared otherwise \(sources.text.validation: 0.1 \(was"
    ):
        prepare("data", lines_of(validation=0.1), tokenizer)
    with pytest.raises(InputError, match=r"prepared otherwise \(tokenizer.kind: 'bytes'"):
        prepare("data", lines_of(), Learn("bytes"))
    with Path("lines.txt").open("a") as file:
        file.write("more\n")
    with pytest.raises(InputError, match=r"sources.text.files.0.bytes: .* choose another folder"):
        prepare("data", lines_of(), tokenizer)
    assert files_in(place / "data") == before


def test_an_interrupted_preparation_is_no_corpus(place, tokenizer, monkeypatch):
    small(monkeypatch)
    with Path("lines.txt").open("ab") as file:
        file.write(b"na\xefve\n")
    with pytest.raises(InputError, match="lines.txt, line 401"):
        prepare("data", lines_of(), tokenizer)
    with pytest.raises(InputError, match="data: this data is not whole"):
        Corpus.open("data")
    Path("lines.txt").write_text("\n".join(sentences(400)) + "\nnaive\n")  # mended: starts anew
    prepare("data", lines_of(), tokenizer)
    prepare("whole", lines_of(), tokenizer)
    assert files_in(place / "data") == files_in(place / "whole")


def test_standard_input_is_read_once(place, tokenizer, monkeypatch):
    def given(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    lines = "\n".join(sentences(400))
    small(monkeypatch)
    given(lines + "\n")
    with monkeypatch.context() as stopped:
        stopped.setattr(preparation.Preparation, "_commit", interrupting_after(3))
        with pytest.raises(KeyboardInterrupt):
            prepare("data", lines_of("-"), tokenizer)
    given("another " + lines)
    with pytest.raises(InputError, match="not those of the interrupted run"):
        prepare("data", lines_of("-"), tokenizer)
    given(lines)
    prepare("data", lines_of("-"), tokenizer)
    given(lines)
    whole = prepare("whole", lines_of("-"), tokenizer)
    assert files_in(place / "data") == files_in(place / "whole") and len(whole.train) > 300
    with pytest.raises(InputError, match="standard input, which cannot be compared"):
        prepare("whole", lines_of("-"), tokenizer)
    for made_with, source in (
        (Learn("bpe"), lines_of("-")),
        (tokenizer, lines_of("-", validation=Tail(0.1))),
    ):
        with pytest.raises(InputError, match="standard input is read once"):
            prepare("none", source, made_with)


def interrupting_after(commits: int):
    commit, seen = preparation.Preparation._commit, []

    def counted(self, *args) -> None:
        commit(self, *args)
        seen.append(1)
        if len(seen) == commits:
            raise KeyboardInterrupt

    return counted


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sources": {}}, ["neither"]),
        ({"sources": {"a/b": Source(Texts(("one.txt",)))}}, ["'a/b'", "letters"]),
        (
            {"sources": {"a": Source(Texts(("one.txt",))), "b": Source(Pairs("a.en", "a.de"))}},
            ["both"],
        ),
        ({"sources": {"a": Source(Texts(("none.txt",)))}}, ["none.txt: no such file"]),
        ({"sources": {"a": Source(Pairs("a.en", "one.txt"))}}, ["200 lines", "400", "line 201"]),
    ],
)
def test_settings_that_do_not_fit_are_said(settings, words, place, tokenizer):
    with pytest.raises(InputError) as caught:
        prepare("data", **settings, tokenizer=tokenizer)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_source_holds_its_settings_to_each_other():
    read = Texts(("a.txt",))
    for share in (-0.1, 1.0, Tail(2)):
        with pytest.raises(InputError, match="must be a share from 0 to below 1"):
            Source(read, validation=share)
    with pytest.raises(InputError, match="no tail"):
        Source(Pairs("a", "b"), validation=Tail(0.1))
    with pytest.raises(InputError, match="same kind"):
        Source(read, validation=Pairs("a", "b"))


def test_half_a_character_is_named_with_its_document(place, tokenizer):
    Path("x.jsonl").write_text('{"text": "fine"}\n{"text": "a \\ud800"}\n')
    with pytest.raises(InputError, match=r"x.jsonl, document 2: has half a surrogate pair"):
        prepare("data", lines_of("x.jsonl"), tokenizer)


def test_one_preparation_at_a_time(place, tokenizer):
    with locked("data"), pytest.raises(InputError, match="another run works in this folder"):
        prepare("data", lines_of(), tokenizer)


def test_a_full_disk_is_said_and_what_was_written_is_not_lost(place):
    program = (
        "import resource, sys\n"
        "from tercet.data import preparation\n"
        "from tercet.data.prepare import Learn, Source, Texts, prepare\n"
        "from tercet.errors import InputError\n"
        "preparation.BATCH, preparation.COMMIT = 500, 2000\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_001, 20_001))\n"
        "source = Source(Texts(('lines.txt',), 'line'))\n"
        "try: prepare('data', {'text': source}, Learn('bytes'))\n"
        "except InputError as error: print(error); sys.exit(2)"
    )
    done = in_a_process(program)
    assert done.returncode == 2 and "data: cannot be written (File too large)" in done.stdout
    assert done.stderr == "" and "it goes on from where it was" in done.stdout
    items = json.loads(Path("data/preparing.json").read_text())["sources"]["text"]["items"]
    assert items > 100
    prepare("data", lines_of(), Learn("bytes"))
    prepare("whole", lines_of(), Learn("bytes"))
    assert files_in(place / "data") == files_in(place / "whole")

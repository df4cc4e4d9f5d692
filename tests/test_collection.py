"""Collections on disk: what is found and why, what is embedded again (nothing), what is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from small_tables import model_folder, sentences

from tercet import CutWarning, InputError, load
from tercet.cli import run
from tercet.represent.collection import Collection
from tercet.represent.collection import collection as collection_module
from tercet.represent.collection.search import Part, common
from tercet.represent.collection.store import Store
from tercet.text.passages import Passages

TEXTS = [*sentences(20, 1), "the tree keeps the river", "a road sees a house"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def made(model: Path, tmp_path: Path) -> Collection:
    collection = Collection.open(tmp_path / "collection", model)
    facts = [{"number": i, "even": i % 2 == 0, "who": f"it's {i}"} for i in range(len(TEXTS))]
    collection.add(TEXTS, facts, documents=[f"d{i}" for i in range(len(TEXTS))])
    return collection


def content(collection: Collection) -> tuple[list[dict], np.ndarray]:
    """Rows without their vectors, and these."""
    rows = sorted(collection.rows.table.to_arrow().to_pylist(), key=lambda row: row["id"])
    return rows, np.array([row.pop("vector") for row in rows])


def check_same(one: Collection, other: Collection) -> None:
    """But for the rounding of vectors: a process computes its first texts by another kernel."""
    (rows, vectors), (others, beside) = content(one), content(other)
    assert rows == others
    np.testing.assert_allclose(vectors, beside, atol=1e-5)


def test_dense_search_is_the_order_of_cosines(made: Collection, model: Path):
    query = "the red tree"
    reader = load(model)
    vectors = reader.embed([*TEXTS, query])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors[:-1] @ vectors[-1]
    hits = made.search(query, k=5, mode="dense")
    assert [hit.document for hit in hits] == [f"d{i}" for i in np.argsort(-cosines)[:5]]
    assert [hit.score for hit in hits] == pytest.approx(sorted(cosines)[::-1][:5], abs=1e-5)
    assert all(
        hit.dense == Part(i, hit.score) and hit.bm25 is None for i, hit in enumerate(hits, 1)
    )


def test_words_find_and_are_marked(made: Collection):
    (best, *_) = made.search('"Keeping the rivers?"', mode="bm25")
    assert best.text == "the tree keeps the river" and best.dense is None
    assert best.marked("<", ">") == "the tree <keeps> the <river>"


def test_hybrid_fuses_the_ranks_of_both(made: Collection):
    hits = made.search("the tree keeps the river", k=30)
    for hit in hits:
        parts = [part for part in (hit.dense, hit.bm25) if part]
        assert hit.score == pytest.approx(sum(1 / (60 + part.rank) for part in parts))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(hits) == len(TEXTS) == len({hit.document for hit in hits})


def test_nothing_is_deleted_by_half_a_condition(made: Collection):
    for where in ("even who = 'x'", "even limit 1", "even)", "even; true"):
        with pytest.raises(InputError, match="is not understood at character"):
            made.delete(where)
    assert len(made) == len(TEXTS)
    assert made.delete("even -- and no others") == 11 and len(made) == len(TEXTS) - 11


def test_a_filter_holds_for_both_ways(made: Collection):
    for mode in ("dense", "bm25", "hybrid"):
        hits = made.search(
            "a red tree", where="even AND number > 4 AND who <> 'it''s 6'", mode=mode
        )
        assert hits and all(
            hit.metadata["even"] and hit.metadata["number"] > 4 and hit.metadata["number"] != 6
            for hit in hits
        )


def test_what_is_here_is_not_embedded_again(made: Collection, monkeypatch):
    (before, _) = content(made)
    names = [f"d{i}" for i in range(len(TEXTS))]
    facts = [{"number": i, "even": i % 2 == 0, "who": f"it's {i}"} for i in range(len(TEXTS))]
    read = []
    reader = type(made.model.reader)
    whole = reader.embedded
    monkeypatch.setattr(
        reader, "embedded", lambda self, texts, *how: whole(self, read.append(texts) or texts, *how)
    )
    added = made.add(TEXTS, facts, documents=names)
    assert (added.embedded, added.known, read) == (0, len(TEXTS), [])
    assert content(made)[0] == before
    added = made.add(["the old house", *TEXTS[1:]], facts, documents=names)
    assert (added.embedded, added.known, added.removed, read) == (1, 21, 1, [["the old house"]])
    assert len(made) == len(TEXTS)
    added = made.add([TEXTS[3]], documents=["another"])  # a known text: a new row, no new vector
    assert (added.embedded, len(read), len(made)) == (0, 1, len(TEXTS) + 1)


def test_one_in_a_hundred_new_texts_embeds_one_in_a_hundred(model: Path, tmp_path: Path):
    words = sorted({word for text in TEXTS for word in text.split()})
    texts = [f"{one} {other}" for one in words for other in words][:200]
    collection = Collection.open(tmp_path / "c", model, passages=Passages(None))
    assert collection.add(texts[:-2]).embedded == 198
    added = collection.add(texts)
    assert (added.embedded, added.known, len(collection)) == (2, 198, 200)


def test_texts_without_names_are_here_once(model: Path, tmp_path: Path):
    collection = Collection.open(tmp_path / "c", model)
    assert collection.add(["a red road", "a red road", "a blue road"]).duplicates == 1
    assert collection.add(["a red road", "an old road"]).embedded == 1
    assert len(collection) == 3


def test_new_names_of_metadata_and_other_types(made: Collection):
    made.add(["two new houses"], [{"author": "Austen"}], documents=["new"])
    assert [hit.document for hit in made.search("road", where="author = 'Austen'")] == ["new"]
    made.add(["a new road"], [{"number": 2.5}], documents=["half"])  # whole numbers become others
    made.add(["an old road"], [{"number": 3}], documents=["whole"])
    assert [hit.metadata["number"] for hit in made.search("road", where="number = 2.5")] == [2.5]
    with pytest.raises(InputError, match="metadata 'number' is 'seven' .* of type double"):
        made.add(["one more"], [{"number": "seven"}])


def test_documents_are_cut_into_passages_under_their_headings(model: Path, tmp_path: Path):
    collection = Collection.open(tmp_path / "c", model, passages=Passages(12))
    text = "# Rivers\nThe old river sees a tree. The blue road takes two rivers. A house finds it."
    collection.add([text], documents=["rivers"])
    hits = collection.search("river", k=9, mode="dense")
    assert sorted(hit.place for hit in hits) == list(range(len(hits))) and len(hits) > 1
    assert all(hit.text.startswith("Rivers\n") for hit in hits)


def test_another_model_is_refused_and_an_upgrade_takes_it(made: Collection, tmp_path: Path):
    place, other = tmp_path / "collection", model_folder(tmp_path / "other", d_model=64)
    with pytest.raises(InputError, match="was made with width 32, .*: tercet index upgrade"):
        Collection.open(place, other)
    with pytest.raises(InputError, match="made with precision 'float32'.*'bfloat16'"):
        Collection.open(place, load(made.contract.model, precision="bfloat16"))
    late = Collection.open(place)

    def progress(*_: int) -> None:
        late.add(["it came late"], documents=["late"])

    new, added = made.upgrade(other, progress)
    assert added.embedded == len(TEXTS)
    fresh = Collection.open(tmp_path / "fresh", other)
    names = [f"d{i}" for i in range(len(TEXTS))]
    facts = [{"number": i, "even": i % 2 == 0, "who": f"it's {i}"} for i in range(len(TEXTS))]
    fresh.add(TEXTS, facts, documents=names)
    fresh.add(["it came late"], documents=["late"])
    with pytest.raises(InputError, match="was upgraded to another model meanwhile"):
        late.add(["a road"])
    check_same(new, fresh)
    assert Collection.open(place).contract.width == 64
    assert len([name for name in new.store.names() if name.startswith("rows")]) == 1


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (dict(query=" "), "the query is empty"),
        (dict(query="a", k=0), "k 0 must be a whole number from 1"),
        (dict(query="a", mode="sparse"), "mode 'sparse' is unknown"),
        (dict(query="a", where="numbr > 3"), "did you mean 'number'"),
        (
            dict(query="a", where="number >"),
            "'number >' is not understood at character 9: an expression is m",
        ),
        (
            dict(query="a", where="whe = 'a'"),
            "at character 1: no column is called 'whe'; did you m",
        ),
        (
            dict(query="a", where='who = "b"'),
            "at character 8: .*a text stands in single quotes: 'b'",
        ),
        (dict(query="a", where="who = 'b"), "at character 7: Unterminated string literal"),
        (
            dict(query="a", where="even\nAND (number"),
            "at character 17: \\) is missing",
        ),
        (dict(query="a", where="number > 'a'"), "at character 11: .*could not convert"),
        (dict(query="a", where="number > 1; x"), "at character 11: ';' ends a statement"),
        (
            dict(query="a", where="even who = 'b'"),
            "at character 6: AND, OR or the end should stand",
        ),
        (dict(query="a", where="even) AND (even"), "at character 5: this bracket closes none"),
        (dict(query="a", where="number > > 3 AND number > 1"), "stood: an expression should stand"),
        (dict(query="a", where=" "), "the filter is empty; leave it out"),
    ],
)
def test_bad_searches(made: Collection, ask, said):
    with pytest.raises(InputError, match=said):
        made.search(**ask)


def test_a_long_query_and_a_k_beyond_the_rows(made: Collection):
    with pytest.warns(CutWarning, match="lost 100 %"):
        hits = made.search("the red tree " * 3_400, k=1_000)
    assert len(hits) == len(TEXTS)


def test_an_empty_collection_and_places_that_are_none(model: Path, tmp_path: Path):
    collection = Collection.open(tmp_path / "c", model)
    with pytest.raises(InputError, match="is empty; add texts"):
        collection.search("a")
    with pytest.raises(InputError, match="there is no collection; make one"):
        Collection.open(tmp_path / "nothing")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(InputError, match="something else than a collection"):
        Collection.open(tmp_path / "full", model)
    with pytest.raises(InputError, match="reads 38 beside its special ones"):
        Collection.open(tmp_path / "long", model, passages=Passages(39))
    with pytest.raises(InputError, match="3 texts and 1 metadata"):
        collection.add(["a", "b", "c"], [{}])
    with pytest.raises(InputError, match="the document 'd' comes twice"):
        collection.add(["a", "b"], documents=["d", "d"])
    with pytest.raises(InputError, match="choose another name"):
        collection.add(["a"], [{"vector": 1}])


def test_a_beginning_that_failed_is_no_hindrance(model: Path, tmp_path: Path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Store, "sign", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Collection.open(tmp_path / "c", model)
    with pytest.raises(InputError, match="does not support the requested language"):
        Collection.open(tmp_path / "c", model, language="Klingon")
    assert len(Collection.open(tmp_path / "c", model)) == 0


def test_without_its_model_a_collection_can_be_looked_after(tmp_path: Path):
    shutil.copytree(model_folder(tmp_path / "first"), tmp_path / "gone")
    Collection.open(tmp_path / "c", tmp_path / "gone").add(["a red road", "a tree"])
    shutil.rmtree(tmp_path / "gone")
    opened = Collection.open(tmp_path / "c")
    assert opened.delete("text = 'a tree'") == 1
    with pytest.raises(InputError, match="the model of the collection, .*gone"):
        opened.search("road")
    opened.upgrade(tmp_path / "first")  # the same in another place
    assert len(Collection.open(tmp_path / "c").search("road")) == 1


def test_a_store_that_was_altered(made: Collection):
    place = Path(made.store.place)
    made.store.sign(made.contract.text().replace('"format": 1', '"format": 2'), made.contract.rows)
    with pytest.raises(InputError, match="format 2, and this version reads 1; install a newer"):
        Collection.open(place)
    made.store.sign("{}", made.contract.rows)
    with pytest.raises(InputError, match="contract is damaged"):
        Collection.open(place)
    made.store.sign(made.contract.text(), made.contract.rows)
    for file in place.glob("rows-*/data/*"):
        file.unlink()
    with pytest.raises(InputError, match="the store refuses"):
        Collection.open(place).search("a")


def test_a_vector_that_is_no_number(model: Path, tmp_path: Path):
    broken = load(model)
    broken.network.tokens.weight.data[:] = float("nan")
    with pytest.raises(InputError, match="no numbers .NaN."):
        Collection.open(tmp_path / "c", broken).add(["a red road"])


def test_an_index_over_the_vectors_finds_what_all_of_them_do(made: Collection, monkeypatch):
    exact = [hit.document for hit in made.search("a red tree", mode="dense")]
    assert made.tend() is None
    monkeypatch.setattr(collection_module, "VECTORS_FROM", 10)
    recall = made.tend()
    assert made.rows.indexed["vector"] == len(TEXTS)
    assert recall is not None and recall > 0.9
    assert [hit.document for hit in made.search("a red tree", mode="dense")] == exact
    made.add(["an old road"], documents=["new"])  # is found before and behind the index
    assert made.search("an old road", k=1, mode="dense")[0].document == "new"


def test_words_are_stems_without_accents_or_what_every_text_has(model: Path, tmp_path: Path):
    for language, text, query, found in (
        ("English", "The cafés were closing", "a closed CAFE, the", ((4, 9), (15, 22))),
        ("German", "Die Häuser", "das Haus", ((4, 10),)),
    ):
        rows = Collection.open(tmp_path / language, model, language=language).rows
        assert common(text, set(rows.stems(query)), rows.stem) == found


def test_a_full_disk_loses_nothing(model: Path, texts: Path, tmp_path: Path):
    """Files beyond 30 kB are refused, as a full disk would: what is there stays, and it goes on."""
    place = tmp_path / "c"
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n" + ADDING
    command = [sys.executable, "-c", full.replace("PART = 8", "PART = 400"), place, model, texts]
    done = subprocess.run([*map(str, command), "0", "1"], capture_output=True, text=True)
    assert done.returncode and "InputError" in done.stderr and "File too large" in done.stderr
    assert len(Collection.open(place)) == 0
    assert adding(place, model, texts).wait() == 0
    assert len(Collection.open(place)) == len(texts.read_text().splitlines())


# the verbs ----------------------------------------------------------------------------------------


def test_a_file_that_has_become_shorter_takes_its_documents_along(
    model: Path, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    notes, others = Path("notes.txt"), Path("notes.txt#1")
    others.write_text("the red tree\n")
    build = f"embed {model} ./notes.txt notes.txt#1 --split line --to c --json".split()
    for lines, removed in ((TEXTS[:6], 0), (["", *TEXTS[1:4]], 3)):
        notes.write_text("\n".join(lines))
        assert run(build) == 0
        assert json.loads(capsys.readouterr().out)["removed"] == removed
    left = {hit.document for hit in Collection.open("c").search("tree", k=20)}
    assert left == {"notes.txt#2", "notes.txt#3", "notes.txt#4", "notes.txt#1#1"}
    Path("t.csv").write_text("name,text\na,the red tree\nb,the old road\n")
    build = f"embed {model} t.csv --to t --json".split()
    assert run(build) == run([*build, "--called", "name"]) == 0  # named now, and no more by place
    assert {hit.document for hit in Collection.open("t").search("tree")} == {"a", "b"}


def test_the_verbs(model: Path, tmp_path: Path, capsys):
    rows = [{"title": f"Book {i}", "text": text, "year": 1990 + i} for i, text in enumerate(TEXTS)]
    table, place = tmp_path / "books.jsonl", str(tmp_path / "books")
    table.write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {"title": "", "text": " ", "year": 1}])
    )
    build = ["embed", str(model), str(table), "--to", place, "--column", "title,text"]
    build += ["--called", "title", "--metadata", "year", "--json", "--passages", "20"]
    told = []
    for _ in range(2):
        assert run(build) == 0
        said = capsys.readouterr()
        told.append(json.loads(said.out))
        assert "1 documents skipped: empty" in said.err
    assert told[0] == told[1] | {"embedded": len(TEXTS), "known": 0}
    assert run(["search", place, "tree river", "--where", "year > 2000", "--k", "3", "--json"]) == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(hits) == 3 and all(hit["metadata"]["year"] > 2000 for hit in hits)
    assert run(["search", place, "the tree keeps the river", "--k", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("1.  Book 20, passage 1  dense 1 (") and "the **tree** **keeps**" in said
    assert run(["index", "delete", place, "--where", "year < 1995", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": 5, "passages": len(TEXTS) - 5}
    assert run(["index", "show", place, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["metadata"] == {"year": "int64"} and told["passages in it"] == len(TEXTS) - 5
    asked = tmp_path / "asked.tsv"
    asked.write_text("query\tdocument\nthe tree keeps the river\tBook 20\na road\tBook 21\n")
    assert run(["index", "tune", place, "--queries", str(asked), "--json"]) == 0
    ways = json.loads(capsys.readouterr().out)["ways"]
    assert ways["bm25"] == {"nDCG@10": ways["bm25"]["nDCG@10"], "mean": 0, "low": 0, "high": 0}
    assert ways["hybrid"]["nDCG@10"] == 1.0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("search nowhere query", "nowhere: there is no collection"),
        ("index show nowhere", "nowhere: there is no collection"),
        ("index delete nowhere --where true", "nowhere: there is no collection"),
        ("embed MODEL --to new --text word", "--to wants FILES"),
        ("embed MODEL FILE --to new --overlap 3", "--overlap belongs to --passages"),
        ("embed MODEL FILE --to new --passages 2", "passages of 2 tokens: give 4 or more"),
        ("embed MODEL TABLE --to new --column txt", "no column 'txt'; did you mean 'text'"),
        ("evaluate retrieval MODEL FOLDER", "has no corpus.jsonl"),
    ],
)
def test_bad_commands(command: str, said: str, model: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("a red road\n")
    Path("table.jsonl").write_text('{"text": "a red road"}\n')
    names = {"MODEL": str(model), "FILE": "words.txt", "TABLE": "table.jsonl", "FOLDER": "."}
    assert run([names.get(word, word) for word in command.split()]) == 2
    assert said in capsys.readouterr().err


def test_the_figures_of_each_query_are_kept(model: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place = Path("judged")
    (place / "qrels").mkdir(parents=True)
    texts = {"d1": "the tree keeps the river", "d2": "a red road", "d3": "the road sees a tree"}
    rows = [json.dumps({"_id": name, "title": "", "text": text}) for name, text in texts.items()]
    (place / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    asked = {"q1": "the tree keeps the river", "q2": "a red road"}
    rows = [json.dumps({"_id": name, "text": text}) for name, text in asked.items()]
    (place / "queries.jsonl").write_text("\n".join(rows) + "\n")
    lines = ["query-id\tcorpus-id\tscore", "q1\td1\t1", "q2\td2\t1"]
    (place / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    command = ["evaluate", "retrieval", str(model), str(place), "--quiet", "--json", "--out"]
    for name in ("a.json", "b.json"):
        assert run([*command, name]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[0])
    kept = json.loads(Path("a.json").read_text())
    assert kept["measure"] == "retrieval test, 3 documents" and len(kept["items"]) == 2
    for mode, figures in told["figures"].items():
        for metric, figure in figures.items():
            assert sum(kept["values"][f"{mode} {metric}"]) / 2 == pytest.approx(figure)
    assert run(["compare", "a.json", "b.json", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)["metrics"]
    assert len(compared) == 12
    assert {one["verdict"] for one in compared} == {"no difference shown"}


# kills and other writers --------------------------------------------------------------------------

ADDING = """
import sys
from tercet.represent.collection import Collection, Item, collection
collection.PART = 8
texts = open(sys.argv[3]).read().splitlines()[int(sys.argv[4])::int(sys.argv[5])]
made = Collection.open(sys.argv[1], sys.argv[2])
made.feed((Item(text, text[:40]) for text in texts), lambda *done: print(*done, flush=True))
made.tend()
"""


def adding(place: Path, model: Path, texts: Path, first: int = 0, step: int = 1):
    command = [
        sys.executable,
        "-c",
        ADDING,
        str(place),
        str(model),
        str(texts),
        str(first),
        str(step),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("".join(f"{text}\n" for text in dict.fromkeys(sentences(200, 3))))
    return path


@pytest.fixture(scope="module")
def uninterrupted(model: Path, texts: Path, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("whole") / "c"
    assert adding(place, model, texts).wait() == 0
    return place


def killed(place: Path, model: Path, texts: Path, kills: int, draw: random.Random) -> int:
    done = 0
    while done < kills:
        process = adding(place, model, texts)
        assert process.stdout is not None
        for _ in range(draw.randint(0, 4)):
            process.stdout.readline()
        time.sleep(draw.random() * 0.02)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done += 1
    assert adding(place, model, texts).wait() == 0
    return done


def test_kills_lose_nothing(uninterrupted: Path, model: Path, texts: Path, tmp_path: Path):
    assert killed(tmp_path / "c", model, texts, 2, random.Random(0)) == 2
    check_same(Collection.open(tmp_path / "c"), Collection.open(uninterrupted))


@pytest.mark.slow
def test_twenty_kills_lose_nothing(uninterrupted: Path, model: Path, texts: Path, tmp_path: Path):
    total, draw = 0, random.Random(1)
    while total < 20:
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        total += killed(tmp_path / "c", model, texts, 4, draw)
        check_same(Collection.open(tmp_path / "c"), Collection.open(uninterrupted))


def test_two_processes_at_once(uninterrupted: Path, model: Path, texts: Path, tmp_path: Path):
    place = tmp_path / "c"
    with ThreadPoolExecutor(3) as pool:  # two share every text, one has a third of them
        jobs = [(0, 1), (0, 1), (1, 3)]
        codes = pool.map(lambda job: adding(place, model, texts, *job).wait(), jobs)
        assert list(codes) == [0, 0, 0]
    check_same(Collection.open(place), Collection.open(uninterrupted))

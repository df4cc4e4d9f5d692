"""What a fine-tuning finds in its data, and the page that shows it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from small_decoders import save_rows
from small_tables import label_of, model_folder, sentences
from test_report import parsed

from tercet import cli, report
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import finetune
from tercet.jobs.finetune.page import page
from tercet.jobs.finetune.page_findings import found_facts, sections
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.language_model import load

FAST = ("train.learning_rate=1e-2", "train.epochs=4", "train.rows=16", "train.dropout=0.0")
NASTY = "<script>alert('x')</script> & </td> the red house"
SECTIONS = (
    *("What it is worth", "What it confuses", "The surest mistakes", "Likely label errors"),
    *("Texts on both sides", "Texts that were cut", "Learning", "The data", "The recipe"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("findings")
    model_folder(folder / "model")
    return folder


def rows_of(texts: list[str]) -> list[dict[str, Any]]:
    return [{"text": text, "label": label_of(text)} for text in texts]


def run(place: Path, folder: Path, train: str, *changes: str, **data: Any) -> dict[str, Any]:
    """The findings of a fine-tuning."""
    tree: dict[str, Any] = {"model": str(place / "model"), "task": "classify"}
    tree["data"] = {"train": [train], **data}
    for change in (*FAST, *changes):
        recipes.change_key(tree, change)
    finetune(recipes.built(FinetuneRecipe, tree, "test"), folder)
    return json.loads((folder / "findings.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def told(place: Path) -> dict[str, Any]:
    """A run on rows with planted errors, twins, long texts and a nasty one."""
    train = rows_of(sentences(400, 1))
    planted = random.Random(1).sample(range(400), 26)
    for i in planted:
        train[i]["label"] = {"yes": "no", "no": "yes"}[train[i]["label"]]
    long = " ".join(word for text in sentences(13, 9) for word in text.split() if word != "red")
    test = [
        *rows_of(sentences(60, 2)),
        {"text": train[7]["text"].upper() + "!!", "label": "no"},
        {"text": f"{long} and more", "label": "no"},
        {"text": NASTY, "label": "no"},
    ]
    for row in test[:4]:
        row["label"] = {"yes": "no", "no": "yes"}[row["label"]]
    train.append({"text": long, "label": "no"})
    files = save_rows(place / "train.jsonl", train), save_rows(place / "test.jsonl", test)
    found = run(place, place / "run", files[0], test=[files[1]])
    return {"train": train, "planted": planted, "test": test, "found": found}


def test_the_matrix_holds_every_row_and_agrees_with_the_accuracy(place: Path, told: dict[str, Any]):
    found = told["found"]
    result = json.loads((place / "run" / "result.json").read_text())
    assert found["split"] == "test"
    counts = {(true, said): n for true, said, n in found["confusion"]}
    right = sum(n for (true, said), n in counts.items() if true == said)
    assert sum(counts.values()) == len(told["test"]) == result["test"]["n"]
    assert right / len(told["test"]) == result["test"]["mean"]["accuracy"]
    for label in ("no", "yes"):
        of_it = sum(row["label"] == label for row in told["test"])
        assert sum(n for (true, _), n in counts.items() if true == label) == of_it
    mistakes = found["mistakes"]
    assert mistakes["n"] == len(told["test"]) - right and mistakes["of"] == len(told["test"])


def test_the_surest_mistakes_are_those_of_the_model(place: Path, told: dict[str, Any]):
    model = load(place / "run" / "model")
    texts = [row["text"] for row in told["test"][:61]]  # the others need cutting, or are nasty
    answers = model.classify(texts)
    wrong = [
        (answer.probability, f"test.jsonl, row {i}", answer.label)
        for i, (answer, row) in enumerate(zip(answers, told["test"]), 1)
        if answer.label != row["label"]
    ]
    shown = [row for row in told["found"]["mistakes"]["shown"] if row["text"] in texts]
    assert len(shown) == len(wrong) > 2
    for row, (chance, where, label) in zip(shown, sorted(wrong, key=lambda one: -one[0])):
        assert row["probability"] == pytest.approx(chance, abs=1e-3)
        assert row["where"].endswith(where) and row["said"] == label != row["label"]


def test_planted_label_errors_are_found(told: dict[str, Any]):
    errors = told["found"]["label_errors"]
    assert "logistic regression on the vectors" in errors["by"]
    assert errors["of"] == errors["rows"] <= 401
    numbers = [int(row["where"].rpartition(" ")[2]) - 1 for row in errors["shown"]]
    # a tenth of the rows, and of the planted ones, are held back for validation
    assert sum(number in told["planted"] for number in numbers[:10]) >= 7
    for number, row in zip(numbers, errors["shown"]):
        assert row["text"] == told["train"][number]["text"]
        assert row["label"] == told["train"][number]["label"] != row["likely"]
        assert row["probability"] > row["own"]


def test_a_clean_table_has_few_and_no_twins(place: Path, tmp_path: Path):
    files = (
        save_rows(tmp_path / f"{name}.jsonl", rows_of(sentences(n, seed)))
        for name, n, seed in (("train", 240, 3), ("test", 40, 4))
    )
    train, test = files
    found = run(place, tmp_path / "run", train, "train.epochs=1", test=[test])
    assert found["label_errors"]["n"] <= 12
    assert found["duplicates"]["same"] == found["cut"]["n"]["train"] == 0
    shown = str(page(tmp_path / "run"))
    assert "None: all texts fit into the 40 tokens" in shown


def test_a_weak_judge_is_called_one(told: dict[str, Any]):
    errors = told["found"]["label_errors"]
    assert 0.8 < errors["agrees"] < 1
    ((_, about, *_),) = sections({"label_errors": errors}, {})
    assert "a weak judge" not in about and f"{100 * errors['agrees']:.1f}" in about
    weak = {"label_errors": {**errors, "agrees": 0.6}}
    ((_, about, *_),) = sections(weak, {})
    assert "a weak judge, who mostly errs himself" in about and not found_facts(weak)


def test_planted_twins_are_found_and_nothing_else(told: dict[str, Any]):
    twins = told["found"]["duplicates"]
    assert (twins["split"], twins["of"], twins["known"]) == ("test", 63, "train and validation")
    assert (twins["same"], twins["near"]) == (1, 1)
    same, near = twins["shown"]
    assert same["text"].endswith("!!") and same["other"]["text"] == told["train"][7]["text"]
    assert same["other"]["where"].endswith("train.jsonl, row 8") and same["similarity"] == 1
    assert near["text"].endswith(" and more") and 0.8 <= near["similarity"] < 1


def test_texts_that_were_cut_are_counted(place: Path, told: dict[str, Any]):
    cut = told["found"]["cut"]
    assert cut["limit"] == 40 and sum(cut["n"].values()) == 2 and cut["n"]["test"] == 1
    tokenizer = load(place / "model").tokenizer
    assert {row["tokens"] for row in cut["shown"]} == {
        len(tokenizer.encode(told[split][i]["text"])) for split, i in (("train", -1), ("test", 61))
    }


def test_the_folds_own_models_find_label_errors(place: Path, tmp_path: Path):
    train = rows_of(sentences(240, 7))
    planted = random.Random(7).sample(range(240), 16)
    for i in planted:
        train[i]["label"] = {"yes": "no", "no": "yes"}[train[i]["label"]]
    train.append({"text": "the only one of its kind", "label": "maybe"})
    found = run(place, tmp_path / "run", save_rows(tmp_path / "train.jsonl", train), "folds=3",
                "train.epochs=3")  # fmt: skip
    errors = found["label_errors"]
    assert errors["by"].startswith("the models of the 3 folds")
    assert errors["of"] == 241 and errors["rows"] == 240  # no fold could have said maybe
    numbers = [int(row["where"].rpartition(" ")[2]) - 1 for row in errors["shown"]]
    assert sum(number in planted for number in numbers[:10]) >= 8
    said = np.concatenate([np.load(tmp_path / "run" / f"fold-{i}" / "said.npy") for i in range(3)])
    assert said.shape == (241, 3) and said.sum(1) == pytest.approx(1, abs=1e-5)
    assert found["split"] == "validation" and found["duplicates"]["known"] == "train"
    assert "validation rows of fold-" in str(page(tmp_path / "run"))


def test_a_resumed_run_adds_what_is_missing(place: Path, told: dict[str, Any]):
    path = place / "run" / "findings.json"
    before = path.read_bytes()
    path.unlink()
    result = (place / "run" / "result.json").stat().st_mtime_ns
    args = ["finetune", str(place / "model"), str(place / "train.jsonl"), "--resume", "--quiet"]
    args += ["--test", str(place / "test.jsonl"), "--folder", str(place / "run")]
    assert cli.run([*args, *(part for change in FAST for part in ("--set", change))]) == 0
    assert path.read_bytes() == before
    assert (place / "run" / "result.json").stat().st_mtime_ns == result


def test_other_kinds_and_pairs_have_what_applies(place: Path, tmp_path: Path):
    pairs = [
        {"sentence1": one, "sentence2": two, "label": label_of(one)}
        for one, two in zip(sentences(60, 1), sentences(60, 2))
    ]
    train = save_rows(tmp_path / "train.jsonl", pairs)
    test = save_rows(tmp_path / "test.jsonl", [{**pairs[3], "sentence1": "a tree"}, *pairs[4:8]])
    found = run(place, tmp_path / "run", train, "train.epochs=1", test=[test])
    assert found["duplicates"]["same"] == 4 and found["duplicates"]["near"] == 0
    assert found["duplicates"]["shown"][0]["text"] == [
        pairs[4]["sentence1"], pairs[4]["sentence2"]
    ]  # fmt: skip
    assert "n" in found["label_errors"]
    numbers = [{**row, "label": i / 7} for i, row in enumerate(pairs)]
    train = save_rows(tmp_path / "numbers.jsonl", numbers)
    found = run(place, tmp_path / "numbers", train, "train.epochs=1")
    assert set(found) == {"duplicates", "cut"}


# the page ----------------------------------------------------------------------------------------


def test_the_page_holds_each_section_and_runs_nothing_of_the_texts(place: Path, told: Any):
    assert cli.run(["report", str(place / "run")]) == 0
    written = (place / "run" / "report.html").read_text(encoding="utf-8")
    seen = parsed(written).seen
    titles = [attributes["aria-label"] for name, attributes in seen if name == "section"]
    assert titles == list(SECTIONS)
    assert sum(name == "script" for name, _ in seen) == 1  # the page's own
    assert "<script>alert" not in written and "&lt;script&gt;alert(&#x27;x&#x27;)" in written
    for row in told["found"]["label_errors"]["shown"]:
        assert row["text"] in written and row["where"] in written


@browser.needed
def test_a_browser_draws_the_page(place: Path, told: Any, tmp_path: Path):
    assert cli.run(["report", str(place / "run")]) == 0
    drawn = browser.drawn(place / "run" / "report.html", tmp_path / "profile")
    assert all(title in drawn for title in SECTIONS)


def test_many_labels_are_pairs_and_few_a_square(place: Path, told: Any, tmp_path: Path):
    names = [f"label {i}" for i in range(150)]
    confusion = [[name, name, 9] for name in names] + [["label 3", "label 4", 1]]
    found = {"split": "test", "confusion": confusion}
    for name in ("recipe.yaml", "result.json"):
        (tmp_path / name).write_bytes((place / "run" / name).read_bytes())
    result = json.loads((tmp_path / "result.json").read_text())
    result["data"]["labels"] = names
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "findings.json").write_text(json.dumps(found))
    written = str(page(tmp_path))
    assert "150 labels: of the 1 pairs that were confused in the 1,351 test rows" in written
    assert "Confusion matrix" not in written and "<td>label 4</td>" in written
    (tmp_path / "findings.json").unlink()
    assert "What it confuses" not in str(page(tmp_path))


def test_a_confusion_matrix_has_its_sums():
    written = report.confusion_matrix(["a", "<b>"], [[8, 2], [0, 10]])
    assert "80.0\u00a0%" in written and "90.0\u00a0%" in written and "83.3\u00a0%" in written
    assert "&lt;b&gt;" in written and "<b>" not in written
    assert "–" in report.confusion_matrix(["a", "b"], [[0, 0], [0, 3]])  # of a there are no rows
    with pytest.raises(InputError, match=r"1 × \[2\] counts for 2 labels"):
        report.confusion_matrix(["a", "b"], [[1, 2]])

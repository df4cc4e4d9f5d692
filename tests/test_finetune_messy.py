"""Tables as people have them: what is mended, what is said, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_tables import FAST, model_folder, recipe, sentences, table

from tercet import cli
from tercet.errors import InputError
from tercet.jobs.finetune import finetune, kinds
from tercet.jobs.finetune.card import sentences as told
from tercet.jobs.finetune.classify import PARTS, classify
from tercet.jobs.finetune.fit import Measure
from tercet.jobs.finetune.rows import read_table
from tercet.jobs.finetune.task import Scores
from tercet.language_model import LanguageModel, load
from tercet.train.log import rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load(model_folder(tmp_path_factory.mktemp("messy") / "model"))


def written(place: Path, *labels: str, comma: str = ",", header: str = "text,label") -> Path:
    lines = [f'"{one}, he said"{comma}{labels[i % len(labels)]}' for i, one in enumerate(TEXTS)]
    path = place / "train.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
    return path


TEXTS = sentences(20, 3)


def said_of(place: Path, model: LanguageModel) -> list[str]:
    heard: list[str] = []
    data = {"train": [str(place / "train.csv")]}
    classify(recipe(place, data=data), model, heard.append)
    return heard


def test_excels_semicolons_mark_and_spaces(tmp_path: Path):
    path = written(tmp_path, "yes", "no", comma=";", header="Sentence ; Label ")
    read = read_table([str(path)], PARTS, {})
    assert read.columns == {"text": "Sentence", "label": "Label"}
    assert read.rows[0][1] == {"text": f"{TEXTS[0]}, he said", "label": "yes"}
    assert len(read.rows) == len(TEXTS)


def test_columns_that_cannot_be_guessed_are_named_so_that_blanks_are_seen(tmp_path: Path):
    path = written(tmp_path, "yes", "no", header="what,kind")
    with pytest.raises(InputError, match="There are 'what', 'kind'; name it with --text NAME"):
        read_table([str(path)], PARTS, {})


def test_labels_that_look_like_one(tmp_path: Path, model: LanguageModel):
    written(tmp_path, "Yes", "yes", "no", "NA")
    found = said_of(tmp_path, model)
    assert any("the labels 'Yes', 'yes' are learned as different ones" in one for one in found)
    assert any("'NA' is learned as a label" in one for one in found)
    written(tmp_path, "yes", "no")
    assert not any("learned as" in one for one in said_of(tmp_path, model))


def test_what_is_alike():
    assert kinds.alike(["1", "1.0", "2", "a b", "A  b", "c"]) == [("1", "1.0"), ("a b", "A  b")]


@pytest.mark.parametrize("odd, number", [("n/a", True), ("4,5", True), ("", True), ("n/a", False)])
def test_a_value_among_numbers_that_is_none(
    odd: str, number: bool, tmp_path: Path, model: LanguageModel
):
    """Of 20 values one is odd: the others are measures, or (1, 2, 3) names of classes."""
    values = [f"{i / 7}" if number else f"{i % 3}" for i in range(19)]
    written(tmp_path, *values, f'"{odd}"')
    if number:
        with pytest.raises(InputError, match=f"row 20: '{odd}' is no number, and 19 of 20 rows"):
            said_of(tmp_path, model)
    else:
        said_of(tmp_path, model)


def test_what_chance_would_do_is_said(tmp_path: Path):
    model_folder(tmp_path / "model")
    table(tmp_path / "train.jsonl", 80, 1)
    table(tmp_path / "test.jsonl", 60, 2)
    learned = finetune(recipe(tmp_path, "train.epochs=8"), tmp_path / "a")
    nothing = finetune(
        recipe(tmp_path, "train.epochs=1", "train.learning_rate=1e-9"), tmp_path / "b"
    )
    for result, shown in ((learned, False), (nothing, True)):
        assert result["test"]["mean"]["commonest"] == 0.5
        line = "test: not shown to be better than always saying the commonest label, which is right"
        assert any(one.startswith(line) for one in told(result)) == shown


def test_what_is_refused_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model_folder(tmp_path / "model")
    written(tmp_path, "yes", "no", header="what,kind")
    args = ["finetune", str(tmp_path / "model"), str(tmp_path / "train.csv")]
    args += ["--folder", str(tmp_path / "run")]
    assert cli.run(args) == 2
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    good = [*args, "--text", "what", "--label", "kind", "--set", "train.epochs=1"]
    assert cli.run(good) == 0
    there = sorted((tmp_path / "run").iterdir())
    assert cli.run(args) == 2 and sorted((tmp_path / "run").iterdir()) == there


def test_of_equal_epochs_the_other_figures_decide(tmp_path: Path, monkeypatch: Any):
    """Six epochs with one accuracy: the third has the best macro F1, the fourth the same again."""
    model_folder(tmp_path / "model")
    table(tmp_path / "train.jsonl", 80, 1)
    table(tmp_path / "test.jsonl", 60, 2)
    macro = iter([0.3, 0.4, 0.6, 0.6, 0.5, 0.2])
    seen = Measure.__call__

    def measured(self: Measure, state: Any) -> None:
        value = next(macro)
        figures = {"accuracy": 0.5, "macro_f1": value, "f1": 0.5}
        with monkeypatch.context() as patch:
            patch.setattr(
                type(self.run.task), "scores", lambda *_: Scores(figures, "half of them", 8)
            )
            seen(self, state)

    monkeypatch.setattr(Measure, "__call__", measured)
    finetune(recipe(tmp_path, "train.epochs=6"), tmp_path / "run")
    steps = [one["step"] for one in rows(tmp_path / "run" / "seed-0" / "log.jsonl", "evaluation")]
    (one,) = (tmp_path / "run" / "seed-0").glob("result.json")
    assert f'"best_step": {steps[2]},' in one.read_text()


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
):
    model_folder(tmp_path / "model")
    table(tmp_path / "train.jsonl", 80, 1)
    calls = []

    def stopping(self: Measure, state: Any) -> None:
        calls.append(state.step)
        if len(calls) == 2:
            raise KeyboardInterrupt
        seen(self, state)

    seen = Measure.__call__
    monkeypatch.setattr(Measure, "__call__", stopping)
    args = ["finetune", str(tmp_path / "model"), str(tmp_path / "train.jsonl")]
    args += ["--folder", str(tmp_path / "run"), "--quiet"]
    args += [part for change in FAST for part in ("--set", change)]
    assert cli.run(args) == 130
    assert (
        f"the best model so far is in {tmp_path / 'run' / 'model'}; the same command with --resume"
        in capsys.readouterr().err
    )
    assert load(tmp_path / "run" / "model").classify("the red house").label in ("yes", "no")


def test_a_table_is_classified_by_its_column(
    tmp_path: Path, model: LanguageModel, capsys: pytest.CaptureFixture[str]
):
    model_folder(tmp_path / "model")
    table(tmp_path / "train.jsonl", 40, 1)
    table(tmp_path / "test.jsonl", 10, 2)
    finetune(recipe(tmp_path, "train.epochs=1"), tmp_path / "run")
    ready = ["classify", str(tmp_path / "run" / "model"), "--json"]
    written(tmp_path, "yes", "no", comma=";", header="what;label")
    file = ["--file", str(tmp_path / "train.csv")]
    assert cli.run([*ready, *file]) == 2
    assert "There are 'what', 'label'; name it with --text NAME" in capsys.readouterr().err
    assert cli.run([*ready, *file, "--text", "what"]) == 0
    said = capsys.readouterr()
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [one["text"] for one in found] == [f"{text}, he said" for text in TEXTS]
    assert "text from column 'what'" in said.err
    plain = load(tmp_path / "run" / "model").classify([one["text"] for one in found])
    assert [one["label"] for one in found] == [one.label for one in plain]
    assert cli.run([*ready, *file, "--pair", "label", "--text", "what"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["text"][1] == "yes"
    assert cli.run([*ready, "a text", "--text", "what"]) == 2
    assert "--text what is a column of a table" in capsys.readouterr().err
    assert cli.run([*ready, "a text", *file]) == 2

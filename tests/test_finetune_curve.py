"""tercet finetune --curve: fewer rows and all, pretrained and from scratch."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_tables
import torch
from small_tables import model_folder, recipe, table

import tercet.jobs.finetune.job as job_module
from tercet import cli
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import finetune
from tercet.jobs.finetune.curve import order
from tercet.jobs.finetune.fit import Fitting
from tercet.jobs.finetune.kinds import class_weights
from tercet.jobs.finetune.settings import Curve, FinetuneRecipe
from tercet.train.log import rows

FAST = (*small_tables.FAST, "train.epochs=2")
CURVE = {"sizes": [12, 40], "scratch": True}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its data."""
    folder = tmp_path_factory.mktemp("curve")
    model_folder(folder / "model")
    table(folder / "train.jsonl", 100, 1)
    table(folder / "test.jsonl", 60, 2)
    return folder


def test_any_first_rows_have_the_labels_as_all_have():
    draw = random.Random(0)
    labels = draw.choices("abc", weights=[60, 30, 3], k=500) + ["d"]
    found = order(labels)
    assert sorted(found) == list(range(501)) and found == order(labels)
    assert found != order(labels[::-1])
    for size in (1, 7, 50, 200, 499):
        counts = Counter(labels[i] for i in found[:size])
        for label, n in Counter(labels).items():
            assert abs(counts[label] - n * size / 501) <= 2, (size, label)
    assert sum(i < 5 for i in order(["one"] * 5 + ["two"] * 5)[:2]) == 1
    assert order([None] * 9) != list(range(9))  # of no labels a drawn order too


def test_labels_without_a_row_have_weights():
    weights = class_weights(torch.tensor([8.0, 2.0, 0.0]), "balanced")
    assert weights is not None and weights[:2] == pytest.approx((10 / 16, 10 / 4))
    assert all(0 < one < 100 for one in weights)


def test_a_curve_from_the_command_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    args = ["finetune", str(place / "model"), str(place / "train.jsonl"), "--quiet"]
    args += ["--test", str(place / "test.jsonl"), "--folder", str(folder)]
    args += [part for change in FAST for part in ("--set", change)]
    assert cli.run(args) == 0
    log = (folder / "seed-0" / "log.jsonl").read_text()
    capsys.readouterr()
    assert cli.run([*args, "--resume", "--curve", "12,40", "--scratch"]) == 0
    said = capsys.readouterr().out
    assert (folder / "seed-0" / "log.jsonl").read_text() == log  # all rows were there already
    result = json.loads((folder / "result.json").read_text())
    points = {(one["start"], one["rows"]): one for one in result["curve"]["points"]}
    assert list(points) == [(s, n) for s in ("pretrained", "from scratch") for n in (12, 40, 90)]
    assert points["pretrained", 90]["mean"] == result["test"]["mean"]
    # 90 rows are 2 epochs of 5.6 steps; fewer rows are learned as many times as that takes
    assert [one["steps"] for one in points.values()] == [12, 12, 11] * 2
    for one in points.values():
        assert one["n"] == 60 and 0 <= one["mean"]["low"] < one["mean"]["high"] <= 1
        assert f"{one['mean']['accuracy']:.4f}  {one['mean']['low']:.4f} to" in said
    assert points["pretrained", 40]["mean"] != points["from scratch", 40]["mean"]
    scratch = finetune(recipe(place, *FAST, "train.scratch=true"), tmp_path / "scratch")
    assert scratch["test"]["mean"] == points["from scratch", 90]["mean"]
    assert not list((folder / "curve").rglob("model.safetensors"))
    capsys.readouterr()
    assert cli.run(["runs", str(tmp_path), "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (own,) = [one for one in listed if one["run"] == str(folder)]
    assert own["step"] == 11  # of the runs on all rows, not of the curve's
    assert cli.run(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "More labels" in page and "from scratch" in page and "training rows" in page
    assert len(list(rows(folder / "curve" / "12-rows-pretrained" / "seed-0" / "log.jsonl"))) > 10


def test_a_curve_goes_on_where_it_was_interrupted(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wanted = recipe(place, *FAST, curve={**CURVE, "scratch": False}, seeds=2)
    whole = finetune(wanted, tmp_path / "whole")
    taken, run = [], Fitting.run

    def counted(self: Fitting, *, quiet: bool) -> Any:
        taken.append(self.folder)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return run(self, quiet=quiet)

    def stopped(self: Fitting, *, quiet: bool) -> Any:
        if self.folder.parent.parent.name == "curve":
            raise KeyboardInterrupt
        return run(self, quiet=quiet)

    monkeypatch.setattr(job_module.Fitting, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        finetune(wanted, tmp_path / "cut")
    result = json.loads((tmp_path / "cut" / "result.json").read_text())  # what was done is there
    assert "curve" not in result and result["test"] == whole["test"]
    again = finetune(wanted, tmp_path / "cut", resume=True)
    for one, other in zip(whole["curve"]["points"], again["curve"]["points"], strict=True):
        assert one == other
    assert len(whole["curve"]["points"][0]["runs"]) == 2
    assert whole["curve"]["points"][0]["sd"]["accuracy"] is not None
    assert finetune(wanted, tmp_path / "cut", resume=True) == again and len(taken) == 4 + 6
    monkeypatch.setattr(job_module.Fitting, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        finetune(replace(wanted, curve=Curve([20])), tmp_path / "cut", resume=True)
    kept = json.loads((tmp_path / "cut" / "result.json").read_text())
    assert kept["curve"]["points"] == again["curve"]["points"]  # until there is another


def test_other_tasks_have_curves_too(tmp_path: Path):
    model_folder(tmp_path / "model")
    draw = random.Random(3)
    sentences = [draw.choices(["red", "blue", "tree", "road", "finds"], k=5) for _ in range(40)]
    tags = {"red": "ADJ", "blue": "ADJ", "finds": "VERB"}
    text = "\n\n".join("\n".join(f"{w}\t{tags.get(w, 'NOUN')}" for w in one) for one in sentences)
    (tmp_path / "words.tsv").write_text(text + "\n")
    tree = {"model": str(tmp_path / "model"), "task": "tag", "curve": {"sizes": [10]}}
    tree["data"] = {"train": [str(tmp_path / "words.tsv")]}
    result = finetune(recipes.built(FinetuneRecipe, tree, "test"), tmp_path / "run")
    curve = result["curve"]
    assert curve["split"] == "validation" and [one["rows"] for one in curve["points"]] == [10, 36]
    assert "accuracy" in curve["points"][0]["mean"]


@pytest.mark.parametrize(
    "told, message",
    [
        ({"curve": {"sizes": [40, 12]}}, r"curve.sizes \[40, 12\] must be 1 or more, and each"),
        ({"curve": {"sizes": [0]}}, r"curve.sizes \[0\] must be 1 or more"),
        ({"curve": {"scratch": True}}, "curve.scratch: name the sizes too"),
        ({"curve": {"sizes": [5]}, "folds": 3}, "folds 3 with curve.sizes"),
        ({"curve": CURVE, "train": {"scratch": True}}, "train.scratch with curve.sizes"),
        ({"curve": CURVE, "train": {"freeze": 1}}, "new weights must all learn"),
        ({"curve": CURVE, "train": {"lora": {"rank": 2}}}, "new weights must all learn"),
    ],
)
def test_curves_that_cannot_be(place: Path, told: dict[str, Any], message: str):
    tree = {"model": "m", "task": "classify", "data": {"train": ["a.csv"]}, **told}
    with pytest.raises(InputError, match=message):
        recipes.built(FinetuneRecipe, tree, "test")


def test_sizes_are_held_to_the_rows(place: Path, tmp_path: Path, capsys: Any):
    with pytest.raises(InputError, match="curve.sizes 90: there are 90 rows to learn from"):
        finetune(recipe(place, *FAST, curve={"sizes": [12, 90]}), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*/log.jsonl"))  # nothing was trained
    args = ["finetune", "m", "a.csv", "--curve", "12,many"]
    assert cli.run(args) == 2 and "give numbers of training rows" in capsys.readouterr().err

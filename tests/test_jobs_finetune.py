"""tercet finetune: what comes of it, and that nothing is lost on the way."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_tables import FAST, label_of, model_folder, recipe, sentences, table

import tercet
from tercet import cli
from tercet.errors import InputError
from tercet.files import locked
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import finetune, opened
from tercet.jobs.finetune.classify import ClassifyTask
from tercet.jobs.finetune.fit import Measure
from tercet.jobs.finetune.layers import freeze, layer_of, share_of
from tercet.jobs.finetune.settings import Curve, Data, FinetuneRecipe, Tuning
from tercet.jobs.finetune.splits import cut, fold, held_back, unlearned
from tercet.jobs.finetune.task import Splits
from tercet.language_model import load
from tercet.train import Classification
from tercet.train.log import rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its data."""
    folder = tmp_path_factory.mktemp("finetune")
    model_folder(folder / "model")
    table(folder / "train.jsonl", 160, 1)
    table(folder / "test.jsonl", 60, 2)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    one, two = weights(a), weights(b)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_measuring_is_seen_too(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
):
    monkeypatch.setattr("tercet.train.progress.EVERY", 0.0)
    for quiet in (False, True):
        finetune(recipe(place, "train.epochs=1"), tmp_path / f"quiet {quiet}", quiet=quiet)
        said = capsys.readouterr().out.splitlines()
        behind = [line.partition(":")[0].strip() for line in said if " 100 %, " in line]
        whole = ["seed-0, reading"] * 4 + [
            "findings, reading"
        ]  # validation, twice; test; to finish
        assert behind[: len(whole)] == ([] if quiet else whole)


def test_from_a_table_to_a_model_in_use(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    args = ["finetune", str(place / "model"), str(place / "train.jsonl")]
    args += ["--test", str(place / "test.jsonl"), "--folder", str(folder), "--quiet"]
    args += [part for change in (*FAST, "train.epochs=8") for part in ("--set", change)]
    assert cli.run(args) == 0
    said = capsys.readouterr()
    assert "test: accuracy" in said.out and "macro F1" in said.out and "(60 examples)" in said.out
    assert "text from column 'text', label from column 'label'" not in said.err  # quiet
    result = json.loads((folder / "result.json").read_text())
    assert result["test"]["mean"]["accuracy"] > 0.9 and result["test"]["n"] == 60
    assert result["data"]["train"] == 160 and result["data"]["labels"] == ["no", "yes"]
    model = load(folder / "model")
    texts = sentences(60, 2)
    answers = model.classify(texts)
    right = sum(answer.label == label_of(text) for answer, text in zip(answers, texts))
    assert right / 60 == pytest.approx(result["test"]["mean"]["accuracy"])
    assert model.extras.temperature == pytest.approx(result["facts"]["temperature"])
    assert cli.run(["classify", str(folder / "model"), texts[1], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["label"] == answers[1].label and sum(told["probabilities"].values()) == (
        pytest.approx(1)
    )
    card = (folder / "model" / "README.md").read_text()
    assert "library_name: transformers\n" in card
    assert "base_model:" in card and "| accuracy | test |" in card and "160 train" in card
    assert cli.run(["runs", str(tmp_path)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert "classify" in line and "complete" in line and "72 of 72" in line
    assert cli.run(["report", str(folder)]) == 0
    assert "Validation: accuracy" in (folder / "report.html").read_text()


def test_the_recipe_is_strict_and_shown(place: Path, capsys: pytest.CaptureFixture[str]):
    args = ["finetune", "m", "rows.csv", "--print", "--seeds", "3", "--set", "train.epochs=2"]
    assert cli.run(args) == 0
    shown = recipes.tree_of(capsys.readouterr().out, "shown")
    assert recipes.built(FinetuneRecipe, shown, "again").seeds == 3
    for change, said in {
        "train.epoch=3": "did you mean 'epochs'",
        "train.epochs=three": "train.epochs 'three' must be a whole number",
        "train.epochs=0": "train.epochs 0 must be 1 or more",
        "train.class_weights=balance": "did you mean 'balanced'",
        "train.layer_decay=0": "layer_decay 0.0 must be above 0",
        "data.validation=2.0": "a share between 0 and 1",
        "data.validation=[]": "data.validation []: name at least one file, or give a share",
        "evaluate.metric=acuracy": "did you mean 'accuracy'",
        "folds=1": "2 folds or more",
        "classify.pool=cls": "classify.pool 'cls' is unknown",
        "data.columns.txt=a": "write --set data.columns.text=a or --set data.columns.pair=a or",
        "task=clasify": "did you mean 'classify'",
    }.items():
        args = ["finetune", str(place / "model"), str(place / "train.jsonl"), "--set", change]
        assert cli.run([*args, "--folder", str(place / "refused"), "--quiet"]) == 2
        assert said in capsys.readouterr().err, change


# nothing lost ------------------------------------------------------------------------------------

LONG = ("train.epochs=6", "train.dropout=0.1", "train.rows=4")


def start(place: Path, folder: Path) -> subprocess.Popen[bytes]:
    changes = [part for change in (*FAST, *LONG) for part in ("--set", change)]
    command = [sys.executable, "-m", "tercet", "finetune", str(place / "model")]
    command += [str(place / "train.jsonl"), "--test", str(place / "test.jsonl"), "--resume"]
    return subprocess.Popen(
        [*command, "--folder", str(folder), "--quiet", *changes],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def until_step(process: subprocess.Popen[bytes], folder: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if any(row["step"] >= step for row in rows(folder / "seed-0" / "log.jsonl", "step")):
            return
        time.sleep(0.005)
    assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""


def test_a_killed_run_goes_on_to_the_same_weights(place: Path, tmp_path: Path):
    assert start(place, tmp_path / "whole").wait() == 0
    for step in (20, 90, 170):
        process = start(place, tmp_path / "killed")
        until_step(process, tmp_path / "killed", step)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    last = start(place, tmp_path / "killed")
    assert last.wait() == 0, last.stderr.read().decode() if last.stderr else ""
    assert same(tmp_path / "whole", tmp_path / "killed")
    one, two = (
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "killed")
    )
    assert one["test"] == two["test"] and one["facts"] == two["facts"]
    assert not (tmp_path / "killed" / "seed-0" / "checkpoints").exists()


def test_ctrl_c_leaves_the_best_model_so_far(place: Path, tmp_path: Path):
    folder = tmp_path / "run"
    process = start(place, folder)
    until_step(process, folder, 90)  # two epochs of 36 steps
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert not (folder / "result.json").exists()
    assert load(folder / "model").classify("the red house").label in ("yes", "no")
    with pytest.raises(InputError, match="holds a run; --resume goes on"):
        finetune(recipe(place, *LONG), folder)
    with pytest.raises(InputError, match=r"train.epochs was 6, is 7.*choose another --folder"):
        finetune(recipe(place, *LONG, "train.epochs=7"), folder, resume=True)
    with locked(folder), pytest.raises(InputError, match="another run works in this folder"):
        finetune(recipe(place, *LONG), folder, resume=True)
    assert start(place, folder).wait() == 0
    assert start(place, tmp_path / "whole").wait() == 0
    assert same(folder, tmp_path / "whole")


def test_the_model_that_is_read_is_not_written_over(place: Path, tmp_path: Path):
    """Nor what else a folder of that name holds."""
    shutil.copytree(place / "model", tmp_path / "model")
    before = weights(tmp_path)
    for model in (tmp_path / "model", place / "model"):
        wanted = replace(recipe(place, "train.epochs=1"), model=str(model))
        with pytest.raises(InputError, match=r"model is there already.*another --folder"):
            finetune(wanted, tmp_path)
    (tmp_path / "recipe.yaml").write_text(recipes.text(wanted), encoding="utf-8")
    with pytest.raises(InputError, match="model is there already"):
        finetune(replace(wanted, model=f"{tmp_path}/./model"), tmp_path, resume=True)
    assert all(torch.equal(before[name], now) for name, now in weights(tmp_path).items())


def test_another_base_is_another_run(place: Path, tmp_path: Path):
    """The same folder with other weights in it, met by a curve that is asked for afterwards."""
    base = shutil.copytree(place / "model", tmp_path / "base")
    wanted = replace(recipe(place, "train.epochs=1"), model=str(base))
    finetune(wanted, tmp_path / "run")
    shutil.copy(tmp_path / "run" / "model" / "model.safetensors", base)
    with pytest.raises(InputError, match="base/model.safetensors: not as when .* was begun"):
        finetune(replace(wanted, curve=Curve([20])), tmp_path / "run", resume=True)


def test_other_rows_are_another_run(place: Path, tmp_path: Path):
    train = table(tmp_path / "train.jsonl", 60, 1)
    wanted = replace(recipe(place, "train.epochs=1"), data=Data([str(train)]))
    result = finetune(wanted, tmp_path / "run")
    assert finetune(wanted, tmp_path / "run", resume=True) == result
    train.write_text(train.read_text().replace('"no"', '"yes"', 1))
    with pytest.raises(InputError, match="train.jsonl: not as when .* was begun"):
        finetune(wanted, tmp_path / "run", resume=True)
    train.unlink()
    assert finetune(wanted, tmp_path / "run", resume=True) == result


def test_a_loss_that_is_no_number_leaves_the_best_model(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Broken(Classification):
        steps = 0

        def __call__(self, model, batch):
            Broken.steps += 1
            return super().__call__(model, batch) * (torch.nan if Broken.steps > 20 else 1.0)

    monkeypatch.setattr(ClassifyTask, "objective", lambda *_: Broken())
    with pytest.raises(InputError, match="loss is nan; .*in another folder: a smaller train.learn"):
        finetune(recipe(place), tmp_path)
    assert load(tmp_path / "model").classify("the red house").label in ("yes", "no")


@pytest.mark.parametrize("moment", ["last step", "test"])
def test_ctrl_c_at_the_end_of_a_run_stops_all_of_it(
    moment: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    measured, scores = Measure.__call__, ClassifyTask.scores

    def measure(self, state):
        measured(self, state)
        if state.done and moment == "last step":
            os.kill(os.getpid(), signal.SIGINT)

    def score(self, network, examples):
        if len(examples) == 60 and moment == "test":
            raise KeyboardInterrupt
        return scores(self, network, examples)

    wanted = recipe(place, "train.epochs=1", "seeds=2")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Measure, "__call__", measure)
        patched.setattr(ClassifyTask, "scores", score)
        finetune(wanted, tmp_path / "run")
    assert not (tmp_path / "run" / "seed-1").exists()
    assert load(tmp_path / "run" / "model").classify("the red house").label in ("yes", "no")
    finetune(wanted, tmp_path / "run", resume=True)
    finetune(wanted, tmp_path / "whole")
    assert same(tmp_path / "run", tmp_path / "whole")


# seeds, folds, the best --------------------------------------------------------------------------


def test_several_seeds_are_a_mean_and_the_best_is_kept(place: Path, tmp_path: Path):
    result = finetune(recipe(place, "train.epochs=2", seeds=3), tmp_path / "three")
    runs = result["validation"]["runs"]
    assert list(runs) == ["seed-0", "seed-1", "seed-2"]
    found = [figures["accuracy"] for figures in runs.values()]
    assert result["validation"]["mean"]["accuracy"] == pytest.approx(statistics.fmean(found))
    assert result["validation"]["sd"]["accuracy"] == pytest.approx(statistics.stdev(found))
    assert found[list(runs).index(result["best"])] == max(found)
    seed = int(result["best"][-1])
    alone = finetune(recipe(place, "train.epochs=2", seed=seed), tmp_path / "alone")
    assert alone["validation"]["runs"][f"seed-{seed}"] == runs[result["best"]]
    assert same(tmp_path / "three", tmp_path / "alone")
    assert finetune(recipe(place, "train.epochs=2", seeds=3), tmp_path / "three", resume=True) == (
        result
    )


def test_folds_validate_each_row_once(place: Path, tmp_path: Path):
    result = finetune(recipe(place, "train.epochs=1", folds=3), tmp_path / "run")
    assert list(result["runs"]) == ["fold-0", "fold-1", "fold-2"]

    class Row(str):
        @property
        def group(self) -> str:
            return self[0]

    examples = [Row(f"{letter}{i}") for letter in "abcdefghij" for i in range(3)]
    whole = Splits(examples, ())
    parts = [fold(whole, number, 4) for number in range(4)]
    assert sorted(one for part in parts for one in part.validation) == sorted(examples)
    for part in (*parts, cut(whole, 0.2)):
        assert sorted([*part.train, *part.validation]) == sorted(examples)
        assert not {one.group for one in part.train} & {one.group for one in part.validation}
    assert len(cut(whole, 0.2).validation) == 6 and cut(whole, 0.2) == cut(whole, 0.2)
    with pytest.raises(InputError, match="1 different training examples are too few"):
        cut(Splits(examples[:3], ()), 0.5)
    said = "4 different training examples are too few for 5 folds; give more rows, or set folds to"
    with pytest.raises(InputError, match=f"{said} at most 4"):
        fold(Splits(examples[:12], ()), 0, 5)


def test_a_label_that_a_fold_does_not_learn_is_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{"text": text, "label": label_of(text)} for text in sentences(30, 5)]
    rows[7]["label"] = "rare"
    train = tmp_path / "rare.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = ["finetune", str(place / "model"), str(train), "--folds", "3"]
    args += ["--set", "train.epochs=1", "--folder", str(tmp_path / "run")]
    assert cli.run(args) == 0
    assert capsys.readouterr().err.count("1 labels stand in its validation rows alone") == 1


@dataclass(frozen=True)
class Labelled:
    group: int
    target: Any


@given(st.lists(st.integers(0, 5), min_size=4, max_size=30), st.booleans(), st.floats(0.1, 0.6))
def test_a_cut_takes_no_label_out_of_training(labels: list[int], several: bool, share: float):
    """As long as others can be held back."""
    targets = [(label, 6) if several else label for label in labels]
    rows = [Labelled(i, target) for i, target in enumerate(targets)]
    wanted = max(1, round(share * len(rows)))
    spare = len(labels) - len(set(labels))
    found = cut(Splits(rows, ()), share)
    assert len(found.validation) == wanted and len(found.train) + wanted == len(rows)
    lost = set(targets) - {one.target for one in found.train}
    assert len(lost) == max(0, wanted - spare) == unlearned(found)
    numbers = [Labelled(i, float(label)) for i, label in enumerate(labels)]
    plain = cut(Splits(numbers, ()), share)
    assert len(plain.validation) == wanted
    if len(set(labels)) == 1:  # nothing is rare: the drawn order, as for numbers
        assert [one.group for one in found.validation] == [one.group for one in plain.validation]
    held = held_back(rows, share)
    kept = {row.target for i, row in enumerate(rows) if i not in held}
    assert len(held) == math.ceil(len(rows) * share - 1e-9)
    assert len(set(targets) - kept) == max(0, len(held) - spare)


def test_the_best_epoch_is_kept_and_patience_ends_a_run(place: Path, tmp_path: Path):
    wanted = recipe(place, "train.epochs=30", "evaluate.patience=2", "evaluate.metric=macro_f1")
    result = finetune(wanted, tmp_path / "run")
    found = list(rows(tmp_path / "run" / "seed-0" / "log.jsonl", "evaluation"))
    values = [row["macro_f1"] for row in found]
    best = values.index(max(values))
    assert len(values) == best + 3 < 30
    assert result["runs"]["seed-0"]["best_step"] == found[best]["step"]
    assert result["validation"]["mean"]["macro_f1"] == max(values)
    assert result["runs"]["seed-0"]["stopped"] == "no better macro_f1 in 2 evaluations"
    assert opened(tmp_path / "run" / "recipe.yaml") == wanted
    longer = replace(wanted, evaluate=replace(wanted.evaluate, patience=9))
    with pytest.raises(InputError, match=r"patience was 2, is 9. A run that has ended may change"):
        finetune(longer, tmp_path / "run", resume=True)


# layers ------------------------------------------------------------------------------------------


def test_rates_fall_by_layers_and_frozen_layers_stay(place: Path, tmp_path: Path):
    network = load(place / "model").network
    names = [name for name, _ in network.named_parameters()]
    layers = {name: layer_of(name, network.config) for name in names}
    assert layers["tokens.weight"] == layers["encoder.embedding.norm.weight"] == 0
    assert {layers[name] for name in names if ".blocks.1." in name} == {2}
    assert {layers[name] for name in names if name.startswith("heads.")} == {3}
    share = share_of(network.config, 0.5)
    assert share("heads.classifier.weight") == 1 and share("tokens.weight") == 0.125
    freeze(network, 1)
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert learning == {name for name in names if layers[name] > 1}

    before = tercet.load(place / "model").network.state_dict()
    for change, frozen in (("train.freeze=1", {0, 1}), ("train.freeze=0", {0})):
        folder = tmp_path / change[-1]
        finetune(recipe(place, change, "train.epochs=1"), folder)
        after = load(folder / "model").network.state_dict()
        kept = {n for n in before if n in after and torch.equal(before[n], after[n])}
        assert {n for n in kept if "weight" in n} == {
            n for n in names if layers[n] in frozen and "weight" in n
        }
    slow = recipe(place, "train.epochs=1", "train.layer_decay=0.1", "train.weight_decay=0.0")
    finetune(slow, tmp_path / "slow")
    after = load(tmp_path / "slow" / "model").network.state_dict()
    moved = [
        float((after[f"encoder.blocks.{i}.attention.layer.q.weight"] - before[name]).abs().mean())
        for i in (0, 1)
        if (name := f"encoder.blocks.{i}.attention.layer.q.weight")
    ]
    assert 0 < 4 * moved[0] < moved[1]


def test_the_default_rate_is_smaller_for_wider_models():
    assert Tuning().rate(384) == 2e-4 and Tuning().rate(768) == 5e-5
    assert Tuning().rate(64) == 3e-4 and Tuning(learning_rate=1e-3).rate(768) == 1e-3

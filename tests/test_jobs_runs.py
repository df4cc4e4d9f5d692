"""tercet runs: what it says of a run is what the folder holds, and it needs no torch for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import imitated, step, train_small

from tercet import cli
from tercet.errors import InputError
from tercet.files import locked
from tercet.jobs.runs import differences, find, short, summary


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_small(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    """The verb: what it prints, and what it says beside that."""

    def call(*args: object) -> tuple[str, str]:
        assert cli.run(["runs", *map(str, args)]) == 0
        out, beside = capsys.readouterr()
        return out, beside

    return call


def test_a_run_is_what_its_folder_says(trained: Path):
    result = json.loads((trained / "result.json").read_text())
    found = summary(trained)
    assert (found.family, found.state, found.process) == ("decoder", "complete", None)
    assert (found.step, found.steps, found.tokens) == (12, 12, result["tokens"])
    assert found.seconds == pytest.approx(result["seconds"], abs=1e-3)
    assert (found.validation, found.best_step) == (result["loss"], result["best_step"])
    rows = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    assert found.loss == pytest.approx(sum(losses) / 12)  # of the last 20
    from tercet.language_model import load

    network = load(str(trained / "model")).network
    assert found.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_states(tmp_path: Path):
    folder = imitated(tmp_path / "run", [step(1), step(2)], "train.steps=2")
    assert summary(folder).said == "stopped"
    with locked(folder):
        held = summary(folder)
        assert held.state == "running" and held.said == f"running (process {held.process})"
    result = folder / "result.json"
    result.write_text('{"stopped": null}')
    assert summary(folder).said == "complete"
    result.write_text('{"stopped": "no better validation loss in 3 evaluations"}')
    assert summary(folder).said == "ended early: no better validation loss in 3 evaluations"
    with locked(folder):
        assert summary(folder).state == "running"
    result.write_text('{"stopped"')
    with pytest.raises(InputError, match=r"result.json: damaged .*--resume"):
        summary(folder)


def test_what_a_log_may_hold(tmp_path: Path):
    assert summary(imitated(tmp_path / "begun", [])).step == 0
    rows = [
        step(1, loss=9.0),
        {"kind": "plan", "step": 1, "steps": 40},
        *(step(number) for number in range(2, 30)),
        {"kind": "evaluation", "step": 29, "loss": 1.5},
        {"kind": "evaluation", "step": 28, "loss": "nan"},
        {"kind": "plan", "step": 29, "steps": 31},
        step(30, loss="nan", skipped=1.0),
    ]
    folder = imitated(tmp_path / "run", rows, "train.budget=30s")
    with (folder / "log.jsonl").open("ab") as file:
        file.write('{"kind": "step", "step": 31, "ü'.encode()[:-1])  # cut by a crash
    found = summary(folder)
    assert (found.step, found.steps, found.loss) == (30, 31, 2.0)
    assert (found.validation, found.best_step) == (1.5, 29)
    assert found.tokens_per_second == 2000


def test_the_list(trained: Path, tmp_path: Path, said):
    (tmp_path / "deep" / "down").mkdir(parents=True)
    first = imitated(tmp_path / "deep" / "down" / "first", [step(1)])
    imitated(first / "data" / "no-run-of-its-own", [])
    second = imitated(tmp_path / "second", [step(2, tokens=3_000_000)], "train.budget=10s")
    damaged = imitated(tmp_path / "third", [])
    (damaged / "recipe.yaml").write_text("modell: {}")
    assert find(tmp_path) == [first, second, damaged]
    out, beside = said(tmp_path, trained)
    header, *lines = out.splitlines()
    assert header.split()[:4] == ["run", "family", "parameters", "step"]
    assert [line.split()[0] for line in lines] == [str(first), str(second), str(trained)]
    assert "2 of ?" in lines[1] and "3.0 M" in lines[1] and lines[1].endswith("stopped")
    assert "12 of 12" in lines[2] and lines[2].endswith("complete")
    assert "third is left out:" in beside and "did you mean 'model'?" in beside
    out, _ = said(tmp_path, "--json")
    assert [json.loads(line)["run"] for line in out.splitlines()] == [str(first), str(second)]


def test_two_runs_side_by_side(tmp_path: Path, said):
    one = imitated(tmp_path / "one", [step(1)])
    two = imitated(tmp_path / "two", [step(1), step(2)], "train.learning_rate=1e-4", "seed=3")
    found = differences([summary(one).recipe, summary(two).recipe])
    assert found == {"train.learning_rate": [3e-3, 1e-4], "seed": [0, 3]}
    out, _ = said(one, two)
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert rows["train.learning_rate"] == ["0.003", "0.0001"] and rows["seed"] == ["0", "3"]
    assert rows["step"] == "1 of 12 2 of 12".split() and rows["tokens/s"] == ["2,000", "2,000"]
    out, _ = said(one, two, "--json")
    recipe = [json.loads(line)["recipe"] for line in out.splitlines()]
    assert recipe == [
        {"train.learning_rate": 3e-3, "seed": 0},
        {"train.learning_rate": 1e-4, "seed": 3},
    ]
    assert "the same recipe" in said(one, one)[0]


def test_where_no_run_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["runs", str(tmp_path)]) == 2
    assert "holds no run; tercet train makes one" in capsys.readouterr().err
    with pytest.raises(InputError, match="holds no run"):
        summary(tmp_path)


def test_it_loads_no_torch(tmp_path: Path):
    imitated(tmp_path / "long", (step(number) for number in range(1, 100_001)))
    program = (
        "import sys; from tercet import cli\n"
        f"cli.run(['runs', {str(tmp_path)!r}])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stdout + done.stderr


def test_counts():
    assert [short(n) for n in (12, 1234, 12_345_678, 2_000_000_000)] == [
        *("12", "1.2 k", "12.3 M", "2.0 G"),
    ]

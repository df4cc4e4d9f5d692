"""Schedules, averages and the log: each by itself."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tercet.errors import InputError
from tercet.train import Average, Averages, Log, Schedule, State
from tercet.train.log import last_rows, rows
from tercet.train.progress import Watch
from tercet.train.schedules import KINDS


@pytest.mark.parametrize(
    "schedule, step, share",
    [
        (Schedule("constant", warmup=0), 7, 1.0),
        (Schedule("constant", warmup=10), 4, 0.5),
        (Schedule("linear", warmup=0), 50, 0.5),
        (Schedule("linear", warmup=0, final=0.1), 50, 0.55),
        (Schedule("cosine", warmup=0), 50, 0.5),
        (Schedule("cosine", warmup=0, final=0.1), 100, 0.1),
        (Schedule("stable", warmup=0, decay=0.2), 79, 1.0),
        (Schedule("stable", warmup=0, decay=0.2), 90, 0.5),
        (Schedule("inverse-sqrt", warmup=25), 24, 1.0),
        (Schedule("inverse-sqrt", warmup=25), 99, 0.5),
    ],
)
def test_schedules_at_hand_computed_steps(schedule: Schedule, step: int, share: float):
    assert schedule.share(step, 100) == pytest.approx(share)


@given(
    kind=st.sampled_from(sorted(KINDS)),
    warmup=st.integers(0, 50),
    decay=st.floats(0, 1),
    final=st.floats(0, 1),
    steps=st.integers(1, 300),
)
def test_a_schedule_rises_in_its_warmup_and_never_after(kind, warmup, decay, final, steps):
    schedule = Schedule(kind, warmup, decay, final)
    shares = [schedule.share(step, steps) for step in range(steps)]
    assert all(0 <= share <= 1 + 1e-12 for share in shares)
    after = shares[max(0, warmup - 1) :]
    assert all(later <= earlier + 1e-12 for earlier, later in zip(after, after[1:]))


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"kind": "cosin"}, "'cosin' is unknown.*cosine"),
        ({"warmup": -1}, "warmup -1"),
        ({"decay": 1.5}, "decay 1.5"),
        ({"final": math.nan}, "final nan"),
    ],
)
def test_a_schedule_that_cannot_be(settings: dict, said: str):
    with pytest.raises(InputError, match=said):
        Schedule(**settings)


def walk(model: nn.Module, averages: Averages, steps: int) -> list[torch.Tensor]:
    """Random weights after each step, as the averages saw them."""
    draw, seen = torch.Generator().manual_seed(0), []
    for step in range(1, steps + 1):
        with torch.no_grad():
            model.weight.copy_(torch.randn(model.weight.shape, generator=draw))
        averages.update(step)
        seen.append(model.weight.detach().clone())
    return seen


def test_an_exponential_average_is_the_formula():
    model = nn.Linear(2, 3, bias=False)
    averages = Averages(model, Average(ema=0.9))
    seen = walk(model, averages, 30)
    mean = seen[0]
    for count, weight in enumerate(seen, 1):
        mean = mean + max(0.1, 1 / count) * (weight - mean)
    with averages.applied():
        torch.testing.assert_close(model.weight.detach(), mean)
    assert torch.equal(model.weight, seen[-1])


def test_the_last_snapshots_are_averaged_plainly():
    model = nn.Linear(2, 3, bias=False)
    averages = Averages(model, Average(last=3, every=4))
    seen = walk(model, averages, 22)
    with averages.applied():
        kept = torch.stack([seen[i - 1] for i in (12, 16, 20)])
        torch.testing.assert_close(model.weight.detach(), kept.mean(0))


@pytest.mark.parametrize("settings", [Average(ema=0.8), Average(last=2, every=3), Average()])
def test_averages_go_on_where_they_were(settings: Average):
    model = nn.Linear(2, 3)
    averages = Averages(model, settings)
    walk(model, averages, 7)
    other = Averages(model, settings)
    other.load({name: tensor.clone() for name, tensor in averages.tensors().items()})
    for one in (averages, other):
        walk(model, one, 4)
    assert averages.tensors().keys() == other.tensors().keys()
    for name, tensor in averages.tensors().items():
        assert torch.equal(tensor, other.tensors()[name])


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"ema": 0.9, "last": 3}, "ema 0.9 and last 3"),
        ({"ema": 1.0}, "ema 1.0"),
        ({"last": 0}, "last 0"),
    ],
)
def test_averages_that_cannot_be(settings: dict, said: str):
    with pytest.raises(InputError, match=said):
        Average(**settings)


def test_a_log_forgets_the_steps_that_will_be_taken_again(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    with Log(path) as log:
        for step in (1, 2, 3, 4):
            log("step", step, loss=float(step))
        log("plan", 4, steps=99)
    with path.open("a") as file:
        file.write('{"kind": "step", "st')  # a crash in the middle of a line
    with Log(path, step=2) as log:
        log("step", 3, loss=math.nan)
    found = list(rows(path))
    assert [(row["kind"], row["step"]) for row in found] == [
        ("step", 1),
        ("step", 2),
        ("plan", 4),  # what the clock decided stays decided
        ("step", 3),
    ]
    assert found[-1]["loss"] == "nan"
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_the_last_lines_of_a_kind(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    assert last_rows(path, "step", 2) == []
    with Log(path) as log:
        for step in range(1, 6):
            log("step", step, loss=1.0)
            log("sample", step, text='"kind": "step" is only said here, ü')
    with path.open("ab") as file:
        file.write('{"kind": "step", "step": 6, "what": "ü'.encode()[:-1])  # cut in a letter
    assert [row["step"] for row in last_rows(path, "step", 2)] == [4, 5]
    assert [row["step"] for row in rows(path, "step")] == [1, 2, 3, 4, 5]
    assert len(last_rows(path, "sample", 99)) == 5


@pytest.mark.parametrize(
    ("first", "shown"),
    [
        (State(step=1, steps=12, seconds=2.0, tokens=100), "100 tokens/s, 0:15 left"),
        # resumed: the 500 s of the steps before were another machine's
        (State(step=10, steps=21, seconds=500.0, tokens=900), "200 tokens/s, 0:10 left"),
    ],
)
def test_speed_and_time_left_are_those_of_this_process(
    first: State, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tercet.train.progress.EVERY", 0.0)
    with Watch("run") as watch:
        watch(first)
        later = {"step": first.step + 1, "seconds": first.seconds + 1, "tokens": first.tokens + 200}
        watch(replace(first, **later))
    assert capsys.readouterr().out.endswith(shown + "\n")


def test_a_log_is_read_without_torch():
    program = (
        "import sys; from tercet.train.log import rows; from tercet.train.progress import clock\n"
        "import tercet.train as train; print('torch' in sys.modules, train.State().step)\n"
        "assert all(getattr(train, name) for name in train.__all__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "0"], done.stderr


def test_no_name_of_the_package_is_hidden_by_a_file_beside_it():
    import tercet.train as train

    files = {path.stem for path in Path(train.__file__).parent.glob("*.py")}
    assert not files & set(train.__all__)

"""The objective reward: answers that a model writes, what a user's function says of them, and the
gradient against plain transformers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_talks import (
    furthest,
    named_gradients,
    prepared,
    recipe,
    talker,
    their_gradients,
    write_talks,
)

from tercet.data.rollouts import Rollout, Rollouts, asked
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.runs import listing, summary
from tercet.jobs.runs.report import report
from tercet.jobs.train.job import train
from tercet.jobs.train.replay import replay
from tercet.jobs.train.rewarding import Rewarding, load_reward
from tercet.jobs.train.run import Run
from tercet.jobs.train.verify import CUTS, Cut, gradients, verify
from tercet.language_model import load
from tercet.train.log import rows
from tercet.train.policy import advantages

REWARDS = """
def letters(prompt, answer, reference):
    return answer.count("e") - 0.1 * len(answer)

def exact(prompt, answer, reference):
    return float(answer == reference)

def broken(prompt, answer, reference):
    return 1 / answer.count("never written")

def odd(prompt, answer, reference):
    return float("nan") if answer else 0.0

def spelled(prompt, answer, reference):
    return "1.0"

def worthless(prompt, answer, reference):
    return 0.0

def huge(prompt, answer, reference):
    return 10**400

def rounded(prompt, answer, reference):
    import numpy as np
    return np.float32(answer.count("e"))
"""


def settings(folder: Path, name: str = "letters", **more: object) -> list[str]:
    told = {"length": 64, "max_new_tokens": 8, "samples": 4, **more}
    return [
        f"objective.reward={folder}/rewards.py:{name}",
        *(f"objective.{key}={value}" for key, value in told.items()),
    ]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    talker(tmp_path / "talker")
    write_talks(tmp_path)
    (tmp_path / "instruct.jsonl").rename(tmp_path / "reward.jsonl")
    (tmp_path / "rewards.py").write_text(REWARDS)
    return tmp_path


def test_a_step_as_plain_transformers(place: Path):
    """Each answer by itself, in its group's deviations, with a reference that the network left."""
    transformers = pytest.importorskip("transformers", reason="the oracle is not installed")
    run = prepared(place, "reward", *settings(place, kl=0.04))
    assert isinstance(run, Rewarding)
    talker(place / "other", seed=5)
    away = load(place / "other").network
    _ = run.start  # the reference stays what the run began with
    run.__dict__["network"] = lambda: load(place / "other").network
    stream = run.stream(network=away)
    assert isinstance(stream, Rollouts)
    rollouts = stream.samples(0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(place / "other")
    base = transformers.AutoModelForCausalLM.from_pretrained(place / "talker")
    total, tokens = torch.zeros(()), 0
    for start in range(0, len(rollouts), 4):
        group = rollouts[start : start + 4]
        rewards = torch.tensor([one.reward for one in group], dtype=torch.float64)
        scaled = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        for one, advantage in zip(group, scaled):
            logs, known = (said(model, one) for model in (theirs, base))
            gap = known.detach() - logs
            ratio = (logs - logs.detach()).exp()
            total = total - (ratio * (float(advantage) - 0.04 * (gap.exp() - gap - 1))).sum()
            tokens += len(logs)
    loss = total / tokens
    loss.backward()
    for cut in (Cut("whole"), Cut("eight", pieces=8)):
        found, gradient = gradients(run, cut, 0)
        assert found == pytest.approx(loss.item(), rel=1e-5, abs=1e-7)
        ours = their_gradients(load(place / "other").network, gradient, place / cut.name)
        assert furthest(ours, named_gradients(theirs)) < 1e-5


def said(model, one: Rollout) -> torch.Tensor:
    assert one.places is not None
    logs = model(one.ids[None]).logits[0].log_softmax(-1)
    return logs[one.places - 1, one.ids[one.places]]


def test_every_cut_writes_the_same_answers(place: Path):
    rows = verify(recipe(place, "reward", *settings(place)), place / "v")
    assert len(rows) == len(CUTS)
    assert all(row["difference"] < 1e-5 for row in rows)


def test_a_step_is_replayed_with_answers_that_are_written_once(place: Path):
    run = prepared(place, "reward", *settings(place))
    assert isinstance(run, Rewarding)
    asked_of, answers = [], run.answers

    def counted(network, questions, step):
        asked_of.extend(questions)
        return answers(network, questions, step)

    run.__dict__["answers"] = counted
    found = replay(run, 0)
    loss, _ = gradients(run, Cut("two", pieces=2), 0)
    questions = run.draw().samples(0)
    assert len(asked_of) == 2 * len(questions)
    assert len(found["samples"]) == 4 * len(questions)
    assert found["loss"] == pytest.approx(loss, abs=1e-6)


def test_rewards_rise_and_a_stopped_run_is_the_whole_one(place: Path):
    changes = (*settings(place), "train.steps=24", "train.learning_rate=1e-2", "evaluate.every=24")
    wanted = recipe(place, "reward", *changes)
    said = train(wanted, place / "whole")
    assert said is not None and "validation reward" in said
    log = [json.loads(line) for line in (place / "whole" / "log.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in log if row["kind"] == "step"]
    (last,) = evaluations(place / "whole")
    shown = summary(place / "whole")
    assert shown.validation == last["reward"] and shown.loss is None  # of which it says nothing
    assert sum(rewards[-4:]) > sum(rewards[:4]) + 1
    page = report_of(place / "whole")
    assert "drawn at a temperature of 1, several to a question" in page
    assert f"tercet chat {place}/whole/model" in page and "tercet generate" not in page
    source = (place / "rewards.py").read_text()
    counted = (
        "\ncalls = 0\ndef letters(prompt, answer, reference):\n    global calls\n    calls += 1\n"
    )
    counted += "    if calls > 200:\n        raise KeyError('the disk of rewards')\n"
    counted += '    return answer.count("e") - 0.1 * len(answer)\n'
    (place / "rewards.py").write_text(counted)
    with pytest.raises(InputError, match="raised KeyError.*the disk of rewards.*--resume"):
        train(wanted, place / "broken")
    kept = sorted((place / "broken" / "checkpoints").iterdir())
    assert kept, "the state was saved"
    (place / "rewards.py").write_text(source)
    train(wanted, place / "broken", resume=True)
    one, other = (load(place / name / "model").network.state_dict() for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def report_of(folder: Path) -> str:
    return report(folder).read_text(encoding="utf-8")


def test_no_reward_is_0(place: Path):
    """And not -0.0000, as minus the loss is where every answer was worth nothing."""
    said = train(
        recipe(place, "reward", *settings(place, "worthless"), "train.steps=1"), place / "run"
    )
    assert said is not None and "validation reward 0.0000 at 1" in said
    assert "0.0000 at 1" in listing([summary(place / "run")]).replace("-0.0000", "")


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("broken", (), "raised ZeroDivisionError.*for the answer"),
        ("odd", (), "gave nan for the answer"),
        ("spelled", (), "gave '1.0' for the answer"),
        ("huge", (), "gave 10000.* for the answer"),
        ("none", (), "has no function 'none'; it has letters, exact, broken, odd"),
        ("letters", ("objective.kl=.inf",), "kl inf must be 0 or above"),
        ("letters", ("objective.overflow=keep-start",), "keep-start is not for kind reward"),
        ("letters", ("batch.tokens=60",), "answers to a question; 15 are fewer than the longest"),
        ("letters", ("objective.samples=1",), "samples 1 must be 2 or more"),
        ("letters", ("objective.max_new_tokens=100",), "100 are 164 together, beyond the model's"),
        ("letters", ("objective.temperature=0",), "temperature 0.* must be above 0"),
        ("letters", ("objective.smoothing=0.1",), "smoothing 0.1 is not for kind reward"),
        ("letters", ("objective.kind=instruct",), "objective.reward is for kind reward"),
    ],
)
def test_what_is_refused(place: Path, name: str, changes: tuple[str, ...], said: str):
    with pytest.raises(InputError, match=said):
        train(recipe(place, "reward", *settings(place, name), *changes), place / "run")


def test_a_run_whose_validation_failed_is_the_whole_one(place: Path):
    """It is saved before the evaluation, which is made up for: here its first, the best one."""
    changes = ("train.steps=5", "evaluate.every=2", "checkpoint.every=50")
    source = """
from pathlib import Path
done = 0
def worth(prompt, answer, reference):
    global done
    done += 1
    if done > 36 and Path(__file__).with_name("down").exists():
        raise OSError("the judge is away")
    return -len(answer)
"""
    (place / "rewards.py").write_text(source)
    wanted = recipe(place, "reward", *settings(place, "worth", samples=4), *changes)
    train(wanted, place / "whole")
    (place / "down").touch()
    (place / "rewards.py").write_text(source + "\n")  # which counts anew
    with pytest.raises(InputError, match="the judge is away"):
        train(wanted, place / "failed")
    kept = (place / "failed" / "checkpoints" / "latest").read_text()
    assert "2" in kept and not evaluations(place / "failed")
    (place / "down").unlink()
    train(wanted, place / "failed", resume=True)
    assert evaluations(place / "failed") == evaluations(place / "whole")
    one, other = (load(place / name / "model").network.state_dict() for name in ("whole", "failed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def evaluations(folder: Path) -> list[dict]:
    return list(rows(folder / "log.jsonl", "evaluation"))


def test_a_run_of_two_processes_is_saved_where_one_fails(place: Path):
    (place / "rewards.py").write_text(
        "import os\ndone = 0\ndef worth(prompt, answer, reference):\n    global done\n"
        "    done += 1\n    if os.environ.get('RANK') == '1' and done > 60:\n"
        "        raise OSError('the judge is away')\n    return len(answer)\n"
    )
    changes = ("batch.tokens=1200", "evaluate.every=50", "checkpoint.every=50", "train.steps=50")
    wanted = recipe(place, "reward", *settings(place, "worth"), *changes)
    (place / "two.yaml").write_text(recipes.text(wanted))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "tercet", "train", str(place / "two.yaml")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--quiet", "--folder", str(place / "two")],
        capture_output=True,
        text=True,
        env=env,
    )
    assert "the judge is away" in done.stderr and "another process has failed" in done.stderr
    assert (place / "two" / "checkpoints" / "latest").exists()


def test_a_step_needs_a_question_for_every_process(place: Path):
    run = prepared(place, "reward", *settings(place), "batch.tokens=500")
    with pytest.raises(InputError, match="only 1 whole samples, too few for 2 processes"):
        run.stream(world=2, network=run.network())


def test_validation_asks_the_same_questions_however_long_the_answers_are(place: Path):
    changes = ("evaluate.tokens=150", "batch.tokens=120", "data.validation=0.5")
    told = settings(place, "rounded", samples=2)
    short = [t.replace("max_new_tokens=8", "max_new_tokens=1") for t in told]
    long = [t.replace("max_new_tokens=8", "max_new_tokens=60") for t in told]
    asked_of = []
    for name, how in (("short", short), ("long", long)):
        run = Run.of(place / name, recipe(place, "reward", *how, *changes))
        run.prepare()
        batches = list(run.validation(run.network()))
        asked_of.append([key for batch in batches for key in batch.keys])
    whole = sum(len(questions) for questions in run.draw(validation=True).epoch(0))
    assert asked_of[0] == asked_of[1] and len(asked_of[0]) < whole


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("rewards", "write FILE.py:FUNCTION"),
        ("nowhere.py:exact", "there is no file nowhere.py"),
        ("tercet.nowhere:exact", "cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_a_reward_that_is_not_there(where: str, said: str):
    with pytest.raises(InputError, match=re.escape(said)):
        load_reward(where)


def test_a_reward_is_a_file_as_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of another folder, with a neighbour and a dataclass; run once, and again when changed."""
    source = """
from __future__ import annotations
from dataclasses import dataclass
from beside_the_reward import base

@dataclass
class Rule:
    more: int = 1

def worth(prompt, answer, reference):
    return base + Rule().more
"""
    (tmp_path / "beside_the_reward.py").write_text("base = 2\n")
    (tmp_path / "worth.py").write_text(source)
    monkeypatch.setenv("REWARDS", str(tmp_path))
    found = load_reward("$REWARDS/worth.py:worth")
    assert found("", "", "") == 3 and load_reward(f"{tmp_path}/worth.py:worth") is found
    (tmp_path / "worth.py").write_text(source.replace("more: int = 1", "more: int = 2"))
    assert load_reward(f"{tmp_path}/worth.py:worth")("", "", "") == 4
    (tmp_path / "worth.py").write_text("open('is-not-there.txt')")
    with pytest.raises(InputError, match="cannot be loaded: FileNotFoundError.*is-not-there"):
        load_reward(f"{tmp_path}/worth.py:worth")


def test_the_question_is_all_before_the_last_answer(place: Path):
    run = prepared(place, "reward", *settings(place, "exact"))
    assert isinstance(run, Rewarding)
    assert "conversations to learn from, and" in run.about()  # no token of these answers
    for sample in run.draw().samples(0):
        prompt, answer = asked(sample)
        text = run.tokenizer.decode(prompt.tolist(), skip_special=False)
        assert text.endswith("<|im_start|>assistant\n")
        last = text.rpartition("user\nrepeat ")[2]
        assert last.startswith(run._text(answer.tolist()).strip())  # what write_talks asks for


@given(st.lists(st.lists(st.floats(-100, 100), min_size=4, max_size=4), min_size=1, max_size=5))
def test_advantages_are_deviations(rewards: list[list[float]]):
    found = advantages(torch.tensor(rewards, dtype=torch.float64))
    assert torch.allclose(found.sum(1), torch.zeros(len(rewards), dtype=torch.float64), atol=1e-6)
    for row, before in zip(found, rewards):
        assert all(abs(float(a)) <= 1.5 + 1e-6 for a in row)  # (n - 1) / sqrt(n), of 4
        assert len(set(before)) > 1 or not row.any()

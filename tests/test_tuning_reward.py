"""The objective reward: answers that a model writes, what a user's function says of them, and the
gradient against plain transformers."""

from __future__ import annotations

import json
import re
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

from tercet.data.rollouts import Rollout, asked
from tercet.errors import InputError
from tercet.jobs.rewarding import Rewarding, load_reward
from tercet.jobs.train import train
from tercet.jobs.verify import CUTS, Cut, gradients, verify
from tercet.language_model import load
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
    rollouts = run.stream(network=away).samples(0)
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


def test_rewards_rise_and_a_stopped_run_is_the_whole_one(place: Path):
    changes = (*settings(place), "train.steps=24", "train.learning_rate=1e-2", "evaluate.every=24")
    wanted = recipe(place, "reward", *changes)
    said = train(wanted, place / "whole")
    assert said is not None and "validation reward" in said
    log = [json.loads(line) for line in (place / "whole" / "log.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in log if row["kind"] == "step"]
    assert sum(rewards[-4:]) > sum(rewards[:4]) + 1
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


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("broken", (), "raised ZeroDivisionError.*for the answer"),
        ("odd", (), "gave nan for the answer"),
        ("none", (), "has no function 'none'; it has letters, exact, broken, odd"),
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


def test_the_question_is_all_before_the_last_answer(place: Path):
    run = prepared(place, "reward", *settings(place, "exact"))
    assert isinstance(run, Rewarding)
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

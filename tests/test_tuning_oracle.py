"""Supervised tuning and direct preference optimisation against others: loss and gradient of a step
as plain transformers computes them conversation by conversation, and as TRL trains."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_talks import (
    furthest,
    named_gradients,
    prepared,
    recipe,
    talker,
    their_gradients,
    write_talks,
)
from torch.nn import functional as F

from tercet.data.rollouts import Rollout, Rollouts
from tercet.jobs.train.job import train
from tercet.jobs.train.run import Run
from tercet.jobs.train.tuning import Tuning
from tercet.jobs.train.verify import Cut, gradients
from tercet.language_model import load
from tercet.model import Layout
from tercet.text.chat import ChatTemplate

transformers = pytest.importorskip("transformers", reason="the oracle is not installed")

SAME = 1e-5
ALL = "batch.tokens=2000"  # a step is large enough for some fifteen conversations
EACH = ("whole", 1), ("eight", 8)
PEERS = os.environ.get("TERCET_PEERS")
TRL = Path(PEERS or "") / "trl" / "bin" / "python"
SCRIPT = Path(__file__).with_name("trl_step.py")


def step(run: Run) -> list[tuple]:
    """Of each sample of the first step ids, where they are learned, sizes and reference."""
    return [
        (sample.ids.tolist(), sample.places.tolist(), sample.sizes, sample.label)
        for sample in run.stream().samples(0)
    ]


@pytest.mark.parametrize("tied", [True, False])
def test_supervised_as_plain_transformers(tied, tmp_path):
    talker(tmp_path / "talker", tie_embeddings=tied)
    write_talks(tmp_path)
    run = prepared(tmp_path, "instruct", ALL)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "talker")
    total = torch.zeros(())
    for ids, places, _, _ in (samples := step(run)):
        logs = theirs(torch.tensor([ids])).logits[0].log_softmax(-1)  # (T, V)
        total = total - sum(logs[at - 1, ids[at]] for at in places)
    loss = total / sum(len(places) for _, places, _, _ in samples)
    loss.backward()
    for name, pieces in EACH:
        found, gradient = gradients(run, Cut(name, pieces=pieces), 0)
        assert found == pytest.approx(loss.item(), rel=SAME)
        ours = their_gradients(run.network(), gradient, tmp_path / name)
        assert furthest(ours, named_gradients(theirs)) < SAME


def test_preferences_as_plain_transformers(tmp_path, monkeypatch):
    talker(tmp_path / "talker")
    talker(tmp_path / "other", seed=5)
    write_talks(tmp_path)
    run = prepared(tmp_path, "prefer", ALL)
    move(monkeypatch, tmp_path)
    base, theirs = (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name)
        for name in ("talker", "other")
    )
    total = torch.zeros(())
    for ids, places, sizes, label in (samples := step(run)):
        gained = []
        for begin, size, known in zip((0, sizes[0]), sizes, label):
            own, at = (
                ids[begin : begin + size],
                [p - begin for p in places if 0 <= p - begin < size],
            )
            said = [answer(model, own, at) for model in (theirs, base)]
            assert said[1].item() == pytest.approx(float(known), rel=SAME)  # the reference
            gained.append(said[0] - said[1].detach())
        total = total - F.logsigmoid(0.1 * (gained[0] - gained[1]))
    loss = total / len(samples)
    loss.backward()
    for name, pieces in EACH:
        found, gradient = gradients(run, Cut(name, pieces=pieces), 0)
        assert found == pytest.approx(loss.item(), rel=SAME)
        ours = their_gradients(run.network(), gradient, tmp_path / name)
        assert furthest(ours, named_gradients(theirs)) < SAME


def test_transformers_opens_what_was_tuned(tmp_path):
    """With the same prompts, and it ends where a turn does."""
    talker(tmp_path / "base", template=None)
    write_talks(tmp_path, 20)
    train(recipe(tmp_path, "instruct", "train.steps=2", model="base"), tmp_path / "run")
    folder = tmp_path / "run" / "model"
    model, theirs = load(folder), transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "repeat red house"}]
    prompt = ChatTemplate.of(model.tokenizer).prompt(messages)
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert list(asked["input_ids"]) == prompt
    end = model.tokenizer.id_of("<|im_end|>")
    assert end in theirs.generation_config.eos_token_id and end in model.config.eos_ids
    with torch.no_grad():
        logits = theirs(torch.tensor([prompt])).logits[0]
        ours = model.network(torch.tensor(prompt), Layout([len(prompt)]))
    assert torch.allclose(ours, logits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_peft_opens_an_adapter_with_new_tokens(tied, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed (it is in the dev extra)")
    talker(tmp_path / "start", template=None, tie_embeddings=tied)
    write_talks(tmp_path, 20)
    changes = ("train.lora={rank: 4}", "train.learning_rate=1e-2")
    train(recipe(tmp_path, "instruct", *changes, model="start"), tmp_path / "run")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "run" / "model").eval()
    model = load(tmp_path / "run" / "model")
    ids = torch.tensor(model.tokenizer.encode("<|im_start|>user\nrepeat red<|im_end|>"))
    with torch.no_grad():
        ours, logits = model.network(ids, Layout([len(ids)])), theirs(ids[None]).logits[0]
    assert torch.allclose(ours, logits, atol=1e-4)


def answer(model, ids: list[int], places: list[int]) -> torch.Tensor:
    logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return torch.stack([logs[at - 1, ids[at]] for at in places]).sum()


def move(monkeypatch, folder: Path) -> None:
    """Runs of which the network has left its reference: it is that of the other folder."""
    monkeypatch.setattr(Tuning, "network", lambda self: load(folder / "other").network)


@pytest.mark.slow
@pytest.mark.skipif(not TRL.exists(), reason="TERCET_PEERS names no environment trl, with TRL")
@pytest.mark.parametrize("kind", ["instruct", "packed", "prefer"])
def test_a_step_as_trl_takes_it(kind, tmp_path, monkeypatch):
    talker(tmp_path / "talker")
    talker(tmp_path / "other", seed=5)
    write_talks(tmp_path, 16)
    rows = tmp_path / f"{'prefer' if kind == 'prefer' else 'instruct'}.jsonl"
    policy = "other" if kind == "prefer" else "talker"
    ours = whole_epoch(tmp_path, rows.stem, monkeypatch if kind == "prefer" else None)
    cuts = [(16, 1), (1 if kind == "packed" else 2, 8)]  # rows at once, and how often
    told = {"place": str(tmp_path), "kind": kind, "rows": str(rows), "cuts": cuts}
    told |= {"policy": str(tmp_path / policy), "reference": str(tmp_path / "talker")}
    trl(tmp_path, told)
    for (_, pieces), (name, own) in ((c, e) for c in cuts for e in EACH):
        loss, gradient = gradients(ours, Cut(name, pieces=own), 0)
        found = json.loads((tmp_path / f"{kind}-{pieces}.json").read_text())
        assert found["rows"] < 16 if kind == "packed" else found["rows"] == 16
        theirs = load_file(tmp_path / f"{kind}-{pieces}.safetensors")
        mine = their_gradients(ours.network(), gradient, tmp_path / f"{name}-{pieces}")
        apart = furthest(mine, theirs)
        print(
            f"{kind}: TRL in {pieces}, ours in {own}: {found['loss']:.7f}, {loss:.7f}, {apart:.1e}"
        )
        assert loss == pytest.approx(found["loss"], rel=SAME)
        assert apart < SAME


@pytest.mark.slow
@pytest.mark.skipif(not TRL.exists(), reason="TERCET_PEERS names no environment trl, with TRL")
def test_a_step_of_rewards_as_trl_takes_it(tmp_path, monkeypatch):
    """The same answers with the same rewards, under a model that has left its reference."""
    talker(tmp_path / "talker")
    talker(tmp_path / "other", seed=5)
    write_talks(tmp_path)
    (tmp_path / "instruct.jsonl").rename(tmp_path / "reward.jsonl")
    (tmp_path / "own.py").write_text("def e(prompt, answer, row): return answer.count('e')")
    own = {"reward": f"{tmp_path}/own.py:e", "max_new_tokens": 8, "samples": 4, "length": 64}
    own |= {"kl": 0.04, "temperature": 0.8}
    ours = prepared(tmp_path, "reward", *(f"objective.{k}={v}" for k, v in own.items()))
    move(monkeypatch, tmp_path)
    found = ours.stream(network=ours.network()).samples(0)
    found = found[: len(found) // 16 * 16]  # as many as eight cuts of two groups of four divide
    groups = [[written(one) for one in found[i : i + 4]] for i in range(0, len(found), 4)]
    (tmp_path / "groups.json").write_text(json.dumps(groups))
    lines = (json.dumps({"prompt": str(number)}) + "\n" for number in range(len(groups)))
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    cuts = [(len(found), 1), (len(found) // 8, 8)]
    told = {"place": str(tmp_path), "kind": "reward", "rows": str(tmp_path / "rows.jsonl")}
    told |= {"cuts": cuts, "groups": str(tmp_path / "groups.json"), **own}
    told |= {"policy": str(tmp_path / "other"), "reference": str(tmp_path / "talker")}
    theirs = trl(tmp_path, told)
    monkeypatch.setattr(Rollouts, "samples", lambda self, step: found)
    monkeypatch.setattr(type(ours), "answers", lambda self, network, questions, step: found)
    for (_, pieces), (name, own) in ((c, e) for c in cuts for e in EACH):
        loss, gradient = gradients(ours, Cut(name, pieces=own), 0)
        mine = their_gradients(ours.network(), gradient, tmp_path / f"{name}-{pieces}")
        apart = furthest(mine, load_file(tmp_path / f"reward-{pieces}.safetensors"))
        print(f"TRL in {pieces}, ours in {own}: {theirs[pieces]:.7f}, {loss:.7f}, {apart:.1e}")
        assert loss == pytest.approx(theirs[pieces], rel=SAME, abs=1e-7)
        assert apart < SAME


def written(one: Rollout) -> dict[str, object]:
    begins = len(one.ids) - len(one.places)
    ids = one.ids.tolist()
    return {"prompt_ids": ids[:begins], "completion_ids": ids[begins:], "worth": one.reward}


def trl(folder: Path, told: dict[str, object]) -> dict[int, float]:
    """The loss of each cut, by its pieces."""
    (folder / "asked.json").write_text(json.dumps(told))
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "PYTHONPATH": ""}
    command = [str(TRL), str(SCRIPT), str(folder / "asked.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    read = (json.loads((folder / f"{told['kind']}-{n}.json").read_text()) for _, n in told["cuts"])
    return {pieces: facts["loss"] for (_, pieces), facts in zip(told["cuts"], read)}


def whole_epoch(folder: Path, kind: str, monkeypatch):
    """A run of which a step reads every row once."""
    (folder / "held").mkdir()
    write_talks(folder / "held", 2)
    own = f"data.validation=[{folder}/held/{kind}.jsonl]"
    run = prepared(folder, kind, own)
    if monkeypatch is not None:
        move(monkeypatch, folder)
    tokens = run.corpus.sources["text"].train.n_tokens
    batch = dataclasses.replace(run.recipe.batch, tokens=tokens)
    return run.with_recipe(dataclasses.replace(run.recipe, batch=batch))

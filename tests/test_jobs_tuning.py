"""Objectives instruct and prefer: how a step is cut, interruptions, adapters, new tokens, what is
refused and what is counted."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_talks import ANSWER, TEMPLATE, prepared, recipe, talker, write_talks

import tercet
from tercet.errors import InputError
from tercet.jobs.train.job import train
from tercet.jobs.train.replay import replay
from tercet.jobs.train.run import Run
from tercet.jobs.train.tuning import Tuning
from tercet.jobs.train.validation import Validation
from tercet.jobs.train.verify import TOLERANCE, Cut, measured
from tercet.model.linear import PackedLinear
from tercet.model.lora import adapters
from tercet.train.log import rows

KINDS = ("instruct", "prefer")
LORA = "train.lora={rank: 4}"
QUESTION = [{"role": "user", "content": "repeat red house"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A model with a template, one without, and conversations."""
    folder = tmp_path_factory.mktemp("talks")
    talker(folder / "talker")
    talker(folder / "base", template=None)
    write_talks(folder)
    return folder


def tuned(place: Path, folder: Path, kind: str, *changes: str, model: str = "talker") -> Path:
    train(recipe(place, kind, *changes, model=model), folder)
    return folder


# a step -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_alone_and_cut_equals_whole(kind, place, tmp_path):
    run = Run.of(tmp_path / "run", recipe(place, kind))
    run.prepare()
    cuts = [Cut("whole"), Cut("four", pieces=4), Cut("alone", alone=True)]
    (loss, whole), *others = measured([(run, cut) for cut in cuts], 1)
    for other, gradient in others:
        assert other == pytest.approx(loss, rel=1e-6)
        assert float((gradient - whole).norm() / whole.norm()) < TOLERANCE


def test_only_answers_are_targets_and_none_sees_another(place, tmp_path):
    run = Run.of(tmp_path / "run", recipe(place, "instruct"))
    run.prepare()
    (batch,) = run.stream()(0)
    template, tokenizer = tercet.ChatTemplate.of(run.tokenizer), run.tokenizer
    said = tokenizer.decode(batch.targets.tolist(), skip_special=False)
    answers = [
        message["content"] + "<|im_end|>"
        for line in (place / "instruct.jsonl").read_text().splitlines()
        for message in json.loads(line)["messages"]
        if message["role"] == "assistant"
    ]
    parts = [part + "<|im_end|>" for part in said.split("<|im_end|>")[:-1]]
    assert parts and set(parts) <= set(answers)
    ends = tokenizer.id_of("<|im_end|>")
    assert (batch.targets == ends).sum() == len(parts)  # and every turn's end is learned
    assert batch.layout.n_sequences == len(batch.keys) and max(batch.layout.positions) < 96
    assert template.hash == run.template.hash


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [(), (LORA,)], ids=["full", "lora"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_stopped(kind, changes, place, tmp_path):
    whole = tuned(place, tmp_path / "whole", kind, *changes, model="base")
    wanted = recipe(place, kind, *changes, model="base")
    with pytest.MonkeyPatch.context() as patch:
        evaluate = Validation.__call__

        def interrupted(self, state):
            evaluate(self, state)
            os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(Validation, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(wanted, tmp_path / "cut")
    assert train(wanted, tmp_path / "cut", resume=True).startswith("6 steps")
    losses = [
        [row["loss"] for row in rows(f / "log.jsonl", "step")] for f in (whole, tmp_path / "cut")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    name = "adapter_model.safetensors" if changes else "model.safetensors"
    first, second = (load_file(f / "model" / name) for f in (whole, tmp_path / "cut"))
    assert all(torch.equal(first[key], second[key]) for key in first.keys() | second.keys())


def test_validation_is_the_mean_surprise_of_an_answers_token(place, tmp_path):
    folder = tuned(place, tmp_path / "run", "instruct")
    model, run = tercet.load(folder / "model"), Run.open(folder)
    total, count = 0.0, 0
    for samples in run.draw(validation=True).epoch(0):
        for sample in samples:
            logs = model.network(sample.ids, tercet_layout(sample.ids)).log_softmax(-1)
            at = sample.places
            total -= float(logs[at - 1, sample.ids[at]].detach().sum())
            count += len(sample.places)
    (*_, last) = rows(folder / "log.jsonl", "evaluation")
    assert last["loss"] == pytest.approx(total / count, rel=1e-5)
    assert last["perplexity"] == pytest.approx(2.718281828 ** last["loss"], rel=1e-6)


def tercet_layout(ids: torch.Tensor):
    from tercet.model import Layout

    return Layout([len(ids)])


# the model ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_begin_in_the_middle_and_come_with_the_model(tied, place, tmp_path):
    talker(tmp_path / "base", template=None, tie_embeddings=tied)
    write_talks(tmp_path, 30)
    run = prepared(tmp_path, "instruct", model="base")
    before, after = tercet.load(tmp_path / "base"), run.network()
    known = before.tokenizer.vocab_size
    assert run.template.added == ("<|im_start|>", "<|im_end|>")
    for name in ("tokens.weight", "heads.output.weight"):
        old, new = before.network.get_parameter(name), after.get_parameter(name)
        assert torch.equal(new[:known], old[:known]) and len(new) == known + 2
        assert (new[known:] - old[:known].mean(0)).abs().max() < 0.1 * old.std()
        assert not torch.equal(new[known], new[known + 1])
    assert (after.tokens.weight is after.heads.output.weight) == tied
    ids = torch.tensor(before.tokenizer.encode("the red house"))
    layout = tercet_layout(ids)
    chance = after(ids, layout).softmax(-1)[:, known:].sum(-1)
    assert chance.max() < 4 / known  # two tokens' share of all, and a little
    folder = tuned(tmp_path, tmp_path / "out", "instruct", model="base") / "model"
    model = tercet.load(folder)
    assert model.config.vocab_size == known + 2
    assert model.config.eos_ids[0] == model.tokenizer.id_of("<|im_end|>")
    template = tercet.ChatTemplate.of(model.tokenizer)
    assert template.hash == run.template.hash and template.given and not template.added


def test_a_template_that_is_not_the_tuned_one_is_refused(place, tmp_path):
    folder = tuned(place, tmp_path / "run", "instruct") / "model"
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    assert settings["chat_template"] == TEMPLATE and settings["chat_template_hash"]
    settings["chat_template"] = TEMPLATE.replace("user", "User").replace("+ '\n'", "+ ' '")
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match="tuned with the chat template"):
        tercet.ChatTemplate.of(tercet.load(folder).tokenizer)
    wanted = recipe(place, "prefer", f"model.folder={folder}")
    with pytest.raises(InputError, match="tuned with the chat template"):
        train(wanted, tmp_path / "next")


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_an_adapter_learns_over_weights_of_few_bits(bits, place, tmp_path):
    changes = (LORA, f"model.precision={bits}", "train.steps=20", "train.learning_rate=1e-2")
    folder = tuned(place, tmp_path / "run", "instruct", *changes)
    losses = [row["loss"] for row in rows(folder / "log.jsonl", "step")]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    run = Run.open(folder)
    network = run.network()
    packed = [m for m in network.modules() if isinstance(m, PackedLinear)]
    assert len(packed) == len(adapters(network)) and packed[0].packed.bits == int(bits[3:])
    model = tercet.load(folder / "model", precision=bits)  # the base, rounded, and the adapter
    (batch,) = run.stream()(0)
    assert run.measure(model.network, batch).item() / batch.n_targets < 0.8 * losses[0]


def test_gradients_go_through_weights_of_few_bits(place, tmp_path):
    """As through the matrix that the bits stand for; what lies below is all learned by this way."""
    from tercet.kernels.packed import pack
    from tercet.model.linear import Linear, together

    draw = torch.Generator().manual_seed(0)
    layers = [Linear(32, 16, bias=True), Linear(32, 16, bias=True)]
    few = [PackedLinear(pack(layer.weight, 8), layer.bias) for layer in layers]
    x = torch.randn(5, 32, generator=draw)
    wanted = sum(one.packed.unpacked().sum(0) for one in few).expand(5, -1)
    x.requires_grad_(True)
    found = together(x, *few)
    torch.cat(found, 1).sum().backward()
    assert torch.allclose(x.grad, wanted, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(found, together(x.detach(), *few)))


def test_preferences_follow_supervised_tuning_with_adapters(place, tmp_path):
    first = tuned(place, tmp_path / "first", "instruct", LORA, model="base")
    assert sorted(
        p.name for p in (first / "base").iterdir()
    )  # the table has grown: a base of its own
    changes = (
        LORA,
        f"model.folder={first / 'model'}",
        "train.steps=20",
        "train.learning_rate=1e-2",
    )
    second = tuned(place, tmp_path / "second", "prefer", *changes)
    steps = list(rows(second / "log.jsonl", "step"))
    assert steps[0]["loss"] == pytest.approx(0.6931472, abs=1e-6)  # nothing has moved yet
    assert steps[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert steps[-1]["margin"] > 0.1 and steps[-1]["accuracy"] > 0.8
    (*_, last) = rows(second / "log.jsonl", "evaluation")
    assert last["accuracy"] > 0.8 and "perplexity" not in last
    model = tercet.load(second / "model")
    assert tercet.ChatTemplate.of(model.tokenizer).prompt(QUESTION)
    whole = model.merged().network
    (batch,) = Run.open(second).stream()(0)
    assert Run.open(second).measure(whole, batch).item() / batch.counts[0] < 0.68


def test_the_reference_is_computed_once_and_goes_on_where_it_was(place, tmp_path, monkeypatch):
    run = Run.of(tmp_path / "run", recipe(place, "prefer"))
    run.prepare()
    path = run.folder / "reference" / "text.train"
    whole = path.read_bytes()
    n = len(run.corpus.sources["text"].train) // 2
    assert len(whole) == 16 * n
    calls = []
    says = Tuning._says.func

    def counted(self):
        measure = says(self)
        return lambda batch: calls.append(len(batch.groups)) or measure(batch)

    monkeypatch.setattr(Tuning, "_says", property(counted))
    Run.of(run.folder, run.recipe).prepare()
    assert not calls
    path.write_bytes(whole[: 16 * (n - 3) + 5])  # a kill in the middle of a pair
    Run.of(run.folder, run.recipe).prepare()
    assert sum(calls) == 3
    assert np.fromfile(path) == pytest.approx(np.frombuffer(whole), rel=1e-5)
    calls.clear()
    talker(tmp_path / "other", seed=9)
    Run.of(run.folder, recipe(place, "prefer", f"model.folder={tmp_path / 'other'}")).prepare()
    assert (
        sum(calls)
        == len(run.corpus.sources["text"].train) // 2
        + len(run.corpus.sources["text"].validation) // 2
    )


def test_a_step_is_replayed_and_shown(place, tmp_path, capsys):
    from tercet import cli

    folder = tuned(place, tmp_path / "run", "prefer", "checkpoint.keep=9")
    found = replay(Run.open(folder), 4)
    logged = [row["loss"] for row in rows(folder / "log.jsonl", "step")]
    assert found["loss"] == pytest.approx(logged[4], rel=1e-5)
    for words in (["--step", "4"], [], ["--document", "1"]):
        assert cli.run(["data", "show", str(folder), *words]) == 0
    shown = capsys.readouterr().out
    assert "prefer.jsonl, document" in shown and "<|im_start|>assistant" in shown
    assert cli.run(["report", str(folder)]) == 0
    assert "gained more" in (folder / "report.html").read_text()


# what is refused, and what is counted -------------------------------------------------------------


def lines(path: Path, *found: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return f"data.files=[{path}]"


def ask(content: str, answer: str) -> dict:
    turns = [("user", content), ("assistant", answer)]
    return {"messages": [{"role": role, "content": said} for role, said in turns]}


@pytest.mark.parametrize(
    "kind, changes, said",
    [
        ("instruct", ["tokenizer={kind: bytes}"], "leave tokenizer out"),
        ("instruct", ["model={preset: tercet-tiny-decoder}"], "set model.folder"),
        ("instruct", ["model.precision=int8"], "set train.lora"),
        ("instruct", ["data.split=line"], "split is not for"),
        ("instruct", ["objective.packing=rows"], "do not see each other"),
        ("instruct", ["objective.overflow=cut"], "'cut' is unknown.*leave-out"),
        ("instruct", ["objective.length=4096"], "beyond the model's context of 128"),
        ("instruct", ["objective.length=8"], "nothing is left to learn from"),
        ("instruct", ["data.form=alpacca"], "did you mean 'alpaca'"),
        ("prefer", ["objective.beta=0"], "beta 0.0 must be above 0"),
        ("prefer", ["objective.r_drop=1"], "not for kind prefer"),
        ("instruct", ["train.lora={rank: 4, targets: [query]}"], "no linear layer is called"),
        ("instruct", ["train.lora={rank: 0}"], "rank 0 must be a whole number of 1 or more"),
        ("instruct", ["data.validation=1.5"], "validation 1.5 must be"),
        ("prefer", ["data.validation=0.0001"], "nothing of text is for validation"),
        ("instruct", ["objective.kind=next-token", LORA], "train.lora and model.precision"),
    ],
)
def test_recipes_that_cannot_be(kind, changes, said, place, tmp_path):
    with pytest.raises(InputError, match=said):
        train(recipe(place, kind, *changes), tmp_path / "run")


def test_rows_that_cannot_be_learned_from(place, tmp_path):
    file = tmp_path / "rows.jsonl"
    answered = {"prompt": "a", "chosen": "the same", "rejected": " the same "}
    for kind, row, said in (
        ("prefer", answered, "rows.jsonl, line 2: chosen and rejected are the same"),
        ("instruct", {**ask("a", "b"), "messages": ask("a", "b")["messages"][:1]}, "line 2"),
        ("instruct", {"prompt": "a", "chosen": "b", "rejected": "c"}, "line 2"),
    ):
        first = {**answered, "rejected": "other"} if kind == "prefer" else ask("a", "b")
        with pytest.raises(InputError, match=said):
            train(recipe(place, kind, lines(file, first, row)), tmp_path / "run")
    pairs = lines(file, {"prompt": "a", "chosen": "b", "rejected": "c"})
    with pytest.raises(InputError, match="holds 1 pairs of answers.*take kind 'prefer'"):
        train(recipe(place, "instruct", pairs), tmp_path / "run")
    with pytest.raises(InputError, match="take kind 'instruct'"):
        train(recipe(place, "prefer", lines(file, ask("a", "b"))), tmp_path / "run")


NO_MASK = "{% generation %}{% endgeneration %}{{ message.content + '<|im_end|>' }}"
NO_END = "{% generation %}{{ message.content }}{% endgeneration %}{{ '<|im_end|>' }}"


@pytest.mark.parametrize(
    "template, said",
    [
        (TEMPLATE.replace(ANSWER, NO_MASK), "nothing of it would be learned"),
        (TEMPLATE.replace(ANSWER, NO_END), "would never stop"),
        ("{{ eos_token + eos_token }}" + TEMPLATE, "twice"),
    ],
    ids=["no mask", "no end", "two beginnings"],
)
def test_templates_that_would_teach_the_wrong_thing(template, said, place, tmp_path):
    talker(tmp_path / "talker", template=template)
    write_talks(tmp_path, 8)
    if said == "twice":
        path = tmp_path / "talker" / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({**settings, "bos_token": settings["eos_token"]}))
    with pytest.raises(InputError, match=f"instruct.jsonl, line \\d+: .*{said}"):
        train(recipe(tmp_path, "instruct"), tmp_path / "run")


def test_blanks_behind_the_end_of_a_turn_hide_it_from_nobody(tmp_path):
    talker(
        tmp_path / "talker",
        template=TEMPLATE.replace("<|im_end|>' }}{% endg", "<|im_end|>\n' }}{% endg"),
    )
    write_talks(tmp_path, 30)
    run = prepared(tmp_path, "instruct")
    assert run.tokenizer.id_of("<|im_end|>") in run.config.eos_ids


def test_pairs_that_the_length_makes_alike_are_left_out(place, tmp_path):
    def pair(n: int, same: str) -> dict[str, str]:
        return {"prompt": f"repeat {n}", "chosen": f"{same} one", "rejected": f"{same} two"}

    rows = [pair(n, "the " * 120) for n in range(5)] + [pair(n, "the") for n in range(12)]
    file = lines(tmp_path / "rows.jsonl", *rows)
    run = Run.of(tmp_path / "run", recipe(place, "prefer", file, "objective.overflow=keep-start"))
    run.prepare()
    (source,) = run.corpus.manifest.sources.values()
    assert source.train.documents + source.validation.documents == 2 * 12
    assert source.skipped == {"pairs of answers longer than 96 tokens": 5}


@pytest.mark.parametrize("overflow", ["leave-out", "keep-start", "error"])
def test_conversations_beyond_the_length_are_counted(overflow, place, tmp_path, capsys):
    long = ask("repeat one", "one " * 120)
    short = [ask(f"repeat {n}", f"the {n}") for n in range(12)]
    late = ask("two " * 120, "two")  # cut before its answer begins
    changes = [lines(tmp_path / "rows.jsonl", long, late, *short), f"objective.overflow={overflow}"]
    wanted = recipe(place, "instruct", *changes)
    if overflow == "error":
        with pytest.raises(InputError, match="line 1: has .* tokens, more than the length of 96"):
            train(wanted, tmp_path / "run")
        return
    train(wanted, tmp_path / "run", quiet=False)
    run = Run.open(tmp_path / "run")
    (source,) = run.corpus.manifest.sources.values()
    documents = source.train.documents + source.validation.documents
    if overflow == "leave-out":
        assert source.skipped == {"conversations longer than 96 tokens": 2}
        assert documents == 12
    else:
        assert source.skipped["conversations longer than 96 tokens"] == 1
        assert source.skipped["ends of conversations beyond 96 tokens"] == 1
        assert documents == 13 and source.train.lengths["document"]["100"] == 96
    assert "conversations longer than 96 tokens" in capsys.readouterr().err
    (begun,) = rows(tmp_path / "run" / "log.jsonl", "event")
    assert "left out" in begun["about"]

"""Runs from recipes: the three families, interruptions of every kind, two processes, trouble."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import recipe_file, train_small

import tercet
from tercet import cli
from tercet.errors import InputError
from tercet.files import locked
from tercet.jobs import recipe as recipes
from tercet.jobs.train.job import train
from tercet.jobs.train.replay import replay
from tercet.jobs.train.run import Run
from tercet.jobs.train.verify import TOLERANCE, verify
from tercet.train.log import rows

WORDS = (
    "the a one two red blue old new house tree river road sees finds keeps takes over under".split()
)

TEXTS = """
tokenizer: {{kind: {kind}, vocab_size: {vocab}}}
data: {{files: ["{folder}/texts.txt"], validation: 0.2, split: line}}
"""
SIZE = "d_model: 32, d_ff: 48, n_heads: 2, context_length: 64"
REST = """
batch: {{tokens: 300}}
train: {{steps: {steps}, warmup: 3, learning_rate: 1e-2}}
evaluate: {{every: 10}}
checkpoint: {{every: 5}}
"""
FAMILIES = {
    "next-token": "model: {{preset: tercet-tiny-decoder, change: {{{size}, decoder_layers: 2}}}}"
    "\nobjective: {{kind: next-token, length: 32}}",
    "masked": "model: {{preset: tercet-tiny-encoder, change: {{{size}, encoder_layers: 2}}}}"
    "\nobjective: {{kind: masked, length: 32, whole_words: true}}",
    "next-sentence": "model: {{preset: bert-tiny, change: {{{size}, encoder_layers: 2}}}}"
    "\nobjective: {{kind: masked, length: 32, next_sentence: true}}",
    "spans": "model: {{preset: tercet-tiny-encoder-decoder, change: {{{size}, encoder_layers: 1,"
    " decoder_layers: 1}}}}\nobjective: {{kind: spans, length: 32}}",
    "pairs": "model: {{preset: tercet-tiny-encoder-decoder, change: {{{size}, encoder_layers: 1,"
    " decoder_layers: 1}}}}\nobjective: {{kind: pairs, length: 32, smoothing: 0.1}}",
}


def write_texts(folder: Path) -> None:
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS, k=draw.randint(4, 20))) for _ in range(200)]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n")
    (folder / "turned.txt").write_text("\n".join(line[::-1] for line in lines) + "\n")


def recipe_of(folder: Path, family: str, steps: int = 20, kind: str = "bpe") -> Path:
    """A recipe file of a family, with its texts beside it."""
    write_texts(folder)
    text = (FAMILIES[family] + TEXTS + REST).format(
        size=SIZE, kind=kind, folder=folder, steps=steps, vocab=400
    )
    if family == "pairs":
        one = f'files: ["{folder}/texts.txt"], validation: 0.2, split: line'
        two = f"source: {folder}/texts.txt, target: {folder}/turned.txt, validation: 0.2"
        text = text.replace(one, two)
    path = folder / f"{family}.yaml"
    path.write_text(text)
    return path


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in rows(folder / "log.jsonl", "step")]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_trained_from_files_to_a_folder_that_loads(family: str, tmp_path: Path):
    kind = "wordpiece" if family in ("masked", "next-sentence") else "bpe"
    recipe = recipe_of(tmp_path, family, kind=kind)
    assert cli.run(["train", str(recipe), "--folder", str(tmp_path / "run"), "--quiet"]) == 0
    found = losses(tmp_path / "run")
    assert [step for step, _ in found] == list(range(1, 21))
    assert found[-1][1] < found[0][1]
    model = tercet.load(tmp_path / "run" / "model")
    assert model.embed("the old house").shape == (32,)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["step"] == 20 and result["loss"] < found[0][1]


# nothing lost ------------------------------------------------------------------------------------


def start(recipe: Path, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tercet", "train", str(recipe), "--folder", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, "--resume", "--quiet", *more], **quiet)


def killed_until_done(recipe: Path, folder: Path, kills: int, draw: random.Random) -> int:
    """Runs and kills -9 until it is done; how many kills there were. The later ones come when
    steps are being taken, not while Python starts."""
    done = 0
    while True:
        process = start(recipe, folder)
        if done < kills:
            before = len(losses(folder))
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if len(losses(folder)) > before or draw.random() < 0.002:
                    break
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.3))
        if done < kills and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            continue
        assert process.wait() == 0, process.stderr.read().decode() if process.stderr else ""
        return done


def same(one: Path, other: Path) -> None:
    """Weights, corpus and losses are identical, bit for bit."""
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses(one) == losses(other)
    for path in (one / "data").rglob("*"):
        if path.is_file() and path.name != ".lock":
            mirrored = other / path.relative_to(one)
            assert path.read_bytes() == mirrored.read_bytes(), path


def test_a_run_that_is_killed_twice_ends_as_if_it_had_not_been(tmp_path: Path):
    recipe = recipe_of(tmp_path, "next-token", steps=80)
    train(recipes.load(str(recipe)), tmp_path / "whole")
    assert killed_until_done(recipe, tmp_path / "killed", 2, random.Random(1)) == 2
    same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["next-token", "masked", "pairs"])
def test_twenty_kills_at_random_moments(family: str, tmp_path: Path):
    recipe = recipe_of(tmp_path, family, steps=600)
    train(recipes.load(str(recipe)), tmp_path / "whole")
    kills = killed_until_done(recipe, tmp_path / "killed", 20, random.Random(2))
    assert kills == 20
    same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_as_a_cpu_does_and_goes_on_after_a_kill(tmp_path: Path):
    recipe = recipe_of(tmp_path, "next-token", steps=80)
    train(recipes.load(str(recipe)), tmp_path / "whole")
    run = Run.open(tmp_path / "whole")
    assert next(run.network().parameters()).is_cuda
    assert killed_until_done(recipe, tmp_path / "killed", 2, random.Random(1)) == 2
    command = [sys.executable, "-m", "tercet", "train", str(recipe), "--folder", "cpu", "--quiet"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, check=True, cwd=tmp_path, env=hidden)
    for step, loss in losses(tmp_path / "whole"):
        for other in ("killed", "cpu"):
            assert dict(losses(tmp_path / other))[step] == pytest.approx(loss, rel=1e-3), step


def test_a_clock_that_has_decided_is_replayed_after_a_kill(tmp_path: Path):
    recipe = recipe_of(tmp_path, "next-token", steps=1)
    process = start(recipe, tmp_path / "run", "--budget", "20s", "--set", "checkpoint.every=100000")
    while not list(rows(tmp_path / "run" / "log.jsonl", "plan")) and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    (planned,) = rows(tmp_path / "run" / "log.jsonl", "plan")
    run = Run.open(tmp_path / "run")
    assert planned["steps"] > planned["step"]
    log = tmp_path / "run" / "log.jsonl"  # a short end, so that the test is
    log.write_text(log.read_text().replace(f'"steps": {planned["steps"]}', '"steps": 40', 1))
    again = ["--budget", "20s", "--set", "checkpoint.every=100000"]
    assert start(recipe, run.folder, *again).wait() == 0
    assert losses(run.folder)[-1][0] == max(40, planned["step"])


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path):
    recipe = recipe_of(tmp_path, "next-token", steps=100_000)
    process = start(recipe, tmp_path / "run", "--set", "checkpoint.every=100000")
    while len(losses(tmp_path / "run")) < 5 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    saved = Run.open(tmp_path / "run")
    latest = (saved.folder / "checkpoints" / "latest").read_text()
    assert int(latest.removeprefix("step-")) == losses(saved.folder)[-1][0]


def test_a_run_goes_on_only_with_the_recipe_that_it_had(tmp_path: Path):
    folder = train_small(tmp_path)
    recipe = str(recipe_file(tmp_path))
    with pytest.raises(InputError, match=r"holds a run; --resume goes on"):
        train(recipes.load(recipe), folder)
    changed = recipes.load(recipe, ["train.learning_rate=0.5", "evaluate.prompts=[x]"])
    with pytest.raises(InputError, match=r"train.learning_rate was 0.003, is 0.5.*may change"):
        train(changed, folder, resume=True)
    train(recipes.load(recipe, ["evaluate.prompts=[x]"]), folder, resume=True)


def test_a_recipe_of_which_nothing_came_may_be_mended(tmp_path: Path):
    recipe = str(recipe_file(tmp_path))
    with pytest.raises(InputError, match="txets.txt"):
        train(recipes.load(recipe, ["data.files=[txets.txt]"]), tmp_path / "run")
    assert "2 steps" in train(recipes.load(recipe, ["train.steps=2"]), tmp_path / "run")


@pytest.mark.parametrize(
    "changes, said",
    [
        (["data.validation=0"], "no texts for validation"),
        (["objective.packing=rows", "data.validation=0.02"], "(?i)row|token"),
    ],
)
def test_a_validation_split_that_cannot_be_measured_is_refused_before_the_first_step(
    changes: list[str], said: str, tmp_path: Path
):
    with pytest.raises(InputError, match=said):
        train(recipes.load(str(recipe_file(tmp_path)), changes), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_was_prepared_once_is_trained_on_as_it_is(tmp_path: Path):
    """The same steps as from the files; refused with another tokenizer, kind or source."""
    file = recipe_file(tmp_path)
    plain = train_small(tmp_path)
    args = ["--split", "line", "--tokenizer", "bytes", "--validation", "0.3"]
    out = ["--out", str(tmp_path / "tokens"), "--quiet"]
    assert cli.run(["data", "prepare", f"text={tmp_path / 'texts.txt'}", *args, *out]) == 0
    text = file.read_text()
    data = next(line for line in text.splitlines() if line.startswith("data:"))
    text = text.replace(data, f"data: {{prepared: {tmp_path / 'tokens'}}}")
    folder = f"tokenizer: {{folder: {tmp_path / 'tokens' / 'tokenizer'}}}"
    file.write_text(text.replace("tokenizer: {kind: bytes}", folder))
    train(recipes.load(str(file)), tmp_path / "again")
    assert losses(tmp_path / "again") == losses(plain)
    assert not (tmp_path / "again" / "data").exists()
    for changes, said in (
        (["objective.kind=pairs", "model.preset=tercet-tiny-encoder-decoder"], "holds text"),
        (["data.validation=0.3"], "leave out validation"),
        ([f"data.prepared={tmp_path / 'none'}"], "none: no prepared data"),
        (["tokenizer.folder=null", "tokenizer.kind=bytes"], "set tokenizer.folder to .*tokenizer"),
    ):
        with pytest.raises(InputError, match=said):
            train(recipes.load(str(file), changes), tmp_path / "refused")
    other = train_small(tmp_path / "b", "tokenizer.kind=characters")
    with pytest.raises(InputError, match="prepared with another tokenizer"):
        changes = [f"tokenizer.folder={other / 'data' / 'tokenizer'}"]
        train(recipes.load(str(file), changes), tmp_path / "refused")


def test_an_altered_shard_is_found_when_a_run_is_taken_up(tmp_path: Path):
    folder = train_small(tmp_path, "train.steps=4")
    (folder / "result.json").unlink()
    (shard,) = (folder / "data").glob("*.train.*.tokens")
    data = bytearray(shard.read_bytes())
    data[5] ^= 1
    shard.write_bytes(data)
    wanted = recipes.load(str(recipe_file(tmp_path)), ["train.steps=4"])
    with pytest.raises(InputError, match=f"{shard.name}.*altered"):
        train(wanted, folder, resume=True)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's /proc/meminfo")
def test_too_little_memory_is_said_before_and_with_fit_smaller_batches_are_taken(
    tmp_path: Path, monkeypatch, capsys
):
    from tercet.jobs.train import memory

    plain = memory.Need.total.fget
    monkeypatch.setattr(
        memory.Need,
        "total",
        property(lambda need: plain(need) + (1 << 60 if need.micro_tokens > 200 else 0)),
    )
    wanted = recipes.load(str(recipe_file(tmp_path)), ["train.steps=2"])
    train(wanted, tmp_path / "run", quiet=False)
    assert "may be more than the memory that is free; --fit" in capsys.readouterr().err
    train(wanted, tmp_path / "other", fit=True)
    assert "going on with batch.micro_tokens=128" in capsys.readouterr().err
    assert Run.open(tmp_path / "other").recipe.batch.micro_tokens == 128


def test_one_process_at_a_time_in_a_run_folder(tmp_path: Path):
    recipe = recipes.load(str(recipe_file(tmp_path)))
    with locked(tmp_path / "run"), pytest.raises(InputError, match=f"process {os.getpid()}"):
        train(recipe, tmp_path / "run")


def test_early_stopping_keeps_the_best_weights(tmp_path: Path):
    folder = train_small(
        tmp_path,
        *("train.learning_rate=1.0", "train.steps=200", "evaluate.every=3", "evaluate.patience=2"),
        *("train.spike=0", "train.schedule=constant"),
    )
    result = json.loads((folder / "result.json").read_text())
    assert "no better validation loss in 2" in result["stopped"]
    assert result["best_step"] == result["step"] - 6
    run = Run.open(folder)
    from tercet.jobs.train.validation import validation_loss

    model = tercet.load(folder / "model")
    assert validation_loss(run, model.network) == pytest.approx(result["loss"], rel=1e-5)


# many processes ----------------------------------------------------------------------------------


def test_two_processes_train_as_one_does(tmp_path: Path):
    recipe = recipe_of(tmp_path, "pairs", steps=10)
    train(recipes.load(str(recipe)), tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "tercet", "train", str(recipe), "--quiet"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    for (_, one), (_, two) in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-4)
    first, second = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")
    )
    for name, tensor in first.items():  # an update follows a tiny gradient's sign: not each number
        assert float((tensor - second[name]).norm() / tensor.norm()) < 1e-2, name


@pytest.mark.parametrize("family", ["next-token", "next-sentence", "pairs"])
def test_verify_finds_one_gradient_for_all_cuts(family: str, tmp_path: Path):
    wanted = recipes.load(str(recipe_of(tmp_path, family)), ["train.steps=1"])
    found = verify(wanted, tmp_path / "run")
    assert len(found) == 12 and max(row["difference"] for row in found) <= TOLERANCE
    assert found[0]["difference"] == 0 and found[6]["loss"] != found[0]["loss"]


def test_verify_of_a_run_that_goes_on_from_a_model(tmp_path: Path):
    recipe = str(recipe_of(tmp_path, "next-token"))
    train(recipes.load(recipe, ["train.steps=1"]), tmp_path / "run")
    folder = f"model={{folder: {tmp_path / 'run' / 'model'}}}"
    found = verify(recipes.load(recipe, [folder]), tmp_path / "on")
    assert len(found) == 12 and max(row["difference"] for row in found) <= TOLERANCE


def test_the_whole_steps_gradient_is_that_of_a_plain_loop_in_float64(tmp_path: Path):
    from tercet.jobs.train.verify import CUTS, gradients
    from tercet.model import flatten

    wanted = recipes.load(str(recipe_of(tmp_path, "next-token")))
    verify(wanted, tmp_path / "run")
    run = Run(tmp_path / "run", wanted)
    _, ours = gradients(run, CUTS[2], 0)
    network = run.network().double()
    total, targets = torch.zeros((), dtype=torch.float64), 0
    for sample in run.stream().samples(0):  # each text by itself, each token by itself
        assert sample.targets is not None
        tokens, layout = flatten([sample.ids.tolist()])
        logits = network(tokens, layout)[: len(sample.targets)]
        for row, target in zip(logits, sample.targets):
            total = total - row.log_softmax(-1)[target]
            targets += 1
    (total / targets).backward()
    plain = torch.cat([p.grad.flatten() for p in network.parameters()])
    assert float((ours.double() - plain).norm() / plain.norm()) < 1e-5


# trouble -----------------------------------------------------------------------------------------


def test_a_run_that_breaks_is_replayed_to_the_layer_and_the_text(tmp_path: Path):
    wanted = recipes.load(
        str(recipe_file(tmp_path)), ["train.on_trouble=stop", "train.learning_rate=1e25"]
    )
    with pytest.raises(InputError, match=r"step \d+: the loss is nan.*tercet replay .*run@\d+"):
        train(wanted, tmp_path / "run")
    (record,) = (tmp_path / "run" / "recorder").glob("step-*.json")
    step = int(record.stem.removeprefix("step-"))
    found = replay(Run.open(tmp_path / "run"), step)
    assert found["forward"] and found["document"]
    assert found["samples"][0]["text"] == found["document"]


def test_replay_takes_the_steps_between_again(tmp_path: Path):
    folder = train_small(tmp_path, "checkpoint.keep=3")
    run = Run.open(folder)
    logged = dict(losses(folder))
    for step in (6, 8, 11):
        assert replay(run, step)["loss"] == pytest.approx(logged[step + 1], rel=1e-5)
    assert cli.run(["replay", f"{folder}@8"]) == 0
    assert cli.run(["replay", f"{folder}"]) == 2


MEMORY = """
import resource, sys
from tercet.jobs import recipe as recipes
from tercet.jobs.train.job import train
from tercet.errors import InputError
import torch
torch.set_num_threads(1)
from tercet.jobs.train.run import Run
wanted = recipes.load(sys.argv[1], ["batch.tokens=60000", "objective.length=64", "train.steps=2",
  "model.change.d_model=256", "model.change.n_heads=4", "model.change.d_ff=1024"])
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * 4096 + 1400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    print(train(wanted, __import__("pathlib").Path(sys.argv[2]), fit=sys.argv[3] == "fit"))
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sets Linux's limit on address space")
@pytest.mark.parametrize("fit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_out_of_memory_answers_with_what_fits_or_takes_it(fit: bool, tmp_path: Path):
    recipe = recipe_of(tmp_path, "next-token")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(recipe), str(tmp_path / "run"), "fit" if fit else "no"],
        capture_output=True,
        text=True,
        # the limit is on addresses, which glibc reserves generously and gives back late
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"},
    )
    assert done.returncode == 0, done.stderr
    if fit:
        assert "2 steps in" in done.stdout and "going on with batch.micro_tokens=" in done.stderr
        assert Run.open(tmp_path / "run").recipe.batch.micro_tokens  # a resume takes it again
    else:
        assert "does not suffice" in done.stdout and "(1) batch.micro_tokens=30000" in done.stdout


def test_pairs_that_are_too_long_are_counted_aloud(tmp_path: Path, capsys):
    path = recipe_of(tmp_path, "pairs", steps=2)
    train(recipes.load(str(path), ["objective.length=12"]), tmp_path / "run", quiet=False)
    assert re.search(
        r"\d+ pairs longer than objective.length are left out", capsys.readouterr().err
    )

"""tercet finetune --ladder: where it stops, what it keeps, and that nothing is lost on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_tables import WORDS, label_of, model_folder, sentences, table

from tercet import cli
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import finetune
from tercet.jobs.finetune.classify import ClassifyTask, classify
from tercet.jobs.finetune.ladder import choose
from tercet.jobs.finetune.rungs import FEW_SHOT, FULL, LORA, PROBE, Rungs, partners, step_back
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.finetune.splits import held_back, stratified
from tercet.language_model import load
from tercet.model import Network
from tercet.represent.classify import features
from tercet.train.log import rows

FAST = (
    *("train.learning_rate=3e-3", "train.epochs=2", "train.rows=16", "train.dropout=0.0"),
    *("ladder.steps=60", "ladder.pairs=320"),
)


def either(n: int, seed: int) -> list[tuple[str, str]]:
    """Texts labelled by whether one of red and blue stands in them, and not both: what no sum over
    the words tells."""
    draw, found = random.Random(seed), []
    rest = [word for word in WORDS if word not in ("red", "blue")]
    for i in range(n):
        words = draw.choices(rest, k=draw.randint(3, 5))
        for there, word in ((i % 2, "red"), (i // 2 % 2, "blue")):
            if there:
                words.insert(draw.randrange(len(words) + 1), word)
        found.append((" ".join(words), "yes" if i % 2 != i // 2 % 2 else "no"))
    return found


def written(path: Path, labelled: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in labelled]
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    model_folder(folder / "model")
    table(folder / "easy.jsonl", 80, 1)
    table(folder / "test.jsonl", 60, 2)
    written(folder / "hard.jsonl", either(400, 1))
    written(folder / "hard-test.jsonl", either(100, 2))
    return folder


def recipe(place: Path, name: str, *changes: str, **keys: Any) -> FinetuneRecipe:
    data = {"train": [str(place / name)]}
    tree: dict[str, Any] = {"model": str(place / "model"), "task": "classify", "data": data, **keys}
    for change in ("ladder.all=false", *FAST, *changes):
        recipes.change_key(tree, change)
    return recipes.built(FinetuneRecipe, tree, "test")


# the choice --------------------------------------------------------------------------------------


def right(*counts: int) -> list[np.ndarray]:
    """Of 100 rows, the first so many."""
    return [np.arange(100) < count for count in counts]


def test_it_stops_where_the_next_rung_gains_no_more_than_chance():
    names = ["a", "b", "c"]
    assert choose(names, right(60)).reason is None  # the next one has to be tried
    climbing = choose(names, right(60, 75))
    assert climbing.place == 1 and climbing.reason is None
    stopped = choose(names, right(60, 62))
    assert "b gains +2.0 points" in str(stopped.reason) and "on a" in str(stopped.reason)
    assert stopped.place == 1 and choose(names, right(60, 60)).place == 0  # of equals the cheaper
    fallen = choose(names, right(60, 40))
    assert fallen.place == 0 and "b gains -20.0 points" in str(fallen.reason)
    # what lies beyond a stop decides nothing
    assert choose(names, right(60, 62, 99)) == stopped
    solved = choose(names, right(97))
    assert solved.place == 0 and "left to gain" in str(solved.reason)
    top = choose(names, right(40, 60, 80))
    assert top.place == 2 and top.reason == "there is no other rung"


# whole ladders -----------------------------------------------------------------------------------


def test_what_a_probe_solves_ends_there(place: Path, tmp_path: Path, capsys: Any):
    folder = tmp_path / "run"
    args = ["finetune", str(place / "model"), str(place / "easy.jsonl"), "--ladder"]
    args += ["--test", str(place / "test.jsonl"), "--folder", str(folder), "--quiet"]
    args += [part for change in FAST for part in ("--set", change)]
    assert cli.run(args) == 0
    told = capsys.readouterr()
    said = told.out
    assert "transformers has no class for this head" in told.err  # it reads the mean
    assert "kept: probe" in said and "not tried: few-shot, lora, full" in said
    result = json.loads((folder / "result.json").read_text())
    (rung,) = result["ladder"]["rungs"]
    assert result["best"] == rung["name"] == PROBE and rung["validation"]["n"] == 80
    assert result["ladder"]["how"] == "out of 5 folds" and rung["flops"] > 0 < rung["latency_ms"]
    model = load(folder / "model")
    texts = sentences(60, 2)
    answers = model.classify(texts)
    share = sum(a.label == label_of(t) for a, t in zip(answers, texts)) / 60
    assert share == pytest.approx(result["test"]["mean"]["accuracy"]) and share > 0.85
    assert model.extras.temperature == result["facts"]["temperature"]
    files = [path for path in (folder / "model").rglob("*") if path.is_file()]
    assert rung["bytes"] == sum(p.stat().st_size for p in files if p.name != "README.md")
    card = (folder / "model" / "README.md").read_text()
    assert "| probe |" in card and "kept: probe" in card and "learned all train rows" in card
    assert "library_name: tercet\n" in card
    assert not (folder / PROBE / "model").exists()
    before = load(place / "model").network.state_dict()
    after = model.network.state_dict()
    assert all(
        torch.equal(before[name], tensor) for name, tensor in after.items() if "heads." not in name
    )
    assert cli.run(["report", str(folder)]) == 0 and cli.run(["runs", str(tmp_path)]) == 0
    assert "Kept: probe" in (folder / "report.html").read_text()


def test_it_climbs_where_a_probe_does_not_do(place: Path, tmp_path: Path):
    data: dict[str, Any] = {"train": [str(place / "hard.jsonl")], "validation": 0.2}
    data["test"] = [str(place / "hard-test.jsonl")]
    changes = ("ladder.few=1", "ladder.rows=50", "train.epochs=20", "train.learning_rate=1e-3")
    result = finetune(recipe(place, "hard.jsonl", *changes, data=data), tmp_path / "run")
    rungs = {one["name"]: one for one in result["ladder"]["rungs"]}
    assert list(rungs)[:2] == [PROBE, LORA] and result["best"] != PROBE
    assert result["ladder"]["how"] == "validation"
    for one in rungs.values():  # what was kept is what was measured
        assert one["validation"]["n"] == 80 and one["test"]["n"] == 100
    costs = [one["flops"] for one in rungs.values()]
    assert costs == sorted(costs)
    model, texts = load(tmp_path / "run" / "model"), either(100, 2)
    answers = model.classify([text for text, _ in texts])
    share = sum(a.label == label for a, (_, label) in zip(answers, texts)) / 100
    assert share == pytest.approx(result["test"]["mean"]["accuracy"])
    assert share > rungs[PROBE]["test"]["figures"]["accuracy"] + 0.1


def test_all_rungs_are_measured_where_that_is_asked(place: Path, tmp_path: Path):
    changes = ("ladder.all=true", "ladder.steps=4", "ladder.pairs=40", "train.epochs=1")
    test = {"train": [str(place / "easy.jsonl")], "test": [str(place / "test.jsonl")]}
    result = finetune(recipe(place, "easy.jsonl", *changes, data=test), tmp_path / "run")
    told = result["ladder"]
    assert [one["name"] for one in told["rungs"]] == [PROBE, FEW_SHOT, LORA, FULL]
    assert result["best"] == PROBE and told["left_out"] == [] and "left to gain" in told["reason"]
    assert all(one["compared_seconds"] > 0 for one in told["rungs"])


def test_of_many_rows_as_many_folds_are_asked_as_are_enough(place: Path, tmp_path: Path):
    """80 rows, 30 wanted: two folds of 16, each asked of a network that has not learned it."""
    changes = ("ladder.rows=30", "train.epochs=1", "ladder.steps=4")
    wanted = recipe(place, "easy.jsonl", *changes)
    result = finetune(wanted, tmp_path / "run")
    assert result["ladder"]["how"] == "out of 2 of 5 folds"
    assert result["validation"]["n"] == 32 and FEW_SHOT not in result["runs"]
    parts = sorted(one.name for one in (tmp_path / "run" / PROBE).iterdir() if one.is_dir())
    assert parts == ["fold-0", "fold-1", "whole"]
    assert "learned all train rows" in (tmp_path / "run" / "model" / "README.md").read_text()
    rungs, right = rungs_of(place, place, "easy.jsonl", *changes), []
    for held in stratified(rungs.examples, 5)[:2]:
        asked, rest = [rungs.examples[i] for i in held], sorted({*range(80)} - {*held})
        networks: list[Any] = []
        rungs.learn(PROBE, rest, tmp_path / "again", networks.append)
        said = rungs.task.logits(networks[0], asked).argmax(-1)
        right += (said == rungs.targets[held]).tolist()
    (probe,) = (one for one in result["ladder"]["rungs"] if one["name"] == PROBE)
    assert probe["validation"]["figures"]["accuracy"] == pytest.approx(sum(right) / 32)


# nothing lost ------------------------------------------------------------------------------------

LONG = ("ladder.all=true", "ladder.steps=20", "ladder.pairs=160", "train.dropout=0.1")


def start(place: Path, folder: Path) -> subprocess.Popen[bytes]:
    changes = [part for change in (*FAST, *LONG) for part in ("--set", change)]
    command = [sys.executable, "-m", "tercet", "finetune", str(place / "model")]
    command += [str(place / "easy.jsonl"), "--ladder", "--resume", "--folds", "2", *changes]
    return subprocess.Popen(
        [*command, "--folder", str(folder), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def until(process: subprocess.Popen[bytes], log: Path, step: int) -> None:
    """The log of a part has come to a step."""
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if any(row["step"] >= step for row in rows(log, "step")):
            return
        time.sleep(0.005)
    assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""


def test_a_killed_ladder_goes_on_at_its_rung(place: Path, tmp_path: Path):
    one, two = tmp_path / "whole", tmp_path / "killed"
    assert start(place, one).wait() == 0
    for part in (f"{FEW_SHOT}/fold-1", f"{FULL}/whole"):
        process = start(place, two)
        until(process, two / part / "log.jsonl", 5)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    kept = (two / LORA / "rung.json").read_bytes()
    last = start(place, two)
    assert last.wait() == 0, last.stderr.read().decode() if last.stderr else ""
    assert (two / LORA / "rung.json").read_bytes() == kept
    told = [json.loads((folder / "result.json").read_text()) for folder in (one, two)]
    for first, second in zip(*(result["ladder"]["rungs"] for result in told)):
        assert first["validation"] == second["validation"] and first["flops"] == second["flops"]
    assert told[0]["best"] == told[1]["best"]
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (one, two)]
    assert weights[0] == weights[1]


def test_a_folder_with_a_rung_is_left_alone(place: Path, tmp_path: Path):
    (tmp_path / PROBE / "fold-0").mkdir(parents=True)
    finetune_begun = recipes.text(recipe(place, "easy.jsonl"))
    (tmp_path / "recipe.yaml").write_text(finetune_begun)
    (tmp_path / PROBE / "fold-0" / "cost.json").write_text("{}")
    with pytest.raises(InputError, match="holds a run; --resume goes on"):
        finetune(recipe(place, "easy.jsonl"), tmp_path)
    with pytest.raises(InputError, match=r"ladder.steps was 60, is 61"):
        finetune(recipe(place, "easy.jsonl", "ladder.steps=61"), tmp_path, resume=True)


# what is refused ---------------------------------------------------------------------------------


def test_other_kinds_are_refused(place: Path, tmp_path: Path, capsys: Any):
    table(tmp_path / "numbers.jsonl", 40, 1, lambda text: len(text) / 7)
    table(tmp_path / "lists.jsonl", 40, 1, lambda text: [text.split()[0]])
    for name, kind in (("numbers", "number"), ("lists", "labels")):
        with pytest.raises(InputError, match=f"one label each.*of the kind '{kind}'"):
            finetune(recipe(tmp_path, f"{name}.jsonl", model=str(place / "model")), tmp_path / name)
    for args, said in {
        ("--task", "tag"): "--ladder is for the task classify, not tag",
        ("--seeds", "2"): "seeds 2 with --ladder",
        ("--set", "evaluate.patience=2"): "evaluate.patience with --ladder",
        ("--set", "train.scratch=true"): "train.scratch with --ladder",
        ("--curve", "5"): "curve.sizes [5] with --ladder",
        ("--set", "ladder.few=0"): "ladder.few 0 must be 1 or more",
        ("--set", "ladder.back=1.5"): "ladder.back 1.5 must be from 0 to 1",
        ("--set", "ladder.step=3"): "did you mean 'steps'",
    }.items():
        command = ["finetune", str(place / "model"), str(place / "easy.jsonl"), "--ladder"]
        assert cli.run([*command, "--folder", str(tmp_path / "no"), "--quiet", *args]) == 2
        assert said in capsys.readouterr().err, said


def test_a_label_that_stands_once_stops_nothing(place: Path, tmp_path: Path):
    lines = (place / "easy.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    names = sorted({row["label"] for row in rows})
    many = [row for row in rows if row["label"] == names[0]]
    one = next(row for row in rows if row["label"] == names[1])
    told = "\n".join(json.dumps(row) for row in [*many, one])
    (tmp_path / "once.jsonl").write_text(told)
    changes = {"model": str(place / "model"), "ladder": {"steps": 2, "pairs": 8}}
    result = finetune(recipe(tmp_path, "once.jsonl", **changes), tmp_path / "run")
    assert result["validation"]["n"] == len(many) + 1
    found = json.loads((tmp_path / "run" / "findings.json").read_text())
    assert "duplicates" not in found and "mistakes" not in found  # there are no test rows


# its parts ---------------------------------------------------------------------------------------


def rungs_of(place: Path, folder: Path, name: str, *changes: str, **keys: Any) -> Rungs:
    wanted = recipe(folder, name, *changes, model=str(place / "model"), **keys)
    task, splits = classify(wanted, load(wanted.model), lambda sentence: None)
    assert isinstance(task, ClassifyTask)
    return Rungs(task, wanted, splits.train, quiet=True)


def test_the_probes_head_says_what_scikit_learn_says(place: Path):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    found = []
    rungs = rungs_of(place, place, "easy.jsonl")
    rungs.learn(PROBE, range(80), place, found.append)
    (network,) = found
    reads = [one.read for one in rungs.examples]
    texts = [one.text for one in rungs.examples]
    vectors = load(place / "model").embed(texts, pool="mean")
    assert np.allclose(features(network, reads), vectors, atol=1e-5)
    head, _ = rungs._head(range(80))
    scaled = StandardScaler().fit_transform(vectors)
    theirs = LogisticRegression(C=head.strength, max_iter=1_000).fit(scaled, rungs.targets)
    said = rungs.task.logits(network, rungs.examples).softmax(-1).numpy()
    assert np.allclose(said, theirs.predict_proba(scaled), atol=1e-5)


def test_which_rungs_there_are(place: Path, tmp_path: Path):
    whole = range(80)
    assert rungs_of(place, place, "easy.jsonl").names(whole) == [PROBE, FEW_SHOT, LORA, FULL]
    for many in ("ladder.few=39", "ladder.rows=79"):  # texts a label, and in all
        assert rungs_of(place, place, "easy.jsonl", many).names(whole) == [PROBE, LORA, FULL]
    lines = [
        json.dumps({"sentence1": text, "sentence2": "the tree", "label": label_of(text)}) + "\n"
        for text in sentences(40, 1)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(lines))
    pairs = rungs_of(place, tmp_path, "pairs.jsonl")
    assert pairs.names(range(40)) == [PROBE, LORA, FULL]


def test_few_rows_are_learned_in_as_many_steps(place: Path, tmp_path: Path):
    """40 rows are 1.25 steps of 32, not two."""
    rungs = rungs_of(place, place, "easy.jsonl", "ladder.steps=20", "train.rows=32")
    for name in (LORA, FULL):
        rungs.learn(name, range(40), tmp_path / name, lambda network: None)
        assert [row["step"] for row in rows(tmp_path / name / "log.jsonl", "step")][-1] == 20


def test_few_shot_goes_back_to_the_pretrained_weights(place: Path, tmp_path: Path):
    found: list[Network] = []
    for back in (0.0, 0.25, 1.0):
        rungs = rungs_of(place, place, "easy.jsonl", f"ladder.back={back}")
        rungs.learn(FEW_SHOT, range(80), tmp_path / str(back), found.append)
    rungs.learn(PROBE, range(80), tmp_path, found.append)
    bodies = [dict(one.named_parameters()) for one in found]
    for name in [name for name in bodies[0] if not name.startswith("heads.")]:
        learned, part, whole, frozen = (body[name] for body in bodies)
        assert torch.equal(whole, frozen)
        assert torch.allclose(part, 0.75 * learned + 0.25 * frozen, atol=1e-7)
        assert name.endswith("bias") or not torch.equal(learned, frozen)
    said = [rungs.task.logits(one, rungs.examples) for one in found[2:]]
    assert torch.allclose(*said, atol=1e-6)  # all the way back lies the probe
    # what learned elsewhere, on a GPU, goes back to weights that lie here
    network = rungs.task.model.network
    step_back(deepcopy(network).to("meta"), network, 0.5)


def test_partners_have_the_same_label():
    targets = torch.tensor([0, 1, 0, 2, 1, 0, 1])
    found = partners(targets, 3, seed=0)
    assert len(found) == 21 and all(targets[a] == targets[b] for a, b in found)
    assert sorted(a for a, _ in found) == sorted(3 * list(range(7)))
    assert all((a == b) == (a == 3) for a, b in found)  # alone with its label
    assert found == partners(targets, 3, seed=0) != partners(targets, 3, seed=1)


def test_folds_hold_as_many_of_each_label(place: Path):
    examples = rungs_of(place, place, "hard.jsonl").examples
    parts = stratified(examples, 5)
    assert sorted(i for part in parts for i in part) == list(range(400))
    assert all(sum(examples[i].target for i in part) == 40 for part in parts)
    with pytest.raises(
        InputError, match=r"different training examples are too few for 500 folds; give more rows"
    ):
        stratified(examples, 500)
    for share, each in ((0.4, 80), (0.1, 20)):
        held = held_back(examples, share)
        assert len(held) == 2 * each and sum(examples[i].target for i in held) == each
    assert held_back(examples, 0.2) == parts[0]


@pytest.mark.parametrize("name", ["tercet-tiny-decoder", "bart-base"])
def test_other_families_climb(name: str, tmp_path: Path):
    model_folder(tmp_path / "model", name)
    table(tmp_path / "easy.jsonl", 40, 1)
    changes = ("ladder.all=true", "ladder.steps=4", "ladder.pairs=40", "train.epochs=1")
    result = finetune(recipe(tmp_path, "easy.jsonl", *changes, folds=2), tmp_path / "run")
    names = [one["name"] for one in result["ladder"]["rungs"]]
    assert names == [PROBE, *([FEW_SHOT] if name != "bart-base" else []), LORA, FULL]
    assert load(tmp_path / "run" / "model").classify("the red house").label in ("no", "yes")

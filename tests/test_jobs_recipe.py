"""Recipes: what is refused, and with which words, before anything is read or written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from small_runs import RECIPE, recipe_file, train_small

from tercet import cli
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.train.job import train
from tercet.text import train_tokenizer

GOOD = RECIPE.format(files="texts.txt")


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("steps: 12", "step: 12", "train.step is unknown; did you mean 'steps'"),
        ("steps: 12", "steps: twelve", "train.steps 'twelve' must be a whole number or nothing"),
        ("steps: 12", "steps: 12, betas: [a]", r"train.betas\[0\] 'a' must be a number"),
        ("steps: 12", "budget: 3x", "budget '3x' is no time; write 90s"),
        ("steps: 12", "steps: 12, budget: 3m", "steps 12 and budget 3m; give one"),
        ("d_model: 32", "d_modle: 32", "model.change.d_modle is unknown; did you mean 'd_model'"),
        ("kind: bytes", "kind: letters", "tokenizer.kind 'letters' is unknown"),
        ("{length: 32}", "{length: 32, whole_words: true}", "'next-token' masks nothing"),
        ("evaluate:", "evalute:", "evalute is unknown; did you mean 'evaluate'"),
        ("preset: gpt2", "folder: x\n  preset: gpt2", "give preset or folder"),
        ("tokens: 256", "tokens: 0", "batch.tokens 0"),
        ("every: 6", "every: 0", "checkpoint.every 0"),
        ("split: line", "split: line, weight: -1", "weight -1.0 must be above 0"),
        ("batch: {", "batch: {{", r"line \d+: is not YAML"),
    ],
)
def test_recipe_errors_name_the_key_the_value_and_the_remedy(old: str, new: str, said: str):
    with pytest.raises(InputError, match=said):
        recipes.parse(GOOD.replace(old, new))


def test_a_recipe_is_refused_before_anything_is_written(tmp_path: Path, capsys):
    path = recipe_file(tmp_path)
    arguments = ["train", str(path), "--folder", str(tmp_path / "run"), "--set", "train.stepz=3"]
    assert cli.run(arguments) == 2
    assert "stepz" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "said, value",
    {
        "|": "|",
        ",": ",",
        "#": "#",
        " ": " ",
        ">": ">",
        "a: b: c": "a: b: c",
        "": None,
        "null": None,
        "~": None,
        "''": "",
        "'|'": "|",
        "0": 0,
        "1e-3": "1e-3",  # the recipe wants a number there, and takes it for one
        "[a, b]": ["a", "b"],
        "[a": "[a",
        "{a: 1}": {"a": 1},
    }.items(),
)
def test_a_change_is_yaml_or_else_the_words_themselves(said: str, value: Any):
    tree: dict[str, Any] = {}
    recipes.change_key(tree, f"some.key={said}")
    assert tree == {"some": {"key": value}}


def test_a_list_that_does_not_end_is_refused_where_a_list_is_wanted():
    with pytest.raises(InputError, match=r"train.betas '\[0.9, 1' must be a list"):
        recipes.parse(GOOD, changes=["train.betas=[0.9, 1"])


@pytest.mark.parametrize(
    "changes, said",
    [
        (["objective.length=64"], "objective.length 64 is beyond the model's context of 32"),
        (["objective.kind=spans"], "trains the family encoder-decoder"),
        (["model.preset=gpt2-tiny"], "there is no preset 'gpt2-tiny'"),
        (["train.schedule=cosin"], "'cosin' is unknown"),
        (["train.optimizer=sgd"], "train.optimizer 'sgd' is unknown; use adamw or muon"),
        (["train.betas=[0.9]"], r"train.betas \[0.9\] must be two"),
        (["train.ema=5"], "ema 5.0 must be between 0 and 1"),
        (["train.learning_rate=-1"], "learning_rate -1.0 must be above 0"),
        (["objective.smoothing=3"], "smoothing 3.0"),
        (["objective.r_drop=-1"], "r_drop -1.0 is a weight from 0 up"),
        (
            [
                "objective.r_drop=1",
                *(f"model.change.{d}=0" for d in ("dropout", "attention_dropout")),
            ],
            "r_drop 1.0 compares two draws",
        ),
        (["objective.kind=pairs"], "data.text names no source and target, and objective.kind"),
        (
            ["data.files=[]", "data.source=a", "data.target=b"],
            "data.text names a source and a target, and objective.kind 'next-token' reads texts",
        ),
        (["data.validation_source=a"], "validation_source a and validation_target None; give both"),
        (["objective.span=0.5"], "objective.span 0.5 must be 1 token or more"),
        (["objective.bpe_dropout=1"], "bpe_dropout 1.0 is a share"),
        (["objective.bpe_dropout=0.1"], "for kind pairs"),
        (["data.files=[nothing.txt]"], "nothing.txt"),
    ],
)
def test_contradictions_that_need_the_model_or_the_files(changes, said, tmp_path: Path):
    with pytest.raises(InputError, match=said):
        train(recipes.load(str(recipe_file(tmp_path)), changes), tmp_path / "run")
    assert changes[0].startswith("data.") or not (tmp_path / "run").exists()


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path):
    folder = train_small(tmp_path)
    train_tokenizer([tmp_path / "texts.txt"], kind="characters").save(tmp_path / "other")
    places = {"model": folder / "model", "tokenizer": tmp_path / "other"}
    text = RECIPE.format(files=tmp_path / "texts.txt")
    for key, place in places.items():
        text = re.sub(rf"^{key}:.*(\n  .*)*", f"{key}: {{folder: {place}}}", text, flags=re.M)
    with pytest.raises(InputError, match="other is not the tokenizer that the model of"):
        train(recipes.parse(text), tmp_path / "second")


def test_the_resolved_recipe_reads_back_as_it_was(capsys):
    for path in sorted(recipes.SHIPPED.glob("*.yaml")):
        if path.stem != "reproduce":
            recipe = recipes.load(path.stem)
            assert recipes.parse(recipes.text(recipe)) == recipe
    assert cli.run(["train", "shakespeare-char", "--print", "--set", "train.steps=7"]) == 0
    assert "steps: 7" in capsys.readouterr().out

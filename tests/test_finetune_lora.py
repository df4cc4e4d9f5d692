"""Fine-tuning with an adapter: it learns, goes on exactly after a death, and is a folder of its
own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import finetune, fit
from tercet.jobs.finetune.settings import Classify, FinetuneRecipe
from tercet.language_model import LanguageModel, load
from tercet.model import build
from tercet.model.lora import adapters
from tercet.presets import preset
from tercet.text import train_tokenizer

WORDS = {"animal": ["cat", "dog", "fox", "hen"], "weather": ["rain", "fog", "sun", "snow"]}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A base, and rows that a few steps can learn."""
    texts = [f"the {a} and the {b}" for w in WORDS.values() for a in w for b in w]
    labels = [label for label, words in WORDS.items() for _ in range(len(words) ** 2)]
    rows = [f"{text},{label}" for text, label in zip(texts, labels)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows[::2], *rows[1::2]]) + "\n")
    tokenizer = train_tokenizer(texts, vocab_size=300, special="encoder")
    config = preset("bert-tiny").replace(
        vocab_size=tokenizer.vocab_size, context_length=32, d_model=32, n_heads=2, d_ff=48,
        init_std=0.2,
    )  # fmt: skip
    LanguageModel(build(config), tokenizer).save(tmp_path / "base")
    return tmp_path


def wanted(place: Path, **train) -> FinetuneRecipe:
    train = {"epochs": 20, "rows": 8, "learning_rate": 0.01} | train
    data = {"train": [str(place / "rows.csv")], "validation": [str(place / "rows.csv")]}
    tree = {"model": str(place / "base"), "task": "classify", "data": data, "train": train}
    return recipes.built(FinetuneRecipe, tree, "test")


LORA = {"lora": {"rank": 4, "alpha": 8.0, "dropout": 0.1, "targets": ["q", "v", "up"]}}


def test_it_learns_and_goes_on_exactly(place: Path, monkeypatch):
    whole = finetune(wanted(place, **LORA), place / "whole")
    assert whole["validation"]["mean"]["accuracy"] > 0.9
    measure, calls = fit.Measure.__call__, []

    def dies(self, state) -> None:
        calls.append(state.step)
        if len(calls) == 3:
            raise RuntimeError("dead")
        measure(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(fit.Measure, "__call__", dies)
        with pytest.raises(RuntimeError, match="dead"):
            finetune(wanted(place, **LORA), place / "cut")
    finetune(wanted(place, **LORA), place / "cut", resume=True)
    for name in ("adapter_model.safetensors", "adapter_config.json", "config.json"):
        one, other = (place / run / "model" / name for run in ("whole", "cut"))
        assert one.read_bytes() == other.read_bytes(), name
    model = load(place / "whole" / "model")
    assert model.classify("the cat and the dog").label == "animal"
    assert adapters(model.network).keys() and not (place / "whole/model/model.safetensors").exists()
    card = (place / "whole" / "model" / "README.md").read_text()
    assert "tercet merge" in card and "library_name: peft\n" in card
    base = load(place / "base").network.state_dict()
    frozen = {name.replace(".base.", "."): t for name, t in model.network.state_dict().items()}
    body = {name: t for name, t in base.items() if not name.startswith("heads.")}
    assert all(torch.equal(frozen[name], t) for name, t in body.items())
    events = [json.loads(s) for s in (place / "whole/seed-0/log.jsonl").read_text().splitlines()]
    assert events[0]["learned"] < events[0]["parameters"] / 2
    merged = model.merged()
    one, other = (m.classify("the fog and the rain") for m in (model, merged))
    assert one.label == other.label == "weather"
    with pytest.raises(InputError, match="is an adapter; merge it"):
        again = recipes.built(
            FinetuneRecipe,
            {"model": str(place / "whole/model"), "task": "classify",
             "data": {"train": [str(place / "rows.csv")]}},
            "test",
        )  # fmt: skip
        finetune(again, place / "third")


def test_a_family_without_such_a_class_is_saved_merged(place: Path):
    recipe = wanted(place, epochs=1, **LORA)
    recipe = dataclasses.replace(recipe, classify=Classify(pool="mean"))
    finetune(recipe, place / "run")
    assert not adapters(load(place / "run" / "model").network)


def test_an_adapter_and_frozen_layers_contradict(place: Path):
    with pytest.raises(InputError, match="train.freeze 1 and train.lora"):
        wanted(place, freeze=1, **LORA)
    with pytest.raises(InputError, match="did you mean"):
        finetune(wanted(place, lora={"targets": ["donw"]}), place / "run")

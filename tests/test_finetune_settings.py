"""Every setting of a fine-tuning reaches the training: where it is another one, other weights are
learned. Those of the measuring change none."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_tables import model_folder, sentences, table

from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import finetune
from tercet.jobs.finetune.settings import FinetuneRecipe

SHORT = ("train.epochs=1", "train.rows=12", "train.learning_rate=1e-2")
LEARNED = {  # task: settings that change what is learned
    "classify": [
        "train.learning_rate=2e-2",
        "train.epochs=2",
        "train.rows=20",
        "train.warmup=0.5",
        "train.schedule=constant",
        "train.weight_decay=0.5",
        "train.betas=[0.5, 0.9]",
        "train.clip=0",
        "train.dropout=0.0",
        "train.layer_decay=0.5",
        "train.freeze=1",
        "train.class_weights=balanced",
        "train.class_weights=effective",
        "train.scratch=true",
        "train.lora={rank: 2}",
        "classify.pool=mean",
        "classify.pool=last",
        "seed=1",
    ],
    "embed": [
        "embed.pool=first",
        "embed.temperature=0.5",
        "embed.symmetric=true",
        "embed.negatives=1",
    ],
    "rank": ["rank.negatives=1", "rank.among=5", "rank.margin=0.2", "rank.pool=mean"],
    "seq2seq": ["seq2seq.smoothing=0.0"],
}
NOT_LEARNED = {  # settings of what is measured, and of other kinds of rows
    "embed": ["embed.scale=5.0"],  # of scored pairs
    "rank": ["rank.depth=3"],
    "seq2seq": ["seq2seq.beams=1", "seq2seq.written=2", "seq2seq.max_new_tokens=3"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    model_folder(folder / "model")
    model_folder(folder / "seq2seq-model", "tercet-tiny-encoder-decoder")
    table(folder / "classify.jsonl", 60, 1, lambda text: "rare" if "a red" in text else "common")
    texts = sentences(40, 1)
    for task, names in {
        "embed": ("text1", "text2"),
        "rank": ("query", "passage"),
        "seq2seq": ("source", "target"),
    }.items():
        pairs = [dict(zip(names, (one, " ".join(reversed(one.split()))))) for one in texts]
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return folder


@pytest.fixture(scope="module")
def learned(place: Path):
    """Task and change -> what of the model has been learned."""

    @cache
    def weights(task: str, change: str | None) -> dict[str, torch.Tensor]:
        model = place / ("seq2seq-model" if task == "seq2seq" else "model")
        data = {"train": [str(place / f"{task}.jsonl")], "validation": 0.2}
        tree: dict[str, Any] = {"model": str(model), "task": task, "data": data}
        for one in (*SHORT, *([change] if change else [])):
            recipes.change_key(tree, one)
        folder = place / f"{task} {len(list(place.iterdir()))}"
        finetune(recipes.built(FinetuneRecipe, tree, "test"), folder, quiet=True)
        (saved,) = sorted((folder / "model").glob("*model.safetensors"))
        return load_file(saved)

    return weights


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def pairs(of: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(task, change) for task, changes in of.items() for change in changes]


@pytest.mark.parametrize("task, change", pairs(LEARNED))
def test_another_setting_learns_otherwise(task: str, change: str, learned):
    assert not same(learned(task, None), learned(task, change))


@pytest.mark.parametrize("task, change", pairs(NOT_LEARNED))
def test_a_setting_of_the_measuring_changes_nothing(task: str, change: str, learned):
    assert same(learned(task, None), learned(task, change))

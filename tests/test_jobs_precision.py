"""bfloat16 where the processor is faster in it, float32 (said aloud) where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import recipe_file, train_small
from small_tables import FAST, model_folder, table

from tercet import cli
from tercet.jobs import recipe as recipes
from tercet.jobs.precision import in_bfloat16
from tercet.jobs.train.job import train
from tercet.jobs.train.run import Run
from tercet.train.log import rows

WANTED = "train.bfloat16=true"


PROCESSORS = {
    "GenuineIntel avx2": False,
    "GenuineIntel avx512_bf16": True,
    "GenuineIntel avx512_bf16 avx512_fp16": False,  # its AMX is hidden
    "GenuineIntel avx512_bf16 avx512_fp16 amx_bf16": True,
    "AuthenticAMD avx512_bf16 avx512_fp16": True,
}


def believed(processor: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether it is faster in bfloat16; from here on it is taken for the one that works here."""
    vendor, *has = processor.split()
    monkeypatch.setattr("tercet.kernels.processor.features", lambda: frozenset(has))
    monkeypatch.setattr("tercet.kernels.processor._vendor", lambda: vendor)
    return PROCESSORS[processor]


@pytest.fixture(params=list(PROCESSORS)[:2])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    return believed(request.param, monkeypatch)


def equal(one: Path, two: Path) -> bool:
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    return all(torch.equal(a[name], b[name]) for name in a)


def test_pretraining(native: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    asked, plain = tmp_path / "asked", train_small(tmp_path)
    train(recipes.load(str(recipe_file(tmp_path)), [WANTED]), asked, quiet=False)
    assert ("computes in float32" in capsys.readouterr().err) != native
    assert [row["bfloat16"] for row in rows(asked / "log.jsonl", "event")][0] == native
    assert equal(asked, plain) != native
    run = Run.open(asked)
    assert run.recipe.train.bfloat16 and run.train.bfloat16 == native  # what was asked for stays


def test_finetuning(native: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model_folder(tmp_path / "model")
    table(tmp_path / "train.jsonl", 60, 1)
    args = ["finetune", str(tmp_path / "model"), str(tmp_path / "train.jsonl")]
    for name, changes in (("asked", (*FAST, WANTED)), ("plain", FAST)):
        changes = [part for change in (*changes, "train.epochs=1") for part in ("--set", change)]
        assert cli.run([*args, "--folder", str(tmp_path / name), *changes]) == 0
        said = "computes in float32" in capsys.readouterr().err
        assert said == (name == "asked" and not native)
    assert equal(tmp_path / "asked", tmp_path / "plain") != native


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_processor_is_asked_and_other_devices_taken_at_their_word(
    processor: str, monkeypatch: pytest.MonkeyPatch
):
    faster = believed(processor, monkeypatch)
    assert in_bfloat16(True, torch.device("cpu")) == faster
    assert in_bfloat16(True, "cuda") and not in_bfloat16(False, "cuda")

"""The experiments whose runs go on from a model: whole at a tiny size, found again, and refused
where what they stand on has changed."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_talks import recipe, talker, write_talks
from test_reproduce_transfer import labelled, two_recipes

from tercet.errors import InputError
from tercet.jobs.reproduce import entries
from tercet.jobs.reproduce.addition import addition
from tercet.jobs.reproduce.recovery import recovery
from tercet.jobs.reproduce.table import Row, trained


def plain(rows: list[Row]) -> list[dict[str, Any]]:
    return [row.plain() for row in rows]


def test_a_run_stands_on_its_model_and_its_files(tmp_path: Path) -> None:
    talker(tmp_path / "talker")
    write_talks(tmp_path)
    wanted = recipe(tmp_path, "instruct")
    _, result = trained(wanted, tmp_path / "run", quiet=True)
    assert trained(wanted, tmp_path / "run", quiet=True)[1] == result
    talks = tmp_path / "instruct.jsonl"
    lines = talks.read_text().splitlines(keepends=True)
    talks.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r"run was begun with other contents of data\.text; "):
        trained(wanted, tmp_path / "run", quiet=True)
    talks.write_text("".join(lines))
    talker(tmp_path / "talker", seed=5)
    with pytest.raises(InputError, match=r"other contents of model\.folder; remove it, or"):
        trained(wanted, tmp_path / "run", quiet=True)
    shutil.rmtree(tmp_path / "run")
    trained(wanted, tmp_path / "run", quiet=True)  # as the message says


def test_addition_end_to_end(tmp_path: Path) -> None:
    entry = copy.deepcopy(entries()["addition"])
    entry |= {"numbers": [10, 15], "held_out": 0.3}
    entry["model"]["change"] |= {"d_model": 32, "d_ff": 48, "decoder_layers": 2}
    entry["model"]["change"] |= {"n_heads": 2, "n_kv_heads": 2, "d_head": 16}
    entry["taught"]["train"] |= {"steps": 2, "warmup": 1}
    entry["rewarded"]["train"] |= {"steps": 2, "budget": None, "warmup": 1}
    for name in ("taught", "rewarded"):
        entry[name] |= {"validation": 0.3, "batch": {"tokens": 800}, "evaluate": {"every": 2}}
    rows = addition(entry, tmp_path, True)
    assert [row.measure.partition(",")[0] for row in rows] == [
        *("exact match", "a number of three digits at most"),
        *("exact match", "a number of three digits at most"),
    ]
    assert all(0 <= float(row.ours) <= 1 for row in rows)
    taught, held_out = (
        {json.loads(line)["instruction"] for line in (tmp_path / name).read_text().splitlines()}
        for name in ("sums.jsonl", "held-out.jsonl")
    )
    assert len(taught) + len(held_out) == 36 and f"{len(held_out)} sums" in rows[0].note
    assert not held_out & (taught | {"+".join(one.split("+")[::-1]) for one in taught})
    assert plain(addition(entry, tmp_path, True)) == plain(rows)
    entry["model"]["change"]["decoder_layers"] = 1
    with pytest.raises(InputError, match=r"taught was begun with other contents of model\.folder"):
        addition(entry, tmp_path, True)


def test_recovery_end_to_end(tmp_path: Path) -> None:
    recipes = two_recipes(tmp_path)
    entry = copy.deepcopy(entries()["recovery"]) | {
        "decoder": {"folder": str(tmp_path / "decoder"), "recipe": recipes["causal"]},
        "recipe": recipes["masked"],
        "changes": ["train.steps=3"],
        "probe": {
            "name": "words",
            **{name: labelled(tmp_path, f"{name}.tsv", 60, 1) for name in ("train", "test")},
            "label": "label",
            "held_out": 20,
        },
    }
    out = tmp_path / "out"
    rows = recovery(entry, out, True)
    assert [row.measure.partition(", %, ")[2] for row in rows] == [
        "decoder",
        *("made of the decoder, untrained", "fresh, untrained"),
        *("made of the decoder, trained", "fresh, trained"),
    ]
    assert all("3 steps" in row.note for row in rows[3:])
    before = (out / "pieces.json").read_bytes()
    assert plain(recovery(entry, out, True)) == plain(rows)
    assert (out / "pieces.json").read_bytes() == before
    # another decoder in the place of the first
    shutil.rmtree(tmp_path / "decoder")
    path = Path(recipes["causal"])
    path.write_text(path.read_text().replace("steps: 20", "steps: 2"))
    with pytest.raises(InputError, match=r"run was begun with other contents of model\.folder"):
        recovery(entry, out, True)

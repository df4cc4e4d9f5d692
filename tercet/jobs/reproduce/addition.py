"""Learning from rewards alone: a small decoder that gets some sums right is told of its own answers
which of them are (GRPO), and is asked sums that it has never met."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

from tercet.files import written
from tercet.jobs import recipe as recipes
from tercet.jobs.reproduce.table import Row, trained
from tercet.train.progress import clock

Sums = list[tuple[int, int]]


def exact(prompt: str, answer: str, reference: str) -> float:
    """The reward: 1 for the sum, 0 for all else."""
    return float(answer == reference)


def addition(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """Exact match on held-out sums, and the share of answers that are numbers at all, of the model
    that has learned from some sums, and of the same behind its rewards."""
    taught, held_out = sums(entry["numbers"], entry["held_out"])
    write(folder / "sums.jsonl", taught)
    write(folder / "held-out.jsonl", held_out)
    start = begun(folder / "start", entry["model"])
    rows = []
    for name in ("taught", "rewarded"):
        wanted = recipes.parse(yaml.safe_dump(_recipe(entry[name], start, folder)), name)
        run, result = trained(wanted, folder / name, quiet=quiet)
        start = run.folder / "model"
        note = f"{result['step']:,} steps in {clock(result['seconds'])}"
        rows += _rows(name, start, folder / "held-out.jsonl", note)
    return rows


def sums(numbers: list[int], held_out: float, seed: int = 0) -> tuple[Sums, Sums]:
    """All pairs of numbers from the first to the last, both ways round, but for a share of them,
    which are the second list."""
    first, last = numbers
    pairs = [(a, b) for a in range(first, last + 1) for b in range(a, last + 1)]
    random.Random(seed).shuffle(pairs)
    cut = round(held_out * len(pairs))
    return _both_ways(pairs[cut:]), _both_ways(pairs[:cut])


def _both_ways(pairs: Sums) -> Sums:
    return [way for a, b in pairs for way in dict.fromkeys([(a, b), (b, a)])]


def write(path: Path, rows: Sums) -> None:
    with written(path) as draft:
        lines = (json.dumps({"instruction": f"{a}+{b}", "output": str(a + b)}) for a, b in rows)
        draft.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def begun(folder: Path, told: dict[str, Any]) -> Path:
    """A folder with a network that has learned nothing, and reads characters."""
    from tercet.language_model import LanguageModel
    from tercet.model import build
    from tercet.presets import preset
    from tercet.text import train_tokenizer

    texts = ["user assistant system\n0123456789+"]
    tokenizer = train_tokenizer(texts, kind="characters", vocab_size=64, special="decoder")
    config = preset(told["preset"]).replace(
        vocab_size=tokenizer.vocab_size,
        bos_id=tokenizer.bos_id,
        eos_ids=(tokenizer.eos_id,),
        pad_id=tokenizer.pad_id,
        **told["change"],
    )
    LanguageModel(build(config, seed=0), tokenizer).save(folder)
    return folder


def _recipe(told: dict[str, Any], start: Path, folder: Path) -> dict[str, Any]:
    data = {"files": [str(folder / "sums.jsonl")], "validation": told["validation"]}
    rest = {name: value for name, value in told.items() if name != "validation"}
    return {"model": {"folder": str(start)}, "data": data, **rest}


def _rows(name: str, model: Path, held_out: Path, note: str) -> list[Row]:
    from tercet.evaluate.instructions import answers, prompts
    from tercet.evaluate.significance import mean
    from tercet.language_model import load

    said = answers(load(model), prompts(str(held_out)), max_new_tokens=8)
    right = mean([float(one.obeyed and one.ended) for one in said])
    formed = mean([float(one.ended and one.text.isdigit() and len(one.text) <= 3) for one in said])
    note = f"{len(said):,} sums, ± {right.error:.3f}; {note}"
    return [
        Row(f"exact match, {name}", right.value, None, note),
        Row(f"a number of three digits at most, {name}", formed.value, None, ""),
    ]

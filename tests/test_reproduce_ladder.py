"""The ladder on few labels: the whole experiment at a tiny size, gone on with after a death."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from small_tables import label_of, model_folder, sentences

import tercet.jobs.reproduce.ladder as ladder_module
from tercet.errors import InputError
from tercet.jobs.reproduce import entries
from tercet.jobs.reproduce.ladder import Pieces, drawn, ladder

QUICK = {"ladder": {"steps": 4, "pairs": 40}, "train": {"epochs": 1, "rows": 16}, "folds": 2}


def small(folder: Path) -> dict[str, Any]:
    """An entry, whose files name their columns in three ways."""
    lines = ["sort\ttext", *(f"{label_of(text)}\t{text}" for text in sentences(80, 1))]
    (folder / "train.tsv").write_text("\n".join(lines) + "\n")
    lines = ["sort\ttext", *(f"{label_of(text)}\t{text}" for text in sentences(40, 2))]
    (folder / "test.tsv").write_text("\n".join(lines) + "\n")
    with gzip.open(folder / "parts.csv.gz", "wt") as file:
        for text in sentences(40, 2):
            first, _, rest = text.partition(" ")
            file.write(f'"{label_of(text)}","{first}","{rest}"\n')
    files = {"train": str(folder / "train.tsv"), "columns": {"label": "sort"}}
    parts = {"file": str(folder / "parts.csv.gz"), "make": {"label": "1", "text": ["2", "3"]}}
    return {
        "body": {"model": str(model_folder(folder / "model"))},
        "labels": [6],
        "sets": {"colours": files | {"test": str(folder / "test.tsv")}},
        "few_shot": files | {"name": "parts", "test": parts, "labels": 4, "draws": 2},
        "settings": QUICK,
    }


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entry, draw, calls = small(tmp_path), Pieces.drawn, []

    def counted(*parts: Any) -> Any:
        calls.append(parts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(*parts)

    monkeypatch.setattr(ladder_module.Pieces, "drawn", counted)
    with pytest.raises(KeyboardInterrupt):
        ladder(entry, tmp_path / "out", True)
    rows = ladder(entry, tmp_path / "out", True)
    assert len(calls) == 3  # the second draw twice
    pieces = json.loads((tmp_path / "out" / "pieces.json").read_text())
    climbed, *draws = pieces.values()
    assert len(draws) == 2 and len(rows) == 2
    assert list(climbed["test"]) == ["probe", "few-shot", "lora", "full"]
    assert rows[0].ours == pytest.approx(100 * climbed["test"][climbed["chosen"]]["accuracy"])
    best = max(climbed["test"].values(), key=lambda one: one["accuracy"])
    chosen = climbed["test"][climbed["chosen"]]["accuracy"]
    assert ("NOT within" in rows[0].note) == (chosen < best["low"])
    assert rows[1].ours == pytest.approx(50 * sum(one["few-shot"] for one in draws))
    assert "over 2 draws" in rows[1].note
    result = json.loads((tmp_path / "out" / "colours-6" / "run" / "result.json").read_text())
    assert result["data"]["train"] == 12 and result["test"]["n"] == 40


def test_draws_hold_as_many_of_each_label():
    rows = [{"text": str(i), "label": "abc"[min(i % 10, 2)]} for i in range(50)]
    found = drawn(rows, 8, 0)
    counts = {label: sum(row["label"] == label for row in found) for label in "abc"}
    assert counts == {"a": 5, "b": 5, "c": 8}  # all that there are, or eight
    assert found == drawn(rows, 8, 0) != drawn(rows, 8, 1)


def test_a_package_that_is_not_there(tmp_path: Path):
    entry = small(tmp_path) | {"body": {"package": "no_such_encoder", "path": "model"}}
    with pytest.raises(InputError, match="pip install no-such-encoder"):
        ladder(entry, tmp_path / "out", True)


def test_the_shipped_entry_is_whole():
    entry = entries()["ladder"]
    assert set(entry["sets"]) == {"TREC", "SST-2", "CLINC150"} and entry["few_shot"]["draws"] == 10

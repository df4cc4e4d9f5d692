"""What both sides of the fine-tuning benchmarks read: rows of real tasks, written once as files
that `tercet finetune` and a few lines of plain Python both understand.

Made by the environment that the benchmarks are started in, from the data that TERCET_DATA names.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare import Absent
from inputs import made, minilm

ROWS, LIMIT = 32, 256  # of a step; tokens that MiniLM's folder says it reads
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """``files``: its splits under TERCET_DATA. ``columns``: of a table, by the names that our files
    give them. ``metric``: what the best epoch is chosen by, and what the test split is told in."""

    verb: str  # classify, tag, answer
    files: dict[str, str]
    columns: dict[str, str]
    metric: str = "accuracy"
    number: bool = False  # the label is a measure


def _table(folder: str, test: str, metric: str = "accuracy", dev: str = "", **columns: str) -> Task:
    files = {"train": "train.tsv.gz", "validation": dev, "test": test}
    placed = {split: f"{folder}/{file}" for split, file in files.items() if file}
    return Task("classify", placed, columns, metric, number=metric == "spearman")


ONE, TWO = {"text": "text"}, {"text": "sentence1", "pair": "sentence2"}
TASKS = {
    "trec": _table("trec", "test.tsv", **ONE, label="coarse"),
    "stsb": _table("stsb", "test.tsv", "spearman", "dev.tsv", **TWO, label="score"),
    "mrpc": _table("mrpc", "test.tsv.gz", "f1", **TWO, label="label"),
    "sst2": _table("sst2", "test.tsv", dev="dev.tsv", **ONE, label="label"),
    "clinc150": _table("clinc150", "test.tsv", dev="val.tsv", **ONE, label="label"),
    "upos": Task("tag", {"train": "ud-english-ewt/train.tsv.gz"}, {}),
    "answers": Task("answer", {"train": "squadshifts/new_wiki.json.gz"}, {}),
}


def drawn(name: str, steps: int) -> Path:
    """A folder with ``train``, the rows of so many steps, and ``few`` of them, with which the frame
    measures what nobody looks at. Tagged sentences and questions are some that one window holds."""

    def make(folder: Path) -> None:
        rows = _READ[TASKS[name].verb](TASKS[name], "train")
        wanted = steps * ROWS
        if len(rows) < wanted:
            raise Absent(f"{name} has {len(rows):,} rows, and {steps} steps take {wanted:,}")
        rows = random.Random(0).sample(rows, wanted)
        for part, some in (("train", rows), ("few", rows[:ROWS])):
            write(folder / f"{part}.{_kind(name)}", some)

    return made(f"finetune-{name}-{steps}", make)


def whole(name: str) -> Path:
    """A folder with ``train``, ``validation`` and ``test``; where the set has no validation rows, a
    tenth of the training rows, the tenth that `tercet finetune` would take."""

    def make(folder: Path) -> None:
        task = TASKS[name]
        parts = {split: _rows(task, split) for split in task.files}
        if "validation" not in parts:
            parts["train"], parts["validation"] = _cut(parts["train"])
        for split, rows in parts.items():
            write(folder / f"{split}.jsonl", rows)

    return made(f"finetune-{name}-whole", make)


def file(folder: Path, part: str) -> Path:
    (found,) = folder.glob(f"{part}.json*")
    return found


def read(folder: Path, part: str) -> list[Row]:
    """The rows of a part, by whichever environment."""
    path = file(folder, part)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    content = json.loads(path.read_text("utf-8"))
    return [
        {"question": asked["question"], "context": paragraph["context"], **asked["answers"][0]}
        for paragraph in content["data"][0]["paragraphs"]
        for asked in paragraph["qas"]
    ]


def write(path: Path, rows: Iterable[Row]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return
    paragraphs = [
        {
            "context": row["context"],
            "qas": [
                {
                    "id": str(number),
                    "question": row["question"],
                    "answers": [{name: row[name] for name in ("text", "answer_start")}],
                }
            ],
        }
        for number, row in enumerate(rows)
    ]
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), "utf-8")


def _kind(name: str) -> str:
    return "json" if TASKS[name].verb == "answer" else "jsonl"


def _place(task: Task, split: str) -> str:
    path = Path(os.environ.get("TERCET_DATA", "../shared/data")) / task.files[split]
    if not path.exists():
        raise Absent(f"{path} is not there; set TERCET_DATA")
    return str(path)


def _rows(task: Task, split: str) -> list[Row]:
    from tercet.data.sources import Tally
    from tercet.data.tables import rows

    wanted = task.columns
    read = rows(_place(task, split), list(wanted.values()), Tally())
    found = [{part: row[column] for part, column in wanted.items()} for _, row in read]
    return [row | {"label": float(row["label"])} for row in found] if task.number else found


def _tagged(task: Task, split: str) -> list[Row]:
    from tercet.data.tagged import tagged

    found = tagged(_place(task, split)).sentences
    sizes = _sizes([one.words for one in found], is_pretokenized=True)
    short = (one for one, size in zip(found, sizes) if size <= LIMIT)
    return [{"words": one.words, "tags": one.tags} for one in short]


def _questions(task: Task, split: str) -> list[Row]:
    from tercet.data.questions import questions

    found = questions(_place(task, split)).rows
    sizes = _sizes([(one.question, one.context) for one in found])
    return [
        {"question": one.question, "context": one.context, "text": text, "answer_start": start}
        for one, size in zip(found, sizes)
        for text, start in [one.usual]
        if size <= LIMIT
    ]


_READ: dict[str, Callable[[Task, str], list[Row]]] = {
    "classify": _rows,
    "tag": _tagged,
    "answer": _questions,
}


def _sizes(texts: list[Any], **how: bool) -> list[int]:
    """Tokens of each, the special ones with them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [len(found) for found in tokenizer.encode_batch(texts, **how)]


def _cut(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    from tercet.jobs.finetune.splits import cut
    from tercet.jobs.finetune.task import Splits

    @dataclass(frozen=True)
    class Grouped:
        row: Row

        @property
        def group(self) -> tuple[str, str | None]:
            return self.row["text"], self.row.get("pair")

    parts = cut(Splits([Grouped(row) for row in rows], ()), 0.1)
    return [one.row for one in parts.train], [one.row for one in parts.validation]

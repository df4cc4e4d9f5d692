"""Fine-tuning all-MiniLM-L6-v2, as `tercet finetune` does it and as transformers' Trainer does.

Both read the same files and take the same epochs, rate, schedule, warm-up, rows a step, weight
decay, clipping and dropout, that of the attention with it. The Trainer gets what its users write:
texts in the tokenizer's own form, and each batch padded to its longest.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_rows import LIMIT, ROWS, TASKS, Row, Task, file, read
from inputs import minilm

WARMUP, DECAY, CLIP, DROPOUT = 0.1, 0.01, 1.0, 0.1
IGNORED = -100  # a token without a tag, as transformers has it


@dataclass(frozen=True)
class Run:
    """What is learned, and how. ``folder``: where the rows lie. ``measured``: the parts that the
    best epoch is chosen by and told in; without them only time is."""

    task: str
    folder: Path
    bfloat16: bool = False
    epochs: int = 1
    rate: float = 2e-4  # what `tercet finetune` takes for a width of 384
    seed: int = 0
    measured: bool = False


def tercet(run: Run, place: Path | None = None) -> dict[str, Any]:
    """``place``: the folder of a run that is measured, which goes on where it is half done; None:
    only the time is wanted."""
    from tercet.jobs import recipe as recipes
    from tercet.jobs.finetune import finetune
    from tercet.jobs.finetune.settings import FinetuneRecipe

    task = TASKS[run.task]
    data: dict[str, Any] = {
        "train": [str(file(run.folder, "train"))],
        "validation": [str(file(run.folder, "validation" if run.measured else "few"))],
    }
    if run.measured:
        data["test"] = [str(file(run.folder, "test"))]
    if task.verb == "classify":
        data["columns"] = {part: part for part in task.columns}
    train = dict(epochs=run.epochs, rows=ROWS, learning_rate=run.rate, bfloat16=run.bfloat16)
    train |= dict(warmup=WARMUP, weight_decay=DECAY, clip=CLIP, dropout=DROPOUT)
    tree: dict[str, Any] = {"model": str(minilm()), "task": task.verb, "data": data, "train": train}
    tree |= {"seed": run.seed, "evaluate": {"metric": task.metric} if run.measured else {}}
    recipe = recipes.built(FinetuneRecipe, tree, "the benchmark")
    if place is None:
        return _timed(recipe)
    result = finetune(recipe, place, resume=True)
    (once,) = result["runs"].values()
    parts = {part: result[part]["mean"][task.metric] for part in ("validation", "test")}
    return {"tokens": once["tokens"], "epoch": once["best_epoch"], **parts}


def _timed(recipe: Any) -> dict[str, Any]:
    """The frame of `tercet finetune` around a task that looks at the clock."""
    from importlib import import_module

    from tercet.jobs.finetune import TASKS as readers
    from tercet.jobs.finetune.job import Job
    from tercet.kernels.memory import keep_pages

    keep_pages()  # as the command does
    module, _, name = readers[recipe.task].partition(":")
    with tempfile.TemporaryDirectory() as draft:
        job = Job.of(recipe, Path(draft), getattr(import_module(module), name), quiet=True)
        clock = job.task = Clocked(job.task)
        (once,) = job.run()["runs"].values()
    return {"tokens": once["tokens"], "seconds": clock.ended - clock.began}


class Clocked:
    """A task, and when its first batch was asked for and its steps were over: what is done between
    two steps, such as a line of the log, is in it."""

    def __init__(self, task: Any) -> None:
        self.task, self.began, self.ended = task, 0.0, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def stream(self, examples: Any, seed: int) -> Any:
        return ClockedStream(self.task.stream(examples, seed), self)

    def scores(self, network: Any, examples: Any) -> Any:
        self.ended = self.ended or time.perf_counter()
        return self.task.scores(network, examples)


class ClockedStream:
    def __init__(self, stream: Any, clock: Clocked) -> None:
        self.stream, self.draw, self.clock = stream, stream.draw, clock

    def __call__(self, step: int) -> Any:
        self.clock.began = self.clock.began or time.perf_counter()
        return self.stream(step)


def trainer(run: Run, *, grouped: bool = False) -> dict[str, Any]:
    """The logits of validation and test rows behind each epoch, where they are measured."""
    from transformers import AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(minilm())
    task, rows = TASKS[run.task], read(run.folder, "train")
    labels = _labels(task, rows)
    features = {"train": _features(task, tokenizer, rows, labels)}
    if run.measured:
        for part in ("validation", "test"):
            features[part] = _features(task, tokenizer, read(run.folder, part), labels)
    epochs: list[dict[str, Any]] = []
    clock: list[float] = []  # when the first batch was asked for, and when the last step ended
    collate = _collator(task, tokenizer)

    def clocked(some: list[Row]) -> Any:
        if not clock:
            clock.extend([time.perf_counter()] * 2)
        return collate(some)

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock[1] = time.perf_counter()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            parts = [part for part in features if part != "train"]
            said = {part: job.predict(features[part]).predictions for part in parts}  # type: ignore
            epochs.append({part: logits.tolist() for part, logits in said.items()})

    with tempfile.TemporaryDirectory() as draft:
        order = "group_by_length" if grouped else "random"
        job = Trainer(
            _network(task, labels, run.seed),
            TrainingArguments(
                draft,
                **dict(num_train_epochs=run.epochs, learning_rate=run.rate, bf16=run.bfloat16),
                **dict(per_device_train_batch_size=ROWS, per_device_eval_batch_size=64),
                **dict(lr_scheduler_type="linear", warmup_steps=WARMUP, weight_decay=DECAY),
                **dict(max_grad_norm=CLIP, seed=run.seed, train_sampling_strategy=order),
                **dict(use_cpu=True, dataloader_pin_memory=False, disable_tqdm=True),
                **dict(logging_strategy="no", save_strategy="no", report_to="none"),
            ),
            train_dataset=features["train"],  # type: ignore[arg-type]
            data_collator=clocked,
            processing_class=tokenizer,
            callbacks=[Watch()],
        )
        job.train()
    tokens = run.epochs * sum(len(one["input_ids"]) for one in features["train"])
    if run.measured:
        return {"tokens": tokens, "behind each epoch": epochs}
    return {"tokens": tokens, "seconds": clock[1] - clock[0]}


def _network(task: Task, labels: list[str], seed: int) -> Any:
    """The real weights under a new head, as its users load them."""
    import transformers

    kinds = {"classify": "SequenceClassification", "tag": "TokenClassification"}
    kind = getattr(transformers, f"AutoModelFor{kinds.get(task.verb, 'QuestionAnswering')}")
    transformers.set_seed(seed)  # the head's
    how = {"hidden_dropout_prob": DROPOUT, "attention_probs_dropout_prob": DROPOUT}
    if task.verb != "answer":
        how["num_labels"] = 1 if task.number else len(labels)
    return kind.from_pretrained(minilm(), **how)


def _labels(task: Task, rows: list[Row]) -> list[str]:
    """In the order of our own."""
    if task.verb == "tag":
        return sorted({tag for row in rows for tag in row["tags"]})
    return [] if task.number or task.verb == "answer" else sorted({row["label"] for row in rows})


def _collator(task: Task, tokenizer: Any) -> Any:
    from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

    if task.verb == "tag":
        return DataCollatorForTokenClassification(tokenizer)
    return DataCollatorWithPadding(tokenizer)


def _features(task: Task, tokenizer: Any, rows: list[Row], labels: list[str]) -> list[Row]:
    """What the collator pads, one for each row."""
    return {"classify": _texts, "tag": _words, "answer": _answers}[task.verb](
        tokenizer, rows, {label: number for number, label in enumerate(labels)}
    )


def _texts(tokenizer: Any, rows: list[Row], numbers: dict[str, int]) -> list[Row]:
    pairs = [row["pair"] for row in rows] if "pair" in rows[0] else None
    read = tokenizer([row["text"] for row in rows], pairs, truncation=True, max_length=LIMIT)
    found = _each(read, len(rows))
    for one, row in zip(found, rows):
        one["labels"] = numbers[row["label"]] if numbers else row["label"]
    return found


def _words(tokenizer: Any, rows: list[Row], numbers: dict[str, int]) -> list[Row]:
    words = [row["words"] for row in rows]
    read = tokenizer(words, is_split_into_words=True, truncation=True, max_length=LIMIT)
    found = _each(read, len(rows))
    for i, (one, row) in enumerate(zip(found, rows)):
        owners, tags = read.word_ids(i), []
        for before, owner in zip([None, *owners], owners):
            first = owner is not None and owner != before
            tags.append(numbers[row["tags"][owner]] if first else IGNORED)
        one["labels"] = tags
    return found


def _answers(tokenizer: Any, rows: list[Row], numbers: dict[str, int]) -> list[Row]:
    asked, contexts = [row["question"] for row in rows], [row["context"] for row in rows]
    how: dict[str, Any] = dict(truncation="only_second", max_length=LIMIT)
    read = tokenizer(asked, contexts, return_offsets_mapping=True, **how)
    found = _each(read, len(rows))
    for i, (one, row) in enumerate(zip(found, rows)):
        places = one.pop("offset_mapping")
        begin, end = row["answer_start"], row["answer_start"] + len(row["text"])
        inside = [
            place
            for place, (owner, (start, stop)) in enumerate(zip(read.sequence_ids(i), places))
            if owner == 1 and start < end and stop > begin
        ]
        one["start_positions"], one["end_positions"] = inside[0], inside[-1]
    return found


def _each(read: Any, count: int) -> list[Row]:
    return [{name: values[i] for name, values in read.items()} for i in range(count)]

"""Task `seq2seq`: text to text, for encoder-decoders. Rows have a source and a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tercet.data import Stream, TextPairs, Tokens, Translation
from tercet.data.tables import text_of
from tercet.errors import InputError, require
from tercet.evaluate.translation import EXTRA, bleu_13a, chrf
from tercet.jobs.finetune.bodies import dropping
from tercet.jobs.finetune.rows import Part, Table, empty, read_table
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.finetune.splits import overlaps
from tercet.jobs.finetune.task import TEST, TRAIN, VALIDATION, Finished, Folds, Say, Scores, Splits
from tercet.language_model import LanguageModel
from tercet.model import Network, build
from tercet.text import Tokenizer
from tercet.train import CrossEntropy
from tercet.train.loop import Objective

PARTS = (
    Part("source", ("source", "src", "input", "question", "document", "text")),
    Part("target", ("target", "tgt", "output", "answer", "summary", "translation")),
)
EVALUATED_TOKENS = 4_096  # of a batch, while measuring the loss


@dataclass(frozen=True)
class Written:
    """A text and what should be written of it."""

    source: str
    target: str

    @property
    def group(self) -> str:
        return self.source


class Seq2SeqTask:
    """``log_probability``: the mean over the target tokens, in nats: minus the loss."""

    metrics = ("chrf", "bleu", "log_probability")

    def __init__(self, recipe: FinetuneRecipe, model: LanguageModel, say: Say) -> None:
        self.recipe, self.model, self.say = recipe, model, say
        self.facts: dict[str, Any] = {}
        require("sacrebleu", EXTRA)  # or the first epoch would be lost
        config, end = model.config, model.tokenizer.eos_id
        if config.family != "encoder-decoder" or "language" not in config.heads:
            raise InputError(
                f"the model is of the {config.family} family; text to text is for encoder-"
                "decoders, such as those of tercet train with objective.kind pairs"
            )
        if config.start_id is None or end is None:
            raise InputError("the model names no token that begins and ends a text; train another")
        asked, room = recipe.seq2seq.max_new_tokens, config.context_length - 1
        if asked is not None and asked > room:  # each translation would fail
            raise InputError(
                f"seq2seq.max_new_tokens {asked} and the token that begins a text are beyond the "
                f"context of {config.context_length}; give at most {room}, or leave it out"
            )
        self.shape = Translation(config.start_id, end)

    def network(self, seed: int) -> Network:
        old = self.model.network
        changes = dropping(old.config, self.recipe.train.dropout)
        new = build(old.config.replace(**changes), seed)
        new.load_state_dict(old.state_dict())
        new.tie()
        return new

    def stream(self, examples: Sequence[Written], seed: int) -> Stream:
        rows = min(self.recipe.train.rows, len(examples))
        draw = self._draw(examples, rows, seed)
        return Stream(draw, self.shape, self.recipe.train.micro_tokens)

    def fitting(self, rows: Sequence[Written], name: str) -> list[Written]:
        """Those of a split that fit into the context. How many others there are is said: they have
        no loss, and nothing would be written of them. Raises InputError where none fits."""
        longest = self.model.config.context_length
        kept = [
            row
            for row, sides in zip(rows, self._ids(rows))
            if max(map(len, sides)) < longest  # the token at the end counts too
        ]
        if rows and not kept:
            raise InputError(
                f"{name}: every pair is beyond the context of {longest:,} tokens; give shorter "
                "texts, or a model with a longer context"
            )
        if count := len(rows) - len(kept):
            self.say(
                f"{name}: {count:,} of {len(rows):,} pairs are beyond the context of {longest:,} "
                "tokens and left out"
            )
        return kept

    def _draw(self, examples: Sequence[Written], rows: int, seed: int) -> TextPairs:
        documents = [ids for sides in self._ids(examples) for ids in sides]
        return TextPairs(Tokens.of(documents, None), None, seed, rows=rows)

    def _ids(self, examples: Sequence[Written]) -> list[tuple[list[int], list[int]]]:
        """The pairs as the model reads and writes them; the shape adds the token at their ends."""
        tokenizer = self.model.tokenizer
        sources = self._open(tokenizer, [row.source for row in examples])
        targets = self._open(tokenizer.target, [row.target for row in examples])
        return list(zip(sources, targets))

    def _open(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        found = tokenizer.encode_batch(list(texts))
        return [ids[:-1] if ids and ids[-1] == self.shape.end_id else ids for ids in found]

    def objective(self, examples: Sequence[Written]) -> Objective:
        return CrossEntropy(self.recipe.seq2seq.smoothing)

    def scores(self, network: Network, examples: Sequence[Written]) -> Scores:
        loss, wanted = self._loss(network, examples), self.recipe.seq2seq
        model = LanguageModel(network, self.model.tokenizer, self.model.extras)
        some = list(examples[: wanted.written])
        found = model.translate(
            [row.source for row in some], beams=wanted.beams, max_new_tokens=wanted.max_new_tokens
        )
        outputs, references = [str(one) for one in found], [row.target for row in some]
        bleu, letters = bleu_13a(outputs, references), chrf(outputs, references)
        figures = {"chrf": letters.score, "bleu": bleu.score, "log_probability": -loss}
        first = f" (of the first {len(some):,})" if len(some) < len(examples) else ""
        said = f"{letters}; {bleu}{first}; loss {loss:.4f} nats a token"
        return Scores(figures, said, len(examples))

    @torch.inference_mode()
    def _loss(self, network: Network, examples: Sequence[Written]) -> float:
        """Nats a target token, without smoothing."""
        draw = self._draw(examples, 1, 0)
        total, targets, device = 0.0, 0, network.tokens.weight.device
        mean = max(1.0, draw.step_tokens)
        size = max(1, int(EVALUATED_TOKENS // mean))
        samples = [sample for step in draw.epoch(0) for sample in step]
        samples.sort(key=lambda sample: sample.n_tokens)
        for start in range(0, len(samples), size):
            batch = self.shape.batch(samples[start : start + size])
            total += float(CrossEntropy()(network, batch.to(device)))
            targets += batch.n_targets
        return total / targets

    def finish(self, network: Network, validation: Sequence[Written]) -> Finished:
        return Finished(self.model.extras)

    def findings(self, model: LanguageModel, splits: Splits, folds: Folds) -> dict[str, Any]:
        return {}  # its figures say it all


def seq2seq(recipe: FinetuneRecipe, model: LanguageModel, say: Say) -> tuple[Seq2SeqTask, Splits]:
    """Reads what the recipe names. See ``Reader``."""
    data = recipe.data
    validation = data.validation if isinstance(data.validation, list) else []
    table = read_table(data.train, PARTS, data.columns)
    say(f"train: {table.sentence}")
    found = {TRAIN: rows_of(table, TRAIN, say), VALIDATION: [], TEST: []}
    for name, place in ((VALIDATION, validation), (TEST, data.test)):
        if place:
            found[name] = rows_of(read_table(place, PARTS, data.columns), name, say)
    task = Seq2SeqTask(recipe, model, say)
    fitting = {name: task.fitting(rows, name) for name, rows in found.items()}
    beyond = {name: len(found[name]) - len(rows) for name, rows in fitting.items()}
    task.facts |= {name: len(rows) for name, rows in fitting.items()}
    task.facts |= overlaps(fitting, "sources", say)
    task.facts |= {"columns": table.columns, "beyond_context": beyond}
    return task, Splits(*fitting.values())


def rows_of(table: Table, name: str, say: Say) -> list[Written]:
    """The pairs of a table. Those with an empty side are left out, which is said."""
    found = []
    for where, row in table.rows:
        texts = [text_of(row[part.name], table.columns[part.name], where) for part in PARTS]
        if not any(map(empty, texts)):
            found.append(Written(*texts))
    if len(found) < len(table.rows):
        say(f"{name}: {len(table.rows) - len(found):,} rows with an empty side are left out")
    if not found:
        raise InputError(f"{name}: every row has an empty side; give texts")
    return found

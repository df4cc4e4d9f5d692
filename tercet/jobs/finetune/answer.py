"""The task `answer`: the stretch of a context that answers a question, as in SQuAD 1.1.

Question and context stand in one sequence; contexts beyond the model's are read in windows that
overlap by half. As in the published recipe (Devlin et al. 2019, section 4.2), a window that does
not hold the whole answer has its beginning and end at the first token, [CLS]. Of several true
answers the one that most people gave is learned; all of them count in the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tercet.answers import Answer
from tercet.data import Stream
from tercet.data.placed import Placed, PlacedWindows, WhichPlaces
from tercet.data.questions import Answered, questions
from tercet.errors import InputError
from tercet.evaluate.answering import answer_scores, f1
from tercet.jobs.finetune import findings
from tercet.jobs.finetune.bodies import files_of, under_head
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.finetune.splits import overlaps
from tercet.jobs.finetune.task import TEST, TRAIN, VALIDATION, Finished, Folds, Say, Scores, Splits
from tercet.language_model import LanguageModel
from tercet.model import Network
from tercet.represent.answer import answered
from tercet.represent.texts import TextReader
from tercet.text.windows import ContextWindow, context_windows
from tercet.train import Span


@dataclass(frozen=True)
class AnswerTask:
    """See ``Task``."""

    model: LanguageModel
    recipe: FinetuneRecipe
    facts: dict[str, Any]
    metrics: tuple[str, ...] = ("f1", "exact")

    def network(self, seed: int) -> Network:
        return under_head(self.model.network, "span", seed, dropout=self.recipe.train.dropout)

    def stream(self, examples: Sequence[Answered], seed: int) -> Stream:
        model, two = self.model, self.model.config.token_types > 1
        windows = []
        for example in examples:
            name = f"question {example.name!r}"
            for window in context_windows(
                model.tokenizer, example.question, example.context, model.limit, name=name
            ):
                places = places_of(window, example.usual)
                windows.append(Placed(window.ids, places, types=window.types if two else None))
        rows = min(self.recipe.train.rows, len(windows))
        draw = PlacedWindows(windows, rows=rows, seed=seed)
        return Stream(draw, WhichPlaces(), self.recipe.train.micro_tokens)

    def objective(self, examples: Sequence[Answered]) -> Span:
        return Span()

    def scores(self, network: Network, examples: Sequence[Answered]) -> Scores:
        truth = [[text for text, _ in example.answers] for example in examples]
        found = answer_scores(truth, [best.text for best in self._answers(network, examples)])
        return Scores({"f1": found.f1, "exact": found.exact}, str(found), found.n)

    def finish(self, network: Network, validation: Sequence[Answered]) -> Finished:
        changes: dict[str, Any] = {"generation": {}, "problem": None, "temperature": 1.0}
        return Finished(replace(self.model.extras, labels=(), **changes))

    def findings(self, model: LanguageModel, splits: Splits, folds: Folds) -> dict[str, Any]:
        """Questions whose answer shares no word with a true one, the surest first."""
        split, examples = findings.measured(splits)
        wrong = [
            {
                "where": f"question {one.name}",
                "text": one.question,
                "label": one.usual[0],
                "said": best.text,
                "probability": round(best.probability, 4),
            }
            for one, best in zip(examples, self._answers(model.network, examples))
            if not any(f1(best.text, text) for text, _ in one.answers)
        ]
        wrong.sort(key=lambda one: -one["probability"])
        counts = {"n": len(wrong), "of": len(examples)}
        return {"split": split, "mistakes": {**counts, "shown": wrong[: findings.SHOWN]}}

    def _answers(self, network: Network, examples: Sequence[Answered]) -> list[Answer]:
        reader = TextReader(network, self.model.tokenizer, self.model.limit)
        best = answered(reader, [e.question for e in examples], [e.context for e in examples], 1)
        return [answers[0] for answers in best]


def places_of(window: ContextWindow, answer: tuple[str, int]) -> tuple[int, int]:
    """The first and the last token of an answer in a window; both the window's first token where it
    does not hold all of it."""
    text, start = answer
    start += len(text) - len(text.lstrip())
    stop = start + len(text.strip())
    touched = [
        i for i, (first, last) in enumerate(window.characters) if first < stop and last > start
    ]
    if not touched or window.characters[touched[0]][0] > start:
        return 0, 0
    if window.characters[touched[-1]][1] < stop:
        return 0, 0
    return window.context[touched[0]], window.context[touched[-1]]


def _check(examples: Sequence[Answered], model: LanguageModel) -> None:
    """Raises InputError for a question that is empty or too long, before anything is learned."""
    asked = model.tokenizer.encode_batch([one.question for one in examples])
    for one, ids in zip(examples, asked, strict=True):
        # shorter ones leave the context the quarter that it must have
        if len(ids) > model.limit // 2 or not one.question.strip():
            name = f"question {one.name!r}"
            context_windows(model.tokenizer, one.question, one.context, model.limit, name=name)


def answer(recipe: FinetuneRecipe, model: LanguageModel, say: Say) -> tuple[AnswerTask, Splits]:
    """Reads what the recipe names, files in the form of SQuAD. See ``Reader``."""
    if recipe.data.columns:
        raise InputError("data.columns: files in the form of SQuAD have no columns; drop the names")
    parts: dict[str, list[Answered]] = {}
    for name, files in files_of(recipe.data).items():
        parts[name] = []
        for file in files:
            read = questions(file)
            say(f"{file}: {read}")
            parts[name] += read.rows
    for part in parts.values():
        _check(part, model)
    facts: dict[str, Any] = {name: len(part) for name, part in parts.items()}
    facts |= overlaps(parts, "contexts", say, lambda one: (one.question, one.context))
    splits = Splits(*(parts.get(name, ()) for name in (TRAIN, VALIDATION, TEST)))
    return AnswerTask(model, recipe, facts), splits

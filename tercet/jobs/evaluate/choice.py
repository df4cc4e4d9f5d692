"""The verbs `evaluate choice` and `evaluate lambada`: which of several texts a decoder holds for
the likeliest, and whether it knows a passage's last word."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.files import writable
from tercet.jobs.flags import Model, print_json, say, unset, visible

if TYPE_CHECKING:
    from tercet.evaluate.significance import Figure
    from tercet.evaluate.tasks import Question
    from tercet.represent.score import Foretold


@dataclass(frozen=True)
class Rows:
    """A question a row."""

    data: Annotated[Positional[str], arg(metavar="DATA", help_behavior_hint="")]
    """.jsonl, .csv, .tsv or .parquet, also packed (.gz), or hub:owner/name"""
    limit: Annotated[int | None, unset("N")] = None
    """the first N rows only"""


@dataclass(frozen=True)
class Form:
    """How a row becomes a question, where it is no known task."""

    prompt: Annotated[str | None, unset("TEMPLATE")] = None
    r"""what stands before a choice, columns in braces, \n for a new line"""
    choices: Annotated[str | None, unset("COLUMN")] = None
    """the column with the list of choices, or a column for each: a,b,c"""
    answer: Annotated[str | None, unset("COLUMN")] = None
    """the column of the right one: its number from 0, its letter or its text"""


@dataclass(frozen=True)
class Output:
    """What is told."""

    out: Annotated[str | None, unset("FILE")] = None
    """keep the outcome of each row there, for `tercet compare`"""
    quiet: bool = False
    """no progress"""
    json: bool = False
    """one JSON object"""


def run(
    model: Model,
    rows: Rows,
    form: Form,
    output: Output,
    *,
    task: Annotated[str | None, unset("TASK")] = None,
) -> None:
    """How often a decoder holds the right one of several choices for the likeliest.

    acc goes by the log-probability of a choice behind its prompt, acc_norm by that for each
    character, each ± its standard error. Figures are those of lm-evaluation-harness to the
    digit: of what is longer than the model's context the end is read, and how many rows that
    were is said.

      tercet evaluate choice MODEL arc_easy.jsonl --task arc-easy
      tercet evaluate choice MODEL quiz.jsonl --prompt "Question: {question}\\nAnswer:"

    Args:
        task: arc-easy, piqa, copa, winogrande, hellaswag, boolq or blimp; none: a file of your
            own, whose columns for question, choices and answer are named or guessed
    """
    from tercet.evaluate.choice import values
    from tercet.evaluate.significance import mean
    from tercet.evaluate.tasks import guessed, named, questions

    if task is None:
        forms = (guessed(rows.data, prompt=form.prompt, choices=form.choices, answer=form.answer),)
    elif form != Form():
        raise InputError(f"--task {task} says what prompt, choices and answer are; leave one out")
    else:
        forms = named(task)
    kind, asked = questions(rows.data, forms, rows.limit)
    if task is None and not (output.quiet or output.json):
        say(f"prompt {kind.prompt!r}, choices {kind.choices!r}, answer {kind.answer!r}")
    found, cut = _found(model, rows, asked, task or "choice", output)
    told = values(asked, found, kind.metrics)
    figures = {metric: mean(column) for metric, column in told.items()}
    _Told(model, rows, f"choice {task or kind.prompt}", asked, cut).tell(figures, told, output)


def last_word(model: Model, rows: Rows, output: Output) -> None:
    """Whether a decoder knows the last word of passages that need all of their text (LAMBADA).

    acc counts the passages whose last word is the likeliest, token by token; the perplexity is
    that of the last words. Both with their standard errors, as lm-evaluation-harness has them.
    Columns: context and continuation, or text.

      tercet evaluate lambada MODEL lambada_openai.jsonl
    """
    from tercet.evaluate.choice import last_words
    from tercet.evaluate.significance import mean, perplexity
    from tercet.evaluate.tasks import LAMBADA, questions

    _, asked = questions(rows.data, LAMBADA, rows.limit)
    found, cut = _found(model, rows, asked, "lambada", output)
    told = last_words(found)
    figures = {"acc": mean(told["acc"]), "perplexity": perplexity(told["log_probability"])}
    _Told(model, rows, "lambada", asked, cut).tell(figures, told, output)


def _found(
    model: Model, rows: Rows, asked: Sequence[Question], stage: str, output: Output
) -> tuple[list[list[Foretold]], dict[str, int]]:
    """What the model makes of the questions, and what did not fit."""
    from tercet.evaluate.choice import answered
    from tercet.jobs.display import Display
    from tercet.text import CutReport

    if output.out is not None:
        writable(output.out, source=rows.data)
    loaded, report = model.load("score"), CutReport()
    with Display(quiet=output.quiet) as display:

        def watch(done: int, total: int) -> None:
            display(stage, done, total, done)

        found = answered(loaded, asked, report, watch=watch)
    cut = {
        "context": loaded.limit,
        "cut": report.cut_texts,
        "tokens_lost": report.lost_tokens,
    }
    return found, cut


@dataclass(frozen=True)
class _Told:
    """What is said beside the figures."""

    model: Model
    rows: Rows
    measure: str
    asked: Sequence[Question]
    cut: Mapping[str, int]

    def tell(
        self, figures: Mapping[str, Figure], values: Mapping[str, list[float]], output: Output
    ) -> None:
        from tercet.evaluate.results import Results, write

        told = {
            "measure": self.measure,
            "model": self.model.model,
            "data": self.rows.data,
            "rows": len(self.asked),
            **self.cut,
            "figures": plain(figures),
        }
        groups = self._groups(values)
        if groups:
            told["groups"] = {name: plain(one) for name, one in groups.items()}
        if output.out is not None:
            keys = [question.key for question in self.asked]
            write(output.out, Results(self.measure, self.model.model, keys, values), told)
        if output.json:
            print_json(told)
            return
        if self.cut["cut"]:
            say(
                f"{self.cut['cut']:,} of {len(self.asked):,} rows are longer than the model's "
                f"{self.cut['context']:,} tokens: {self.cut['tokens_lost']:,} at their beginnings "
                "were not read"
            )
        print(f"{self.rows.data}: {self.measure}, {len(self.asked):,} rows")
        for name, one in groups.items():
            print(f"  {visible(name, 40):40}" + "".join(f"  {figure}" for figure in one.values()))
        for metric, figure in figures.items():
            print(f"{metric:12}{figure}")

    def _groups(self, values: Mapping[str, list[float]]) -> dict[str, dict[str, Figure]]:
        from tercet.evaluate.significance import mean

        found: dict[str, dict[str, Figure]] = {}
        for name in dict.fromkeys(question.group for question in self.asked if question.group):
            own = [i for i, question in enumerate(self.asked) if question.group == name]
            found[name] = {
                metric: mean([column[i] for i in own]) for metric, column in values.items()
            }
        return found


def plain(figures: Mapping[str, Figure]) -> dict[str, Any]:
    return {
        name: {
            "value": figure.value,
            "standard_error": figure.error if math.isfinite(figure.error) else None,
            "n": figure.n,
        }
        for name, figure in figures.items()
    }

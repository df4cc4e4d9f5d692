"""The verb `evaluate instructions`: how often a model does what it is told, by rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from tercet.files import writable
from tercet.jobs.evaluate.choice import Output, plain
from tercet.jobs.flags import Model, print_json, say, unset, visible

if TYPE_CHECKING:
    from tercet.evaluate.instructions import Answer, Prompt
    from tercet.evaluate.significance import Figure
    from tercet.language_model import LanguageModel

WIDEST = 40  # characters of a kind


def measure(most: int) -> str:
    """What was asked; answers that are cut elsewhere are not compared."""
    return f"instructions to {most:,} tokens"


@dataclass(frozen=True)
class Asked:
    """A prompt a row."""

    data: Annotated[Positional[str], arg(metavar="DATA", help_behavior_hint="")]
    """conversations in any form that training reads, or prompts with a check"""
    limit: Annotated[int | None, unset("N")] = None
    """the first N rows only"""
    max_new_tokens: Annotated[int, arg(metavar="N")] = 128
    """where an answer that has not ended is cut"""


def run(model: Model, asked: Asked, output: Output) -> None:
    """How often a model obeys prompts whose answers a rule can check.

    Answers are written greedily, by the path of `tercet chat`. obeyed: the share that passes the
    row's check; ended: the share whose turn the model ended itself; each ± its standard error. A
    check is {"equals": "old road"}, or of contains, without, starts, ends, sentences, most_words,
    least_words, lowercase, uppercase and json; of several all must hold. A row without a check has
    an answer, which must be met exactly. The column kind gives a line to each kind.

      tercet evaluate instructions MODEL prompts.jsonl
    """
    from tercet.evaluate.instructions import prompts

    if output.out is not None:
        writable(output.out, source=asked.data)
    rows = prompts(asked.data, asked.limit)
    loaded = model.load("chat")
    found = answered(loaded, rows, asked.max_new_tokens, asked.data, quiet=output.quiet)
    most = asked.max_new_tokens
    told = {"measure": measure(most), "model": model.model, "data": asked.data}
    told |= {"max_new_tokens": most, **facts(rows, found)}
    if output.out is not None:
        keep(output.out, told, rows, found)
    if output.json:
        print_json(told)
        return
    _print(told, rows, found)


def answered(
    model: LanguageModel, rows: Sequence[Prompt], most: int, stage: str, *, quiet: bool
) -> list[Answer]:
    """The answers, with a bar. What did not fit is counted in them, not warned of one by one."""
    import warnings

    from tercet.answers import CutWarning
    from tercet.evaluate.instructions import answers
    from tercet.jobs.display import Display

    with Display(quiet=quiet) as display, warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)
        return answers(
            model,
            rows,
            max_new_tokens=most,
            watch=lambda done, total: display(stage, done, total, 0),
        )


def facts(rows: Sequence[Prompt], found: Sequence[Answer]) -> dict[str, Any]:
    """The figures, whole and by kind, and how many prompts were cut."""
    groups = _groups(rows, found)
    told: dict[str, Any] = {
        "rows": len(rows),
        "cut": sum(answer.dropped > 0 for answer in found),
        "tokens_lost": sum(answer.dropped for answer in found),
        "figures": plain(_figures(found)),
    }
    if groups:
        told["groups"] = {kind: plain(figures) for kind, figures in groups.items()}
    return told


def keep(path: str, told: dict[str, Any], rows: Sequence[Prompt], found: Sequence[Answer]) -> None:
    """The outcome of each prompt, for `tercet compare`, and the answers for people."""
    from tercet.evaluate.instructions import values
    from tercet.evaluate.results import Results, write

    outcome = Results(told["measure"], told["model"], [row.key for row in rows], values(found))
    write(path, outcome, {**told, "answers": [answer.text for answer in found]})


def _figures(found: Sequence[Answer]) -> dict[str, Figure]:
    from tercet.evaluate.instructions import values
    from tercet.evaluate.significance import mean

    return {metric: mean(column) for metric, column in values(found).items()}


def _groups(rows: Sequence[Prompt], found: Sequence[Answer]) -> dict[str, dict[str, Figure]]:
    from tercet.evaluate.instructions import by_kind

    return {kind: _figures(own) for kind, own in by_kind(rows, found).items()}


def _print(told: dict[str, Any], rows: Sequence[Prompt], found: Sequence[Answer]) -> None:
    if told["cut"]:
        say(
            f"of {told['cut']:,} of {told['rows']:,} conversations the oldest turns did not fit "
            f"the context: {told['tokens_lost']:,} tokens were not read"
        )
    print(f"{told['data']}: {told['measure']}, {told['rows']:,} prompts; obeyed, ended")
    groups = [(visible(kind, WIDEST), one) for kind, one in _groups(rows, found).items()]
    width = max((len(kind) for kind, _ in groups), default=0)
    for kind, figures in groups:
        n = figures["obeyed"].n
        print(f"  {kind:{width}}{n:8,}" + "".join(f"  {figure}" for figure in figures.values()))
    for metric, figure in _figures(found).items():
        print(f"{metric:12}{figure}")

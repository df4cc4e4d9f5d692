"""A small decoder learns to do what it is told, and then one constraint more by preferences: how
often rules say that it obeyed, before and after, and whether its turns end."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.evaluate.significance import Figure, mean
from tercet.jobs import recipe as recipes
from tercet.jobs.flags import say
from tercet.jobs.reproduce.made import make
from tercet.jobs.reproduce.table import Row, trained
from tercet.jobs.train.settings import RunRecipe
from tercet.train.progress import clock

if TYPE_CHECKING:
    from tercet.jobs.train.run import Run

BASE, TUNED, ALIGNED = "base", "tuned", "aligned"
CERTAIN = 1.96  # standard errors on each side: 95 %
Column = dict[str, list[float]]  # obeyed, ended: 1 or 0 for each prompt


def instruct(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """``base``: the decoder. ``tables``: what is made of other files, by name. ``stages``: recipes
    of `tercet train` without their models, each of which goes on from the one before; "tuned" has
    learned to obey, and "aligned" the constraint. ``asked``: the table of prompts whose answers a
    rule knows, and ``open``: that of the constraint."""
    tables = {name: make(folder / f"{name}.jsonl", made) for name, made in entry["tables"].items()}
    base, _ = trained(entry["base"]["recipe"], Path(entry["base"]["folder"]), quiet=quiet)
    before = base.folder / "model"
    models = {BASE: before}
    runs: dict[str, tuple[Run, dict[str, Any]]] = {}
    for name, told in entry["stages"].items():
        runs[name] = trained(_recipe(told, before, tables), folder / name, quiet=quiet)
        before = folder / name / "model"
        if name in (TUNED, ALIGNED):
            models[name] = before
    job = _Job(entry, folder, tables, quiet)
    found = {
        name: {table: job.answered(name, model, table) for table in ("asked", "open")}
        for name, model in models.items()
    }
    return [
        *_obeyed(found, entry["aims"], job.kinds("asked")),
        *_constraint(found, entry["aims"]),
        *_ended(found, entry["aims"]),
        _perplexity(*runs[TUNED]),
        *_cost(runs),
    ]


def _recipe(told: dict[str, Any], model: Path, tables: dict[str, str]) -> RunRecipe:
    """With the model to begin with, and the tables in the place of their names."""
    data = {
        name: {
            **source,
            "files": [tables[one] for one in source["files"]],
            "validation": [tables[one] for one in source["validation"]],
        }
        for name, source in told["data"].items()
    }
    whole = {**told, "model": {"folder": str(model)}, "data": data}
    return recipes.built(RunRecipe, whole, "the experiment")


class _Job:
    def __init__(
        self, entry: dict[str, Any], folder: Path, tables: dict[str, str], quiet: bool
    ) -> None:
        self.entry, self.folder, self.tables, self.quiet = entry, folder, tables, quiet

    def answered(self, name: str, model: Path, table: str) -> Column:
        """What a model made of a table's prompts: asked now, or found in the file that a former
        asking left, of the same model and prompts. `tercet compare` reads the files."""
        from tercet.evaluate.instructions import prompts
        from tercet.evaluate.results import read
        from tercet.jobs.evaluate.instructions import answered, facts, keep, measure
        from tercet.language_model import load
        from tercet.language_model.identity import fingerprint

        loaded, rows = load(str(model)), prompts(self.tables[self.entry[table]])
        most, path = self.entry["max_new_tokens"][table], self.folder / f"{name}-{table}.json"
        known = {"fingerprint": fingerprint(loaded), "max_new_tokens": most}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            same = all(kept.get(key) == value for key, value in known.items())
            if same and kept["items"] == [row.key for row in rows]:
                return dict(read(path).values)  # type: ignore[arg-type]
        found = answered(loaded, rows, most, f"{name}, {table}", quiet=self.quiet)
        told = {
            "measure": measure(most),
            "model": str(model),
            "data": self.tables[self.entry[table]],
        }
        told = {**told, **known, **facts(rows, found)}
        keep(str(path), told, rows, found)
        if not self.quiet:
            each = (
                f"{metric} {100 * one['value']:.1f} %" for metric, one in told["figures"].items()
            )
            say(f"{name}, {table}: {', '.join(each)}")
        return dict(read(path).values)  # type: ignore[arg-type]

    def kinds(self, table: str) -> list[str]:
        from tercet.evaluate.instructions import prompts

        return [row.kind for row in prompts(self.tables[self.entry[table]])]


def _obeyed(
    found: dict[str, dict[str, Column]], aims: dict[str, Any], kinds: Sequence[str]
) -> list[Row]:
    rows = []
    for name, tables in found.items():
        figure = _percent(tables["asked"]["obeyed"])
        aim = {BASE: f"< {aims['base']}", TUNED: f">= {aims['tuned']}"}.get(name)
        rows.append(Row(f"prompts obeyed, %: {name}", figure.value, aim, _sure(figure)))
    for kind in dict.fromkeys(kinds):
        own = [i for i, one in enumerate(kinds) if one == kind]
        figures = {
            name: _percent([tables["asked"]["obeyed"][i] for i in own])
            for name, tables in found.items()
        }
        beside = f"base {figures[BASE].value:.0f}, aligned {figures[ALIGNED].value:.0f}"
        note = f"{_sure(figures[TUNED])}; {beside}"
        rows.append(Row(f"  {kind}, %: tuned", figures[TUNED].value, None, note))
    return rows


def _constraint(found: dict[str, dict[str, Column]], aims: dict[str, Any]) -> list[Row]:
    """The share of open questions that were answered as they asked, and what preferences added."""
    figures = {name: _percent(tables["open"]["obeyed"]) for name, tables in found.items()}
    rows = [
        Row(f"answered in one sentence, %: {name}", figure.value, None, _sure(figure))
        for name, figure in figures.items()
    ]
    (_, high), (low, _) = _interval(figures[TUNED]), _interval(figures[ALIGNED])
    added = figures[ALIGNED].value - figures[TUNED].value
    apart = f"the 95 % intervals are {'apart' if high < low else 'NOT apart'}"
    return [*rows, Row("preferences add, points", added, f">= {aims['added']}", apart)]


def _ended(found: dict[str, dict[str, Column]], aims: dict[str, Any]) -> list[Row]:
    rows = []
    for name, tables in found.items():
        figure = _percent([*tables["asked"]["ended"], *tables["open"]["ended"]])
        apart = ", ".join(
            f"{one}: {_percent(column['ended']).value:.1f}" for one, column in tables.items()
        )
        aim = None if name == BASE else f">= {aims['ended']}"
        rows.append(Row(f"turns ended, %: {name}", figure.value, aim, f"{_sure(figure)}; {apart}"))
    return rows


def _percent(column: Sequence[float]) -> Figure:
    return mean([100 * one for one in column])


def _interval(figure: Figure) -> tuple[float, float]:
    return figure.value - CERTAIN * figure.error, figure.value + CERTAIN * figure.error


def _sure(figure: Figure) -> str:
    return f"± {figure.error:.1f}, {figure.n:,} prompts"


def _perplexity(run: Run, result: dict[str, Any]) -> Row:
    """Of the validation's answers: the trainer's figure beside that of the saved model, read by the
    path of `chat` from the conversations as they stand in the files."""
    ours = math.exp(said_loss(run))
    theirs = math.exp(result["loss"])
    note = f"theirs: the trainer's; they differ by {abs(ours / theirs - 1):.1e} of it"
    return Row("perplexity of an answer's token, by chat's path", ours, theirs, note)


def said_loss(run: Run) -> float:
    """Nats a token of the validation's answers, each behind the prompt that ``chat`` would give the
    model in the run's folder."""
    from tercet.data.conversations import conversations
    from tercet.language_model import load
    from tercet.represent.score import Ending, foretold
    from tercet.text.chat import ChatTemplate

    model, groups = load(str(run.folder / "model")), []
    template = ChatTemplate.of(model.tokenizer)
    for source in run.recipe.data.values():
        assert isinstance(source.validation, list)
        for one in conversations(source.validation, form=source.form).conversations:
            before = template.prompt(one.messages[:-1])
            ids, mask = template.compile(one.messages)
            ids = ids[: len(mask) - mask[::-1].index(True)]  # to the end of the turn
            assert ids[: len(before)] == before
            if len(ids) <= run.recipe.objective.length:
                groups.append([Ending(ids, len(ids) - len(before))])
    nats = -math.fsum(one.log_probability for _, (one,) in foretold(model.network, groups))
    return nats / sum(ending.n_targets for (ending,) in groups)


def _cost(runs: dict[str, tuple[Run, dict[str, Any]]]) -> list[Row]:
    return [
        Row(
            f"training, {name}",
            clock(result["seconds"]),
            None,
            f"{result['step']:,} steps, {result['tokens']:,} tokens; {run.about()}",
        )
        for name, (run, result) in runs.items()
    ]

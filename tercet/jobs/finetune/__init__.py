"""tercet finetune: a pretrained model and a table of examples become a model for a task.

Reads the recipe, cuts the data, runs each seed or fold in a folder of its own, keeps the best
model, and writes down what it is worth. Loads no torch until a run begins.
"""

from __future__ import annotations

import json as jsons
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from tercet.errors import InputError
from tercet.files import locked, written
from tercet.jobs import recipe as recipes
from tercet.jobs.checks import choice
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.jobs.flags import print_json, say, unset

if TYPE_CHECKING:
    from tercet.jobs.finetune.task import Reader

CURVE = "curve"  # the folder of the runs on fewer rows
FINDINGS = "findings.json"  # beside it, what the best model shows of the data
DIGESTS = "files.json"  # what the base's and the rows' files held when it began: name -> SHA-256
# where each task is; one function that reads the data, see task.py
TASKS = {
    name: f"tercet.jobs.finetune.{name}:{name}"
    for name in ("classify", "tag", "answer", "embed", "rank", "seq2seq")
}
WORKED = (recipes.LOG, "cost.json")  # what a run, or a rung, leaves from its first moments on
# what may differ when a run goes on: nothing that decides what a step reads or does to the weights,
# but for the draw of dropout, which is another one in other micro-batches
MAY_CHANGE = ("about", "evaluate.patience", "curve.sizes", "curve.scratch", "train.micro_tokens")
LEARNED = ("evaluate.patience",)  # of these, what tells how a run that has ended came about
BASE = ("*.safetensors", "*.json", "*.txt")  # weights, settings, tokenizer


def run(
    model: Annotated[Positional[str], arg(metavar="MODEL", help_behavior_hint="")],
    data: Annotated[Positional[tuple[str, ...]], arg(metavar="DATA...", help_behavior_hint="")],
    *,
    task: Annotated[str, arg(metavar="TASK")] = "classify",
    validation: Annotated[str | None, unset("FILE")] = None,
    test: Annotated[str | None, unset("FILE")] = None,
    text: Annotated[str | None, unset("COLUMN")] = None,
    pair: Annotated[str | None, unset("COLUMN")] = None,
    label: Annotated[str | None, unset("COLUMN")] = None,
    folder: Annotated[Path | None, unset("FOLDER")] = None,
    set: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE")] = (),
    seeds: Annotated[int | None, unset("N")] = None,
    folds: Annotated[int | None, unset("K")] = None,
    curve: Annotated[str | None, unset("N,N...")] = None,
    scratch: bool = False,
    ladder: bool = False,
    resume: bool = False,
    print: bool = False,
    quiet: bool = False,
    json: bool = False,
) -> None:
    """Fine-tune a pretrained model on your own labelled rows.

    Ctrl-C saves, and leaves the best model so far; the same command with --resume goes on, bit for
    bit as if it had not stopped.

      tercet finetune owner/name train.csv --task classify --test test.csv --label topic

    Args:
        model: a folder, or a model of the Hugging Face hub: owner/name
        data: files to learn from: .csv, .tsv, .jsonl, .parquet; tagged words: .conllu, .jsonl, or a
            word and its tag a line; questions: .json in the form of SQuAD (all also .gz); for embed
            also plain text, and for embed and rank a retrieval folder
        task: what is to be learned: classify, tag (words), answer (questions), embed, rank, seq2seq
        validation: rows to choose the best epoch by; a tenth of the data if not given
        test: rows that the best model is measured on at the end
        text: the column of the text, or of the words, if its name does not say so
        pair: the column of a second text, where two belong together
        label: the column of the label, the labels, the number, the tags, or (embed, rank) the score
        folder: where the run is written; runs/TASK if not given
        set: change a key of the recipe, as train.epochs=3; may be given again and again
        seeds: so many runs, each with another seed: mean and deviation, the best is kept
        folds: so many runs, each validated on another part of the data
        curve: the same also on so many rows, as 50,200,1000: what more labels would bring
        scratch: the curve also with new weights instead of the pretrained ones
        ladder: the cheapest way to learn that is good enough, found from below (task classify)
        resume: go on with the run that is in the folder
        print: print the resolved recipe and stop
        quiet: no progress
        json: the result as one JSON object
    """
    tree: dict[str, Any] = {"model": model, "task": task, "data": {"train": list(data)}}
    for name, file in (("validation", validation), ("test", test)):
        if file is not None:
            tree["data"][name] = [file]
    named = {"text": text, "pair": pair, "label": label}
    tree["data"]["columns"] = {part: name for part, name in named.items() if name is not None}
    tree |= {name: n for name, n in (("seeds", seeds), ("folds", folds)) if n is not None}
    if curve is not None or scratch:
        tree["curve"] = {"sizes": [] if curve is None else _sizes(curve), "scratch": scratch}
    if ladder:
        tree["ladder"] = {}
    for change in set:
        recipes.change_key(tree, change)
    wanted = recipes.built(FinetuneRecipe, tree, "finetune")
    choice("task", wanted.task, list(TASKS))
    if print:
        import builtins

        builtins.print(recipes.text(wanted), end="")
        return
    place = folder or Path("runs") / wanted.task
    try:
        result = finetune(wanted, place, resume=resume, quiet=quiet or json)
    except KeyboardInterrupt:
        there = (place / "model").exists()
        best = (
            f"the best model so far is in {place / 'model'}" if there else "there is no model yet"
        )
        say(f"{best}; the same command with --resume goes on")
        raise
    if json:
        print_json(result)
        return
    import builtins

    from tercet.jobs.finetune.card import curve_lines, sentences

    builtins.print("\n".join([*sentences(result), *curve_lines(result)]))
    say(f"the model is in {place / 'model'}; README.md there tells how it came about")
    if result.get("library") == "tercet":
        say("transformers has no class for this head; tercet.load opens the folder")
    odd = "what it gets wrong, and what is odd in the data"
    say(f"tercet report {place} shows {odd if kept(place / FINDINGS) else 'how it learned'}")


def finetune(
    wanted: FinetuneRecipe, folder: Path, *, resume: bool = False, quiet: bool = True
) -> dict[str, Any]:
    """The whole job: what result.json then holds, findings.json, and the best model in
    ``folder/model``.

    Raises InputError for whatever is wrong with model, data or settings, before anything is
    trained; and for a folder that holds a run already, unless it is to go on.
    """
    with locked(folder):
        fresh = not (folder / recipes.RECIPE).exists()
        begin(wanted, folder, resume=resume)
        result, shown = (kept(folder / name) for name in (recipes.RESULT, FINDINGS))
        if result is not None and wanted.curve.sizes:
            drawn = result.get("curve", {}).get("of")
            result = result if drawn == asdict(wanted.curve) else None  # it gets its curve now
        if result is not None and shown is not None:
            return result
        from tercet.jobs.finetune.job import Job
        from tercet.kernels.memory import keep_pages

        keep_pages()  # the token table's gradient is new at every step, and large
        module, _, name = TASKS[wanted.task].partition(":")
        reader: Reader = getattr(import_module(module), name)
        try:
            job, climb = Job.of(wanted, folder, reader, quiet=quiet), None
            if wanted.ladder is not None:
                from tercet.jobs.finetune.ladder import Climb

                climb = Climb(job)
        except InputError:
            if fresh:  # nothing was begun: no run is to be listed
                for file in (recipes.RECIPE, DIGESTS):
                    (folder / file).unlink()
            raise
        if result is None:
            result = (climb or job).run()
            if not (folder / recipes.RESULT).exists():  # the curve may be stopped, or fail
                _keep(result, folder / recipes.RESULT)
            if climb is None:
                result = job.with_curve(result)
            _keep(result, folder / recipes.RESULT)
        _keep((climb or job).findings(result["best"]), folder / FINDINGS)
        if climb is not None:
            climb.clear()
        return result


def _sizes(said: str) -> list[int]:
    if not all(part.strip().isdigit() for part in said.split(",")):
        raise InputError(f"--curve {said!r}: give numbers of training rows, such as 50,200,1000")
    return [int(part) for part in said.split(",")]


def kept(path: Path) -> dict[str, Any] | None:
    """What a file of a run folder holds, once it is there."""
    return jsons.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _keep(value: dict[str, Any], path: Path) -> None:
    with written(path) as draft:
        draft.write_text(jsons.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def begin(wanted: FinetuneRecipe, folder: Path, *, resume: bool) -> None:
    """The folder with its recipe; a run that is there already goes on only when it may: with the
    same recipe, base and rows."""
    path, model = folder / recipes.RECIPE, folder / "model"
    if model.exists() and (not path.exists() or model.resolve() == Path(wanted.model).resolve()):
        raise InputError(
            f"{model} is there already, and the model that learns would be written over it; choose "
            "another --folder"
        )
    files, ended = _digests(wanted), (folder / recipes.RESULT).exists()
    if path.exists() and (ended or any(map(any, map(folder.rglob, WORKED)))):
        if not resume:
            raise InputError(
                f"{folder} holds a run; --resume goes on with it, --folder chooses another place"
            )
        before = recipes.flat(opened(path))
        after = recipes.flat(wanted)
        may_change = tuple(key for key in MAY_CHANGE if not (ended and key in LEARNED))
        bad = [
            f"{key} was {before.get(key)!r}, is {after.get(key)!r}"
            for key in {**before, **after}
            if before.get(key) != after.get(key) and not key.startswith(may_change)
        ]
        if bad:
            raise InputError(
                f"{folder} was begun with another recipe: {'; '.join(bad)}. A run that "
                f"{'has ended' if ended else 'goes on'} may change {', '.join(may_change)}; for "
                "more, choose another --folder"
            )
        known = kept(folder / DIGESTS) or {}
        if changed := [file for file, now in files.items() if known.get(file, now) != now]:
            raise InputError(
                f"{', '.join(changed)}: not as when {folder} was begun; put the file back, or "
                "choose another --folder"
            )
        files = known | files
    _keep(files, folder / DIGESTS)
    with written(path) as draft:
        draft.write_text(recipes.text(wanted), encoding="utf-8")


def _digests(wanted: FinetuneRecipe) -> dict[str, str]:
    """Of each file of the base and of rows that is there; what is missing its reader will say."""
    from tercet.data.items import checksum_of
    from tercet.data.sources import found

    held = wanted.data.validation if isinstance(wanted.data.validation, list) else []
    base = Path(wanted.model)  # a name of the hub is no folder
    names = [str(path) for end in BASE for path in sorted(base.glob(end))]
    for name in (*wanted.data.train, *held, *wanted.data.test):
        with suppress(InputError):
            names += found(recipes.expanded([name]))
    return {name: digest for name in names if (digest := checksum_of(name)) is not None}


def is_finetuning(path: Path) -> bool:
    """Whether a run's recipe is one of ours."""
    return path.exists() and "task" in recipes.tree_of(path.read_text("utf-8"), str(path))


def opened(path: Path) -> FinetuneRecipe:
    """The recipe of a run."""
    tree = recipes.tree_of(path.read_text(encoding="utf-8"), str(path))
    return recipes.built(FinetuneRecipe, tree, str(path))

"""tercet train: a recipe becomes a run in a folder, and goes on there after any interruption.

The order of a run: recipe checked, data prepared, parts built, trained under the eyes of a log, a
recorder and the validation split, and saved as a Hugging Face folder.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from tercet.errors import InputError
from tercet.files import locked, written
from tercet.jobs import recipe as recipes
from tercet.jobs.flags import say, unset
from tercet.jobs.train.settings import RunRecipe

if TYPE_CHECKING:
    from tercet.jobs.train.run import Run
    from tercet.model import Network
    from tercet.train import State, World

# one of them stands in a folder where work was done
BEGUN = (recipes.RESULT, recipes.LOG, "data/manifest.json")
# What may differ when a run goes on: nothing that decides what a step reads or does to the weights.
MAY_CHANGE = (
    *("about", "evaluate.patience", "evaluate.prompts", "evaluate.max_new_tokens"),
    *("checkpoint", "train.on_trouble", "train.spike", "train.recompute", "batch.micro_tokens"),
)


def run(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help_behavior_hint="")],
    *,
    folder: Annotated[Path | None, unset("FOLDER")] = None,
    set: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE")] = (),
    budget: Annotated[str | None, unset("TIME")] = None,
    resume: bool = False,
    fit: bool = False,
    print: bool = False,
    quiet: bool = False,
) -> None:
    """Pretrain an encoder, a decoder or an encoder-decoder on your own files, or tune a decoder.

    Ctrl-C saves; the same command with --resume goes on, bit for bit as if it had not stopped.
    Under torchrun every process takes its share of each step.
    Example: tercet train gpt-mini --set data.files=[mine/*.txt] --budget 30m

    Args:
        recipe: a YAML file, or the name of a shipped recipe.
        folder: where the run is written; runs/NAME of the recipe if not given.
        set: change a key of the recipe, as train.steps=500; may be given again and again.
        budget: a time, as 30m: the speed is measured and the number of steps fixed by it.
        resume: go on with the run that is in the folder.
        fit: where memory does not suffice, take the cheapest change that keeps the step's batch.
        print: print the resolved recipe and stop.
        quiet: no progress.
    """
    changes = [*set, *([f"train.budget={budget}"] if budget else [])]
    wanted = recipes.load(recipe, changes)
    if print:
        import builtins

        builtins.print(recipes.text(wanted), end="")
        return
    place = folder or Path("runs") / Path(recipe).stem
    trained = train(wanted, place, resume=resume, fit=fit, quiet=quiet)
    if trained is not None:
        say(f"{trained}: tercet report {place} draws the run; the model is in {place / 'model'}")


def train(
    wanted: RunRecipe, folder: Path, *, resume: bool = False, fit: bool = False, quiet: bool = True
) -> str | None:
    """The whole job; a sentence about its end (in the first process), None in the others."""
    from tercet.jobs.train.run import Run
    from tercet.train import world

    Run.of(folder, wanted).check()
    with world() as here, ExitStack() as stack:
        if here.rank == 0:
            stack.enter_context(locked(folder))
            begin(wanted, folder, resume=resume)
        here.any(False)  # the others wait until the folder is begun
        if (folder / recipes.RESULT).exists():
            return "the run is complete" if here.rank == 0 else None
        run = Run.open(folder)
        if here.rank == 0:
            from tercet.jobs.display import Display

            with Display(quiet=quiet) as display:
                if not run.prepare(display):  # it lay there
                    run.verify_data()
        here.any(False)
        state = _fitting(run, here, quiet=quiet or here.rank > 0, fit=fit)
        return _sentence(run, state) if here.rank == 0 else None


def _fitting(run: Run, world: World, *, quiet: bool, fit: bool) -> State:
    """The training; where the memory does not suffice, what to change, or with ``fit`` changed."""
    from tercet.jobs.train import memory
    from tercet.kernels.memory import give_back

    say_once = say if not quiet else (lambda sentence: None)
    now = memory.need(run)
    say_once(str(now))
    if fit and world.size > 1:
        raise InputError("--fit is for one process; set batch.micro_tokens for several")
    options = memory.smaller(run.recipe, run.recipe.objective.length) if fit else []
    if not fit and memory.short(run, now):
        say_once("this may be more than the memory that is free; --fit takes what fits")
    while options and memory.short(run, memory.need(run)):
        run = _smaller(run, options)
    while True:
        try:
            return _train(run, world, quiet=quiet)
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
        give_back()  # behind the error, which held what had been computed
        if not options:
            raise memory.advice(run)
        run = _smaller(run, options)


def _smaller(run: Run, options: list[tuple[str, RunRecipe]]) -> Run:
    """The run with the next change that saves memory."""
    words, smaller = options.pop(0)
    say(f"the memory does not suffice; going on with {words}")
    _keep(smaller, run.folder)
    return run.with_recipe(smaller)


def begin(wanted: RunRecipe, folder: Path, *, resume: bool) -> None:
    """The folder with its recipe; a run that is there already goes on only when it may. Where
    nothing came of a recipe but itself (a file's name was wrong, say), another may take its place.
    """
    path = folder / recipes.RECIPE
    if path.exists() and any((folder / name).exists() for name in BEGUN):
        if not resume:
            raise InputError(
                f"{folder} holds a run; --resume goes on with it, --folder chooses another place"
            )
        before = recipes.load(str(path))
        compare(before, wanted, folder)
        wanted = _as_cut(before, wanted)
    _keep(wanted, folder)


def _keep(recipe: RunRecipe, folder: Path) -> None:
    with written(folder / recipes.RECIPE) as draft:
        draft.write_text(recipes.text(recipe), encoding="utf-8")


def _as_cut(before: RunRecipe, wanted: RunRecipe) -> RunRecipe:
    """What --fit took before is taken again: dropout is drawn for each micro-batch."""
    micro = wanted.batch.micro_tokens or before.batch.micro_tokens
    recompute = wanted.train.recompute or before.train.recompute
    return dataclasses.replace(
        wanted,
        batch=dataclasses.replace(wanted.batch, micro_tokens=micro),
        train=dataclasses.replace(wanted.train, recompute=recompute),
    )


def compare(old: RunRecipe, new: RunRecipe, folder: Path) -> None:
    """Raises InputError where a run's recipe differs in what it may not."""
    before, after = recipes.flat(old), recipes.flat(new)
    changed = [k for k in {**before, **after} if before.get(k) != after.get(k)]
    bad = [key for key in changed if not key.startswith(MAY_CHANGE)]
    if bad:
        said = "; ".join(f"{k} was {before.get(k)!r}, is {after.get(k)!r}" for k in bad)
        raise InputError(
            f"{folder} was begun with another recipe: {said}. A run that goes on may change "
            f"{', '.join(MAY_CHANGE)}; for more, choose another --folder"
        )


def _train(run: Run, world: World, *, quiet: bool) -> State:
    from tercet.jobs.precision import IN_FLOAT32
    from tercet.jobs.train.validation import Validation
    from tercet.kernels.memory import keep_pages
    from tercet.train import Log, Recorder, State
    from tercet.train import fit as optimise
    from tercet.train.log import rows
    from tercet.train.progress import Watch
    from tercet.train.wrapped import compile_blocks, recompute

    network = run.network()
    optimizer = run.optimizer(network)
    averages = run.averages(network)
    checkpoints = run.checkpoints(network, optimizer, averages)
    state = checkpoints.load() or State()
    if run.recipe.train.recompute:
        recompute(network)
    if run.recipe.train.compile and (why := compile_blocks(network)) and not quiet:
        say(why)
    if run.recipe.train.bfloat16 and not run.bfloat16 and not quiet:
        say(IN_FLOAT32)
    stream = run.stream(rank=world.rank, world=world.size, network=network)
    if (about := run.about()) and not quiet:
        say(about)
    told = {"about": about} if about else {}
    state.plan |= {str(row["step"]): row["steps"] for row in rows(run.folder / recipes.LOG, "plan")}
    first = world.rank == 0
    if not any(batch.n_targets for batch in run.validation()):
        raise InputError(
            "the validation split has no targets; give longer texts or a larger share to validation"
        )
    with ExitStack() as stack:
        log = None
        if first:
            path = run.folder / recipes.LOG
            log = stack.enter_context(
                Log(path, step=state.step, board=_board(run.folder, state.step))
            )
            log("event", state.step, **_beginning(run, network, state, world), **told)
        watch = stack.enter_context(Watch(run.folder.name, quiet=quiet, share=_share(run, quiet)))
        save: Callable[[State], None] = checkpoints.save if first else (lambda state: None)
        actions = [(1, watch), (1, lambda state: keep_pages())]  # behind a step that had room
        if log is not None:
            falls = run.train.schedule.falls
            actions.append((1, lambda state: _log_step(log, state, falls)))
        validation = Validation(run, network, averages, log, save, world)
        actions.append((run.recipe.evaluate.every, validation))
        actions.append((run.recipe.checkpoint.every, save))
        if world.first(float(validation.due(state))):
            validation(state)
            save(state)
        state = optimise(
            network,
            stream,
            run.objective,
            run.train,
            optimizer,
            state=state,
            actions=actions,
            on_stop=save,
            averages=averages,
            recorder=Recorder(network, run.folder / "recorder" if first else None),
            world=world,
        )
        if first:
            _save_best(run, network, averages, checkpoints, state)
    return state


def _beginning(run: Run, network: Network, state: State, world: World) -> dict[str, Any]:
    """What stands in the log where a process takes the run up."""
    import torch

    return {
        "event": "resumed" if state.step else "begun",
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "bfloat16": run.bfloat16,
    }


def _log_step(log: Any, state: State, falls: Callable[[int], int | None]) -> None:
    if str(state.step) in state.plan:
        decays = state.steps and falls(state.steps)
        log("plan", state.step, steps=state.steps, decay_from=decays)
    facts = {"tokens": state.tokens, "seconds": round(state.seconds, 3)}
    log("step", state.step, **state.last, **facts)


def _board(folder: Path, step: int) -> Any:
    """TensorBoard's writer where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)  # taken again


def _share(run: Run, quiet: bool) -> float | None:
    """What one token a second is of this machine's measured matrix peak, in the run's precision."""
    if quiet:
        return None
    import torch

    from tercet.jobs.train.memory import need
    from tercet.plan.peak import peak

    step = need(run)
    kind = torch.bfloat16 if run.bfloat16 else torch.float32
    return step.flops / step.tokens / peak(kind, run.device)


def _save_best(run: Run, network: Any, averages: Any, checkpoints: Any, state: State) -> None:
    """The folder of the model: the weights of the best evaluation."""
    if state.best_step is not None and state.best_step != state.step:
        checkpoints.load(state.best_step)
    with averages.applied():
        run.model(network).save(run.folder / "model")
    with written(run.folder / recipes.RESULT) as draft:
        facts = {"step": state.step, "best_step": state.best_step, "loss": state.best}
        facts |= {"seconds": state.seconds, "tokens": state.tokens, "stopped": state.stopped}
        draft.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _sentence(run: Run, state: State) -> str:
    from tercet.train.progress import clock

    best = ""
    if state.best is not None:
        rewards = run.recipe.objective.rewards
        found = f"reward {0.0 - state.best:.4f}" if rewards else f"loss {state.best:.4f}"
        best = f", validation {found} at {state.best_step:,}"
    why = f"; ended early: {state.stopped}" if state.stopped else ""
    skipped = f"; {state.skipped:,} of them skipped" if state.skipped else ""
    return f"{state.step:,} steps in {clock(state.seconds)}{skipped}{best}{why}"

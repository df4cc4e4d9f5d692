"""tercet verify: one step of a recipe, cut in several ways, must have one gradient.

The very functions that training calls make the gradients here; dropout is off, since a mask that
depends on the cut is another network.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.flags import print_json, say, unset
from tercet.jobs.train.settings import RunRecipe

if TYPE_CHECKING:
    from torch import Tensor

    from tercet.jobs.train.run import Run

    Job = tuple[Run, "Cut"]

TOLERANCE = 1e-5  # of the whole gradient's length
SMOOTHINGS = (0.0, 0.1)


@dataclass(frozen=True)
class Cut:
    """A way to take one step."""

    name: str
    pieces: int = 1  # micro-batches of each process
    processes: int = 1
    alone: bool = False  # every sample a micro-batch of its own: nothing is packed


CUTS = (
    Cut("whole"),
    Cut("2 micro-batches", pieces=2),
    Cut("4 micro-batches", pieces=4),
    Cut("every sample alone", alone=True),
    Cut("2 processes", processes=2),
    Cut("2 processes, 2 micro-batches each", pieces=2, processes=2),
)


def run(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE", help_behavior_hint="")],
    *,
    folder: Annotated[Path | None, unset("FOLDER")] = None,
    set: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE")] = (),
    json: bool = False,
) -> int:
    """Prove that a step's gradient does not depend on how the step is cut.

    One step in float32, without dropout: whole, in micro-batches, every sample alone, and in two
    processes, each with and without label smoothing. Exits with 1 if one differs.
    Example: tercet verify gpt-mini

    Args:
        recipe: a YAML file, or the name of a shipped recipe.
        folder: a run whose prepared data is used; a temporary one if not given.
        set: change a key of the recipe; may be given again and again.
        json: one object a cut.
    """
    wanted = recipes.load(recipe, set)
    with tempfile.TemporaryDirectory() as scratch:
        found = verify(wanted, folder or Path(scratch) / Path(recipe).stem)
    for row in found:
        if json:
            print_json(row)
    if not json:
        print(table(found))
    worst = max((row["difference"] for row in found), key=lambda d: math.inf if d != d else d)
    if not worst <= TOLERANCE:  # what is no number is worst
        say(f"the gradients differ by {worst:.1e}, more than {TOLERANCE:.0e} of their length")
        return 1
    return 0


def table(found: list[dict[str, Any]]) -> str:
    lines = [f"{'cut':36}{'smoothing':>10}{'loss':>14}{'difference':>12}"]
    for row in found:
        lines.append(
            f"{row['cut']:36}{row['smoothing']:>10}{row['loss']:>14.7f}{row['difference']:>12.1e}"
        )
    return "\n".join(lines)


def verify(wanted: RunRecipe, folder: Path) -> list[dict[str, Any]]:
    """A row a cut and smoothing: its loss, and how far its gradient is from the whole step's."""
    from tercet.jobs.train.job import compare
    from tercet.jobs.train.run import Run

    run = Run.of(folder, wanted)
    run.check()
    if (folder / recipes.RECIPE).exists():  # a run, which stays as it is
        compare(recipes.load(str(folder / recipes.RECIPE)), wanted, folder)
    run.prepare()
    jobs = []
    for smoothing in SMOOTHINGS[: 1 if wanted.objective.rewards else None]:
        objective = dataclasses.replace(wanted.objective, smoothing=smoothing)
        one = run.with_recipe(dataclasses.replace(wanted, objective=objective))
        jobs += [(one, cut) for cut in CUTS]
    found, whole = [], None
    for (one, cut), (loss, gradient) in zip(jobs, measured(jobs, 0)):
        whole = gradient if cut == CUTS[0] or whole is None else whole
        difference = float((gradient - whole).norm() / whole.norm())
        smoothing = one.recipe.objective.smoothing
        found.append(
            {"cut": cut.name, "smoothing": smoothing, "loss": loss, "difference": difference}
        )
    return found


def gradients(run: Run, cut: Cut, step: int) -> tuple[float, Tensor]:
    """The loss, and the gradient of all parameters end to end."""
    (found,) = measured([(run, cut)], step)
    return found


def measured(jobs: Sequence[Job], step: int) -> Iterator[tuple[float, Tensor]]:
    """The gradients of each job in turn.

    Those that take several processes are done first and together, since a process starts slowly.
    """
    import torch
    from torch.multiprocessing.spawn import spawn

    from tercet.train import World

    shared = [job for job in jobs if job[1].processes > 1]
    with tempfile.TemporaryDirectory() as meeting:
        place = Path(meeting)
        if shared:
            spawn(_process, (shared, step, place), nprocs=shared[0][1].processes)
        for run, cut in jobs:
            if cut.processes == 1:
                yield _gradients(run, cut, step, World())
            else:
                kept = torch.load(place / str(shared.index((run, cut))), weights_only=True)
                yield float(kept["loss"]), kept["gradient"]


def _process(rank: int, jobs: Sequence[Job], step: int, place: Path) -> None:
    """One of several processes; the first writes down what all have agreed on."""
    import torch
    import torch.distributed as dist

    from tercet.train.parallel import Processes

    torch.set_num_threads(1)
    size, meet = jobs[0][1].processes, f"file://{place / 'meet'}"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=size)
    for number, (run, cut) in enumerate(jobs):
        loss, gradient = _gradients(run, cut, step, Processes())
        if rank == 0:
            torch.save({"loss": loss, "gradient": gradient}, place / str(number))
    dist.destroy_process_group()


def _gradients(run: Run, cut: Cut, step: int, world: Any) -> tuple[float, Tensor]:
    import torch

    from tercet.train.loop import accumulate, count_targets

    network = run.network()
    network.zero_grad()  # of the cuts before, where a folder's network is one object
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    network.train()
    batches = _batches(run, network, cut, step, world)
    targets = world.sum(count_targets(batches))
    settings = dataclasses.replace(run.train, bfloat16=False)
    terms = accumulate(network, run.objective, batches, targets, settings, step, world)
    held = [p.grad if p.grad is not None else torch.zeros_like(p) for p in network.parameters()]
    return float(terms.sum()), torch.cat([gradient.flatten() for gradient in held]).cpu()


def _batches(run: Run, network: Any, cut: Cut, step: int, world: Any) -> list[Any]:
    stream = run.stream(rank=world.rank, world=world.size, network=network)
    samples = stream.samples(step)
    n_tokens = sum(sample.n_tokens for sample in samples)
    if len(samples) < cut.pieces * cut.processes:
        raise InputError(
            f"a step of this recipe holds {len(samples)} samples, too few for {cut.name}; "
            "set batch.tokens higher or objective.length lower"
        )
    if cut.alone:
        return [stream.shape.batch([sample]) for sample in samples]
    micro = math.ceil(n_tokens / world.size / cut.pieces)
    stream = dataclasses.replace(stream, micro_tokens=micro)
    return stream.cut(samples) if world.size == 1 else stream(step)

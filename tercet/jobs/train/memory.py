"""What a step will need, said before it runs, and what to change where that does not suffice.

The changes keep the step's batch, and so the gradient: they only cut it finer or compute again what
would have been kept.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tercet.errors import InputError
from tercet.jobs.train.settings import RunRecipe
from tercet.plan import Plan, plan
from tercet.plan.plan import size

if TYPE_CHECKING:
    from tercet.data import Batch
    from tercet.jobs.train.run import Run


@dataclass(frozen=True)
class Need:
    """Of one step. Bytes, and FLOPs for all its micro-batches."""

    parameters: int
    kept: int  # weights, gradients, optimizer, averages
    activations: int  # of the largest micro-batch
    flops: float
    tokens: int
    micro_tokens: int  # of the largest micro-batch

    @property
    def total(self) -> int:
        return self.kept + self.activations

    def __str__(self) -> str:
        return (
            f"{self.parameters:,} parameters; a step of {self.tokens:,} tokens takes "
            f"{self.flops / 1e9:,.0f} GFLOP and about {size(self.total)}: {size(self.kept)} for "
            f"weights, gradients and optimizer, {size(self.activations)} for activations of "
            f"{self.micro_tokens:,} tokens at once"
        )


def need(run: Run, recipe: RunRecipe | None = None) -> Need:
    """From the configuration and the first step's real lengths; nothing is built."""
    run = run if recipe is None else run.with_recipe(recipe)
    batches = run.first_batches()
    plans = [_planned(run, batch) for batch in batches]
    activations = [_activations(run, made) for made in plans]
    total = plans[0].total
    readings = 2 if run.recipe.objective.r_drop else 1  # R-Drop reads every text twice
    copies = (run.recipe.train.ema is not None) + (run.recipe.train.average_last or 0)
    learned = run.learned(total.parameters) / total.parameters
    return Need(
        total.parameters,
        int(total.weights * (1 + copies * learned) + learned * (total.gradients + total.optimizer)),
        readings * max(activations),
        float(readings * sum(made.total.training_flops for made in plans)),
        sum(batch.n_tokens for batch in batches),
        max(batch.n_tokens for batch in batches),
    )


def _planned(run: Run, batch: Batch) -> Plan:
    source = None if batch.source_layout is None else batch.source_layout.lengths
    lengths = batch.layout.lengths
    return plan(run.config, lengths, source_lengths=source, targets=batch.n_targets)


def _activations(run: Run, made: Plan) -> int:
    """Autocast halves what most layers keep; the output layer keeps no logits (chunks). With
    recomputation a block keeps its input, and one block at a time the rest."""
    inner = [row.activations for row in made.rows if not row.component.startswith("heads")]
    kept = sum(inner) // (2 if run.bfloat16 else 1)
    if run.recipe.train.recompute:
        layers = max(1, run.config.n_layers)
        kept = kept // layers + made.n_tokens * run.config.d_model * 4 * layers
    return kept


def short(run: Run, step: Need) -> bool:
    """Whether a step needs more than the system says is free; False where it does not say."""
    if run.device.type != "cpu":
        return False
    try:
        told = Path("/proc/meminfo").read_text("utf-8").splitlines()
        free = next(int(x.split()[1]) << 10 for x in told if x.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return False
    return step.total > free


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # the second is what oneDNN says where it has no memory for its code
    signs = ("allocate memory", "could not create a primitive")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def smaller(recipe: RunRecipe, longest: int) -> list[tuple[str, RunRecipe]]:
    """The changes that keep the step's batch, cheapest first; ``longest``: tokens of a sample."""
    found = []
    micro = recipe.batch.micro_tokens or recipe.batch.tokens
    while micro // 2 >= longest and len(found) < 6:
        micro //= 2
        batch = dataclasses.replace(recipe.batch, micro_tokens=micro)
        found.append((f"batch.micro_tokens={micro}", dataclasses.replace(recipe, batch=batch)))
    if not recipe.train.recompute:
        last = found[-1][1] if found else recipe
        train = dataclasses.replace(last.train, recompute=True)
        words = "train.recompute=true" + (f" with {found[-1][0]}" if found else "")
        found.append((words + " (a third more time)", dataclasses.replace(last, train=train)))
    return found


def advice(run: Run) -> InputError:
    """What to do after the memory did not suffice."""
    now, lines = need(run), []
    for words, recipe in smaller(run.recipe, run.recipe.objective.length):
        lines.append(f"{words}: about {size(need(run, recipe).total)}")
    changes = "; ".join(f"({i}) {line}" for i, line in enumerate(lines, 1))
    said = f"the memory does not suffice for this step ({now})"
    if not changes:
        return InputError(f"{said}; choose a smaller model or shorter samples")
    return InputError(
        f"{said}. What keeps the step's batch, cheapest first: {changes}. Set one with --set, or "
        "let --fit take the first that fits"
    )

"""The flight recorder: what the last steps read and how large their gradients were.

Nothing is filtered. Where a loss or a gradient is not finite, or a loss leaps, the record is
written down before anything else happens; ``tercet replay`` takes it from there.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tercet.data import Batch
from tercet.files import written
from tercet.train.state import RECENT, Recipe, State

KEPT = 20  # steps


class Recorder:
    """Gradient norms of every step, and the record of the last ones. ``folder``: where it is
    written when it is needed; None: nowhere."""

    def __init__(self, model: nn.Module, folder: Path | None = None) -> None:
        self.folder = folder
        self._parameters = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._norms: list[Tensor] = []
        self._names: list[str] = []
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._file: Path | None = None

    def clip(self, longest: float) -> float:
        """Shorten the whole gradient to ``longest`` (Pascanu et al. 2013; 0: leave it); the norm
        that it had."""
        held = [(name, p.grad) for name, p in self._parameters if p.grad is not None]
        self._names, gradients = [name for name, _ in held], [gradient for _, gradient in held]
        self._norms = list(torch._foreach_norm(gradients))  # type: ignore[attr-defined]
        total = float(torch.stack(self._norms).double().norm())
        if longest and total > longest and math.isfinite(total):
            torch._foreach_mul_(gradients, longest / total)  # type: ignore[attr-defined]
        return total

    def empty(self) -> float:
        """In place of ``clip`` where a step has no gradient."""
        self._names, self._norms = [], []
        return math.nan

    def note(
        self, state: State, facts: dict[str, float], batches: Sequence[Batch], recipe: Recipe
    ) -> str | None:
        """Keep the step; what is wrong with it, if anything is: then the record is written."""
        keys = [[list(key) for key in batch.keys] for batch in batches]
        self._kept.append({"step": state.step, **facts, "samples": keys, "norms": self._norms})
        trouble = self._trouble(state, facts, recipe)
        if trouble and self.folder is not None:
            self._file = self.folder / f"step-{state.step}.json"
            with written(self._file) as draft:
                draft.write_text(self._written(trouble), encoding="utf-8")
        return trouble

    def _trouble(self, state: State, facts: dict[str, float], recipe: Recipe) -> str | None:
        loss, norm = facts["loss"], facts["norm"]
        if math.isnan(loss) and math.isnan(norm) and not self._norms:
            return "there are no targets"
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            odd = [n for n, x in zip(self._names, self._norms) if not math.isfinite(float(x))]
            return f"the gradient's norm is {norm}, first in {odd[0] if odd else 'their sum'}"
        if not recipe.spike or len(state.recent) < RECENT:
            return None
        recent = torch.tensor(state.recent, dtype=torch.float64)
        mean = float(recent.mean())
        deviation = max(float(recent.std()), 0.01 * abs(mean), 1e-9)  # a flat loss is no calm one
        if loss > mean + recipe.spike * deviation:
            return (
                f"the loss leapt to {loss:.3f}, {(loss - mean) / deviation:.0f} standard "
                f"deviations above the {mean:.3f} of the last {RECENT} steps"
            )
        return None

    def _written(self, trouble: str) -> str:
        steps = [
            {**kept, "norms": dict(zip(self._names, (float(norm) for norm in kept["norms"])))}
            for kept in self._kept
        ]
        return json.dumps({"trouble": trouble, "steps": steps}, indent=1)

    def saved(self) -> str:
        """Where the record is and what to do with it, for a sentence."""
        if self._file is None:
            return "lower the learning rate, or set on_trouble to skip"
        run, step = self._file.parent.parent, self._file.stem.removeprefix("step-")
        replayed = (run / "recipe.yaml").is_file()  # a run of its own, not a seed or a rung of one
        if not replayed:
            return (
                f"what it read is in {self._file}; learn more slowly in another folder: a smaller "
                "train.learning_rate"
            )
        return (
            f"see what it read: tercet replay {run}@{step} (record: {self._file}); to go on "
            "without it: --resume --set train.on_trouble=skip"
        )

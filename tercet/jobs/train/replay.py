"""tercet replay RUN@STEP: a step again, in float32, with an eye on every layer.

The step's own weights are found from the nearest checkpoint before it; the steps between are taken
again, which gives the same weights bit for bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.jobs.flags import one_line, print_json
from tercet.jobs.recipe import LOG

if TYPE_CHECKING:
    from tercet.data import Batch
    from tercet.jobs.train.run import Run
    from tercet.model import Network

SHOWN = 10  # samples, the largest losses first


def run(
    where: Annotated[Positional[str], arg(metavar="RUN@STEP", help_behavior_hint="")],
    *,
    json: bool = False,
) -> None:
    """Run a step of a run again, in float32: the loss of each of its samples, and where it broke.

    Names the first layer whose output, or gradient, is not finite, and the document that did it.
    Example: tercet replay runs/mine@137

    Args:
        where: a run folder and a step, as the flight recorder names them.
        json: one object with everything.
    """
    folder, at, step = where.rpartition("@")
    if not at or not step.isdigit():
        raise InputError(f"{where!r}: write RUN@STEP, such as runs/mine@137")
    from tercet.jobs.train.run import Run

    found = replay(Run.open(Path(folder)), int(step))
    if json:
        print_json(found)
        return
    print(f"step {step} in float32: loss {found['loss']:.4f}, gradient {found['norm']:.4g}")
    for key in ("forward", "backward"):
        if found[key]:
            print(f"first layer that is not finite, {key}: {found[key]}")
    if found["document"] is not None:
        print(f"document: {one_line(found['document'])}")
    if math.isfinite(found["loss"]) and math.isfinite(found["norm"]):
        print("everything is finite in float32")
    for sample in found["samples"][:SHOWN]:
        print(f"  {sample['loss']:9.4f}  {sample['key']}  {one_line(sample['text'][:80])}")


def replay(run: Run, step: int) -> dict[str, Any]:
    """The step's loss and gradient norm, the first bad layers, and its samples by loss."""
    import torch

    network = run.network()
    _take_up(run, network, step)
    network.train()
    stream = run.stream(network=network)
    samples = stream.samples(step)
    batches = stream.cut(samples)
    with Watched(network) as watched:
        loss, norm = _loss_and_norm(run, network, batches, step)
    network.eval()
    found = []
    for sample in samples:
        batch = stream.shape.batch([sample]).to(run.device)
        with torch.no_grad():
            sums = run.objective(network, batch)
        value = float((sums / torch.tensor(batch.counts).clamp(min=1)).sum())
        found.append({"loss": value, "key": list(sample.key), "text": _text(run, batch)})
    found.sort(key=lambda row: -math.inf if math.isnan(row["loss"]) else -row["loss"])
    broken = next((row for row in found if not math.isfinite(row["loss"])), None)
    return {
        "loss": loss,
        "norm": norm,
        "forward": watched.forward,
        "backward": watched.backward,
        "document": broken["text"] if broken else None,
        "samples": found,
    }


def _take_up(run: Run, network: Network, step: int) -> None:
    """The weights as they were before ``step``."""
    from tercet.train import Recipe, fit

    optimizer, averages = run.optimizer(network), run.averages(network)
    checkpoints = run.checkpoints(network, optimizer, averages)
    kept = sorted(checkpoints.steps())
    before = [number for number in kept if number <= step]
    if not before and step > 0 and kept:
        raise InputError(
            f"{run.folder}: step {step} lies before the oldest checkpoint, {kept[0]}; "
            "keep more of them with checkpoint.keep"
        )
    state = checkpoints.load(before[-1]) if before else None
    if state is None and step == 0:
        return
    whole: Recipe = run.train
    started = state.step if state else 0
    if started < step:
        from tercet.train import State
        from tercet.train.log import rows

        state = state or State()
        decided = rows(run.folder / LOG, "plan")
        state.plan |= {str(row["step"]): row["steps"] for row in decided}
        planned = state.steps or whole.steps

        def pause(now: Any) -> None:
            now.stopped = "replayed" if now.step >= step else None

        state.steps = planned
        fit(
            network,
            run.stream(network=network),
            run.objective,
            dataclasses.replace(whole, on_trouble="skip"),
            optimizer,
            state=state,
            actions=[(1, pause)],
            averages=averages,
        )
        if state.step != step:
            raise InputError(f"{run.folder}: the run ended at step {state.step}, before {step}")


def _loss_and_norm(
    run: Run, network: Network, batches: list[Batch], step: int
) -> tuple[float, float]:
    """As the loop takes the step, dropout included, but in float32."""
    from tercet.train import Recorder, World
    from tercet.train.loop import accumulate, count_targets

    settings = dataclasses.replace(run.train, bfloat16=False)
    targets = count_targets(batches)
    terms = accumulate(network, run.objective, batches, targets, settings, step, World())
    return float(terms.sum()), Recorder(network).clip(0)


def _text(run: Run, batch: Batch) -> str:
    return run.tokenizer.decode(batch.tokens.tolist())


class Watched:
    """Notes the first module whose output is not finite, and on the way back the first whose
    output's gradient is not."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.forward: str | None = None
        self.backward: str | None = None
        self._hooks: list[Any] = []

    def __enter__(self) -> Watched:
        for name, module in self.network.named_modules():
            if name and not list(module.children()):
                self._hooks.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        def look(module: Any, inputs: Any, output: Any) -> None:
            if self.forward is None and _odd(output):
                self.forward = name
            if getattr(output, "requires_grad", False):
                output.register_hook(back)

        def back(gradient: Any) -> None:
            if self.backward is None and _odd(gradient):
                self.backward = name

        return look


def _odd(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and not bool(torch.isfinite(value).all())

"""Attention against recurrence: speed, loss and reach of a Transformer and an LSTM of equal size.

The same tokens a step, cut into many short sequences or few long ones: an LSTM goes through a
sequence token by token, attention through all of it at once.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.files import written
from tercet.jobs import recipe as recipes
from tercet.jobs.flags import say
from tercet.jobs.precision import in_bfloat16
from tercet.jobs.reproduce.figures import draw
from tercet.jobs.reproduce.table import Row, trained
from tercet.jobs.reproduce.twin import share, twin, twin_of
from tercet.jobs.train.settings import RunRecipe
from tercet.report import Axis, Panel, Series

if TYPE_CHECKING:
    from tercet.jobs.train.run import Run

KINDS = ("Transformer", "LSTM")
Pair = tuple[float, float]  # a figure of each kind


def recurrent(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """Training tokens/s and held-out loss for each cut of a step, and copying; the LSTM's figures
    are ``theirs``."""
    runs = {length: _runs(entry, length, folder) for length in entry["lengths"]}
    tokens = next(iter(runs.values()))[0].recipe.batch.tokens
    cuts = {length: f"{tokens // length} x {length}" for length in runs}
    speeds = _speeds(runs, folder / "speed.json", entry["speed_steps"], quiet)
    rows, paces, losses = [], {}, {}
    for length, pair in speeds.items():
        kinds = " and ".join("bfloat16" if one["bfloat16"] else "float32" for one in pair)
        note = f"median of {entry['speed_steps']} steps; {kinds}, the faster"
        paces[length] = (pair[0]["tokens_per_second"], pair[1]["tokens_per_second"])
        rows.append(Row(f"training tokens/s, {cuts[length]}", *paces[length], note=note))
    for length, pair in runs.items():
        changes = [f"train.bfloat16={str(one['bfloat16']).lower()}" for one in speeds[length]]
        losses[length], note = _losses(pair, changes, entry["text"], quiet)
        rows.append(Row(f"bits per byte, held out, {cuts[length]}", *losses[length], note=note))
    shares = _copying(entry["copying"], folder / "copying", quiet)
    rows += _copying_rows(shares)
    pictures = {"recurrent": _panels(tokens, paces, losses, shares)}
    draw(folder, "Attention against recurrence", pictures, rows, names=KINDS)
    return rows


# what is trained ---------------------------------------------------------------------------------


def _runs(entry: dict[str, Any], length: int, folder: Path) -> tuple[Run, Run]:
    """The two runs of a cut, begun: their corpus is prepared, and nothing is trained."""
    from tercet.jobs.train.run import Run

    base = folder / f"transformer-{entry['lengths'][0]}"
    recipe = recipes.load(entry["recipe"], [f"objective.length={length}"])
    places = [folder / f"{kind.lower()}-{length}" for kind in KINDS]
    if not (base / "data").exists():
        Run(base, recipe).prepare()
    for place in places:
        share(base, place)
    first = Run(places[0], recipe)
    seconds = recipe.train.seconds
    assert seconds is not None, "the runs of this experiment are cut by time"
    theirs = twin_of(recipe, first.config, seconds=seconds, changes=entry["lstm"])
    return first, Run(places[1], theirs)


def _losses(
    pair: tuple[Run, Run], changes: Sequence[str], text: dict[str, Any], quiet: bool
) -> tuple[Pair, str]:
    """Bits per byte of the held-out text after equal seconds."""
    from tercet.jobs.reproduce.held_out import HeldOut
    from tercet.language_model import load

    found, told = [], []
    for run, change in zip(pair, changes):
        recipe = _changed(run.recipe, change)
        run, result = trained(recipe, run.folder, quiet=quiet)
        held_out = HeldOut.read(text, run.tokenizer)
        network = load(run.folder / "model").network
        found.append(held_out.bits_per_byte(held_out.nats(network, recipe.objective.length)))
        told.append(f"{result['step']:,} steps in {result['seconds']:.0f} s")
    return (found[0], found[1]), "; LSTM: ".join(told)


def _changed(recipe: RunRecipe, change: str) -> RunRecipe:
    return recipes.parse(recipes.text(recipe), changes=[change])


# speed -------------------------------------------------------------------------------------------


def _speeds(
    runs: dict[int, tuple[Run, Run]], place: Path, steps: int, quiet: bool
) -> dict[int, list[dict[str, Any]]]:
    """Length -> of each kind its training tokens/s and the precision in which it is the faster.

    Measured once: what is found stands in ``place``.
    """
    if not place.exists():
        found = {}
        for length, pair in runs.items():
            found[length] = [_faster(run, steps) for run in pair]
            if not quiet:
                each = [f"{one['tokens_per_second']:,.0f}" for one in found[length]]
                say(f"tokens/s at length {length}: {' and '.join(each)}")
        with written(place) as draft:
            draft.write_text(json.dumps(found, indent=1), encoding="utf-8")
    kept = json.loads(place.read_text(encoding="utf-8"))
    return {int(length): pair for length, pair in kept.items()}


def _faster(run: Run, steps: int) -> dict[str, Any]:
    speeds = {
        bfloat16: _speed(run, steps, bfloat16)
        for bfloat16 in {False, in_bfloat16(True, run.device)}
    }
    best = max(speeds, key=lambda kind: speeds[kind])
    return {"bfloat16": best, "tokens_per_second": speeds[best]}


def _speed(run: Run, steps: int, bfloat16: bool) -> float:
    """Tokens a second of whole training steps, the median behind one that warms up."""
    from dataclasses import replace

    from tercet.kernels.memory import keep_pages
    from tercet.train.loop import World, accumulate, count_targets

    network = run.network()
    network.train()
    optimizer, stream = run.optimizer(network), run.stream()
    settings = replace(run.train, bfloat16=bfloat16)
    found = []
    for step in range(steps + 1):
        batches = stream(step)
        started = time.perf_counter()
        targets = count_targets(batches)
        accumulate(network, run.objective, batches, targets, settings, step, World())
        optimizer.step(settings.learning_rate)
        found.append(sum(b.n_tokens for b in batches) / (time.perf_counter() - started))
        keep_pages()
    return statistics.median(found[1:])


# copying -----------------------------------------------------------------------------------------


def _copying(entry: dict[str, Any], folder: Path, quiet: bool) -> list[dict[int, float]]:
    """Of each kind: distance -> share of exact tokens, in the order of learning that suits it."""
    from tercet.jobs.reproduce.copying import ORDERS, Copies, learned
    from tercet.presets import preset

    sizes = {name: entry[name] for name in ("symbols", "distances", "tokens")}
    longest = Copies(**sizes).longest
    config = preset(entry["preset"]).replace(
        vocab_size=entry["symbols"] + 1, context_length=longest, **entry["change"]
    )
    configs = (config, config.replace(**twin(config), init_std=entry["lstm_std"]))
    found = []
    for kind, config, rate in zip(KINDS, configs, entry["rates"]):
        tried = [
            learned(
                config,
                Copies(**sizes, order=order),
                folder / f"{kind.lower()}-{order.replace(' ', '-')}",
                rate=rate,
                seconds=entry["seconds"],
                quiet=quiet,
            )
            for order in ORDERS
        ]
        found.append(max(tried, key=lambda shares: sum(shares.values())))
    return found


def _copying_rows(shares: list[dict[int, float]]) -> list[Row]:
    from tercet.jobs.reproduce.copying import reach

    rows = [
        Row(f"tokens copied exactly, {distance} back", shares[0][distance], shares[1][distance])
        for distance in shares[0]
    ]
    ends = [reach(one) for one in shares]
    note = "nine of ten tokens exact at every distance up to it"
    return [*rows, Row("copying reaches, tokens back", ends[0], ends[1], note)]


# pictures ----------------------------------------------------------------------------------------


def _panels(
    tokens: int, paces: dict[int, Pair], losses: dict[int, Pair], shares: list[dict[int, float]]
) -> list[Panel]:
    def of_lengths(found: dict[int, Pair]) -> list[Series]:
        return [
            Series(kind, list(found), [pair[i] for pair in found.values()], points=True)
            for i, kind in enumerate(KINDS)
        ]

    length = Axis(f"tokens of a sequence, {tokens:,} a step", log=True)
    reached = [
        Series(kind, list(one), list(one.values()), points=True) for kind, one in zip(KINDS, shares)
    ]
    exact = Axis("share of tokens exact", zero=True)
    return [
        Panel("Training speed", of_lengths(paces), length, Axis("tokens/s", zero=True)),
        Panel("Held-out loss after equal seconds", of_lengths(losses), length, Axis("bits a byte")),
        Panel("Copying", reached, Axis("tokens back", log=True), exact),
    ]

"""Language models: against published losses, and against an LSTM and an n-gram of the same text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.jobs.reproduce.figures import draw, evaluations, losses
from tercet.jobs.reproduce.table import Row, trained
from tercet.jobs.reproduce.twin import share, size, twin_of
from tercet.report import Axis, Panel, Series
from tercet.train.progress import clock

if TYPE_CHECKING:
    from tercet.jobs.reproduce.held_out import HeldOut
    from tercet.jobs.train.run import Run

Finished = tuple["Run", dict[str, Any]]  # a run and its result.json


def validation_loss(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """Nats a token of the whole validation split, in blocks of the recipe's length: the published
    protocol, each block by itself."""
    from tercet.jobs.train.validation import validation_loss as loss_of
    from tercet.language_model import load

    run, result = trained(entry["recipe"], folder / "run", quiet=quiet)
    model = load(run.folder / "model")
    note = f"{result['step']:,} steps in {clock(result['seconds'])}; {entry['published']['by']}"
    loss = loss_of(run, model.network)
    return [Row("validation loss, nats a token", loss, entry["published"]["loss"], note)]


# against an LSTM and an n-gram -------------------------------------------------------------------


def language_model(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """Bits per byte of held-out texts beside an LSTM's of the same parameters and seconds and an
    n-gram's of the same tokens, and perplexity by visible context."""
    from tercet.jobs.reproduce.held_out import HeldOut, trained_ngram
    from tercet.language_model import load

    run, result = trained(entry["recipe"], folder / "transformer", quiet=quiet)
    twin = better_twin(run, result, entry["lstm"], folder, quiet)
    networks = [load(one.folder / "model").network for one in (run, twin[0])]
    texts = {name: HeldOut.read(text, run.tokenizer) for name, text in entry["texts"].items()}
    length, order = run.recipe.objective.length, entry["order"]
    bits = {
        name: [text.bits_per_byte(text.nats(network, length)) for network in networks]
        for name, text in texts.items()
    }
    ngram, n_tokens = trained_ngram(run.corpus, order)
    rows = []
    for name, text in texts.items():
        note = f"{text.n_tokens:,} tokens, {text.n_bytes:,} bytes, windows of {length}"
        rows.append(Row(f"bits per byte, {name}; theirs: LSTM", bits[name][0], bits[name][1], note))
        note = f"modified Kneser-Ney of {n_tokens:,} tokens"
        what = f"bits per byte, {name}; theirs: {order}-gram"
        rows.append(Row(what, bits[name][0], text.bits_per_byte(text.ngram_nats(ngram)), note))
    name, text = next(iter(texts.items()))
    contexts = _by_context(networks, text, entry["contexts"])
    rows += _context_rows(name, contexts)
    rows.append(_training_row((run, result), twin))
    draw(folder, run.recipe.about, _panels(run, twin[0], name, contexts), rows)
    return rows


def better_twin(
    run: Run, result: dict[str, Any], wanted: dict[str, Any], folder: Path, quiet: bool
) -> Finished:
    """The LSTM that was trained for the run's seconds as the better of its ``tries`` (changes of
    the recipe), which were trained for ``share`` of them."""

    def one(name: str, changes: list[str], part: float) -> Finished:
        seconds = part * result["seconds"]
        recipe = twin_of(run.recipe, run.config, seconds=seconds, changes=changes)
        share(run.folder, folder / name)
        return trained(recipe, folder / name, quiet=quiet)

    tries = wanted["tries"]
    best = 0
    if len(tries) > 1:
        tried = [
            one(f"lstm-try-{i + 1}", changes, wanted["share"])[1]["loss"]
            for i, changes in enumerate(tries)
        ]
        best = tried.index(min(tried))
    return one("lstm", tries[best], 1.0)


def _by_context(
    networks: Iterable[Any], text: HeldOut, contexts: list[int]
) -> list[dict[int, float]]:
    """Of each network: visible context -> perplexity of the same tokens."""
    from tercet.evaluate.perplexity import loss_by_context

    found = [loss_by_context(network, text.stream, contexts) for network in networks]
    return [{context: math.exp(nats) for context, nats in one.items()} for one in found]


def _context_rows(name: str, contexts: list[dict[int, float]]) -> list[Row]:
    rows = []
    for context in contexts[0]:
        what = f"perplexity, {context} tokens visible; theirs: LSTM"
        rows.append(Row(what, *(one[context] for one in contexts), note=name))
    said = ["yes" if _falls(list(one.values())) else "no" for one in contexts]
    return [*rows, Row("perplexity falls at each step of context; theirs: LSTM", *said, note=name)]


def _falls(values: list[float]) -> bool:
    return all(after < before for before, after in zip(values, values[1:]))


def _training_row(ours: Finished, theirs: Finished) -> Row:
    told = [
        f"{size(run.config):,} parameters, {result['tokens'] / 1e6:,.1f} M tokens at a rate of "
        f"{run.recipe.train.learning_rate:g}"
        for run, result in (ours, theirs)
    ]
    took = [clock(result["seconds"]) for _, result in (ours, theirs)]
    return Row("training; theirs: LSTM", took[0], took[1], "; LSTM: ".join(told))


def _panels(
    run: Run, twin: Run, name: str, contexts: list[dict[int, float]]
) -> dict[str, list[Panel]]:
    both = [(run, "Transformer"), (twin, "LSTM")]
    nats = Axis("nats a token")
    learning = Panel(
        "Training loss", [losses(one, label) for one, label in both], Axis("seconds"), nats
    )
    validation = [evaluations(one, label) for one, label in both]
    curves = [
        Series(label, list(one), list(one.values()), points=True)
        for one, (_, label) in zip(contexts, both)
    ]
    return {
        "learning": [learning, Panel("Validation loss", validation, Axis("tokens read"), nats)],
        "context": [
            Panel(
                f"Perplexity by visible context, {name}",
                curves,
                Axis("tokens visible at the most", log=True),
                Axis("perplexity"),
            )
        ],
    }

"""The verb `evaluate perplexity`: how well a decoder foretells held-out files, and what fewer bits
or a longer context cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.jobs.flags import Model, print_json
from tercet.text.read import blocks

if TYPE_CHECKING:
    from tercet.evaluate.perplexity import Cost, HeldOut
    from tercet.jobs.display import Display
    from tercet.language_model import LanguageModel


@dataclass(frozen=True)
class Texts:
    """Files that are a text each."""

    files: Annotated[
        Positional[tuple[str, ...]], arg(metavar="FILE...", help_behavior_hint="")
    ] = ()
    """files with a text each: plain UTF-8, or .gz of it; - for standard input"""

    def read(self) -> list[str]:
        if not self.files:
            raise InputError("no text to measure; name a FILE, or - for standard input")
        texts = ["".join(block for block, _ in blocks(name)) for name in self.files]
        for name, text in zip(self.files, texts):
            if not text.strip():
                raise InputError(f"{name}: is empty; give a file with text in it")
        return texts


def run(
    model: Model,
    files: Texts,
    *,
    by_position: bool = False,
    quiet: bool = False,
    json: bool = False,
) -> None:
    """The perplexity of held-out text files under a decoder: exp of the mean surprise a token.

    Below it nats a token, and bits a byte, which alone compare models with other tokenizers. Each
    file is a text, read in windows of the whole context that slide by half, each token scored
    once. With --precision the figure in float32 stands beside, with --context that of the model's
    own context, and by how much the asked one is higher (+) or lower (-).

      tercet evaluate perplexity runs/quickstart/decoder notes.txt --precision int8
      tercet evaluate perplexity runs/novels held-out.txt --context 4096 --by-position

    Args:
        by_position: a table too, of the tokens with so many before them, in windows of the whole
            context that do not overlap; a shorter own context slides over these by half
        quiet: no progress
        json: one JSON object
    """
    from tercet.evaluate.perplexity import check_scores, held_out
    from tercet.jobs.display import Display

    texts = files.read()
    loaded = model.load("embed")  # any model can: why one cannot score is said next
    check_scores(loaded)
    held = held_out(loaded.tokenizer, texts)
    piece = loaded.limit if by_position else None
    with Display(quiet=quiet) as display:
        found = [_measure(model.precision, loaded, held, piece, display)]
        del loaded  # one model at a time in memory
        for other in _references(model):
            loaded = other.load("score")
            name = f"context {loaded.limit:,}" if other.context != model.context else "float32"
            found.append(_measure(name, loaded, held, piece, display))
            del loaded
    if json:
        asked, *others = [measured.told(held) for measured in found]
        about = {"model": model.model, "tokens": held.n_targets, "bytes": held.n_bytes}
        print_json({**about, **asked, "references": others})
        return
    for line in _lines(found, held):
        print(line)


def _references(model: Model) -> list[Model]:
    """The same model without one thing that was asked for, each."""
    found = []
    if model.precision != "float32":
        found.append(replace(model, precision="float32"))
    if model.context is not None:
        found.append(replace(model, context=None))
    return found


@dataclass(frozen=True)
class Measured:
    """What the texts cost one model; ``context``: the tokens of its window."""

    name: str
    context: int
    cost: Cost
    positions: dict[tuple[int, int], Cost] = field(default_factory=dict)

    def told(self, held: HeldOut) -> dict[str, Any]:
        """For JSON."""
        rows = [
            {"first": first, "last": last, "tokens": cost.n_tokens, **_figures(cost)}
            for (first, last), cost in self.positions.items()
        ]
        figures = {**_figures(self.cost), "bits_per_byte": self.cost.bits_per_byte(held.n_bytes)}
        told = {"name": self.name, "context": self.context, **figures}
        return {**told, "by_position": rows} if rows else told


def _figures(cost: Cost) -> dict[str, float]:
    return {"perplexity": cost.perplexity, "nats_per_token": cost.loss}


def _measure(
    name: str, model: LanguageModel, held: HeldOut, piece: int | None, display: Display
) -> Measured:
    """``piece``: also by position, in pieces of so many tokens; None: not."""
    from tercet.evaluate.perplexity import cost, cost_by_position

    def watch(done: int) -> None:
        display(name, done, held.n_targets, done)

    def watch_positions(done: int) -> None:
        display(f"{name} by position", done, None, done)

    network, tokens, length, documents = model.network, held.tokens, model.limit, held.documents
    positions = {}
    if piece is not None:  # first: it refuses texts that are too short for it
        positions = cost_by_position(
            network, tokens, length, documents=documents, piece=piece, watch=watch_positions
        )
    whole = cost(network, tokens, length, documents=documents, watch=watch)
    return Measured(name, length, whole, positions)


def _lines(found: list[Measured], held: HeldOut) -> Iterator[str]:
    """What is printed: the first of ``found`` was asked for, the others stand beside it."""
    asked, *others = found
    for name, digits, figures in (
        ("perplexity", 2, [one.cost.perplexity for one in found]),
        ("nats a token", 4, [one.cost.loss for one in found]),
        ("bits a byte", 4, [one.cost.bits_per_byte(held.n_bytes) for one in found]),
    ):
        beside = "".join(
            f", {other.name} {figure:,.{digits}f}: {_change(figures[0], figure)}"
            for other, figure in zip(others, figures[1:])
        )
        yield f"{name:14}{figures[0]:,.{digits}f}{beside}"
    yield (
        f"{held.n_targets:,} tokens, {held.n_bytes:,} bytes; windows of {asked.context:,} tokens "
        "slide by half"
    )
    if asked.positions:
        yield ""
        heads = "".join(f"{other.name:>15}{'':9}" for other in others)
        yield f"tokens before      tokens  perplexity{heads}".rstrip()
    for (first, last), cost in asked.positions.items():
        cells = ""
        for other in others:
            reference = other.positions[first, last].perplexity
            cells += f"{reference:15,.2f}{_change(cost.perplexity, reference):>9}"
        place = f"{first:,}-{last:,}"
        yield f"{place:13}{cost.n_tokens:12,}{cost.perplexity:12,.2f}{cells}"


def _change(asked: float, reference: float) -> str:
    """ "+0.9 %": so much higher is what was asked for."""
    return f"{100 * (asked / reference - 1):+.1f} %"

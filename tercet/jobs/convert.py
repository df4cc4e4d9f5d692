"""The verb `convert`: a model of another family from the same weights, and how to recover it."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from tercet.errors import InputError
from tercet.files import writable
from tercet.jobs import recipe as recipes
from tercet.jobs.flags import Named, print_json, say

if TYPE_CHECKING:
    from tercet.config import TransformerConfig
    from tercet.language_model import Conversion
    from tercet.model.family import Moved

STATES = ("mapped", "new", "left out")
LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
COMPONENT = re.compile(r"((?:en|de)coder\.blocks\.\*\.\w+|heads\.\w+)\..*")


def run(
    model: Named,
    *,
    to: Annotated[Literal["encoder", "encoder-decoder", "decoder"], arg(help_behavior_hint="")],
    out: Annotated[Path, arg(metavar="FOLDER", help_behavior_hint="")],
    with_: Annotated[str | None, arg(name="with", metavar="OTHER", help_behavior_hint="")] = None,
    seed: Annotated[int, arg(metavar="N")] = 0,
    json: bool = False,
) -> None:
    """Start a model of another family from a model's weights: an encoder from a decoder, an
    encoder-decoder from an encoder and a decoder (or one body twice), a decoder from either.

    Says which tensors are mapped, which are new and how they begin, and which are left out; and the
    command that trains the result, which has to learn its new task before it is of use.

      tercet convert runs/gpt --to encoder --out runs/gpt-as-encoder

    Args:
        to: the family of the result
        out: where the new model is written
        with_: for --to encoder-decoder: an encoder where MODEL is a decoder, or the other way round
        seed: decides the tensors that are drawn anew
        json: every tensor, as one JSON object
    """
    from tercet.language_model import convert, load

    name = model.named()
    writable(out, folder=True)
    for given in (name, with_):
        if given is not None and out.resolve() == Path(given).expanduser().resolve():
            raise InputError(f"--out {out} is the model that is converted; choose another folder")
    loaded = load(name, allow_pickle=model.allow_pickle, context=model.context)
    other = None if with_ is None else load(with_, allow_pickle=model.allow_pickle)
    done = convert(loaded, to, other, seed=seed)
    done.model.save(out)
    command = recover(done.model.config, out)
    if json:
        print_json(_told(done, name, with_, out, command))
        return
    print("\n".join(table(done.tensors)))
    for note in done.notes:
        say(note)
    say(f"{done.model.config.family} in {out}; {_opens(done)}")
    say(f"it has to learn what it is now, on texts of yours or those of the recipe:\n  {command}")


def _opens(done: Conversion) -> str:
    if (kind := done.model_type) == "tercet":
        return "model_type 'tercet': transformers has no class of this shape"
    return f"model_type {kind!r}: transformers opens it too"


# the table ---------------------------------------------------------------------------------------


def table(tensors: Iterable[Moved]) -> list[str]:
    """Lines: tensors of one kind in one, layers counted together; then the sums."""
    counts: Counter[tuple[str, str, str]] = Counter()
    sizes: Counter[tuple[str, str, str]] = Counter()
    for one in tensors:
        whose = f"{one.said} " if one.said else ""
        where = _kind(one.name, one.state), whose + _kind(one.origin, one.state)
        if one.state == "left out":
            where = whose + where[0], one.origin
        counts[one.state, *where] += 1
        sizes[one.state, *where] += one.parameters
    rows = [("", "tensors", "from, or how they begin", "number", "parameters")]
    for state in STATES:
        found = [key for key in counts if key[0] == state]
        rows += [(*key, f"{counts[key]:,}", f"{sizes[key]:,}") for key in found]
    for state in STATES:
        n, size = (sum(v for key, v in by.items() if key[0] == state) for by in (counts, sizes))
        rows.append((state, "all", "", f"{n:,}", f"{size:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i > 2 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _kind(name: str, state: str) -> str:
    """``decoder.blocks.3.attention.layer.q.weight`` is of ``decoder.blocks.*.attention``; of what
    is new each kind of tensor has a line of its own."""
    every = LAYER.sub("*", name)
    return every if state == "new" else COMPONENT.sub(r"\1", every)


def _told(
    done: Conversion, name: str, other: str | None, out: Path, command: str
) -> dict[str, Any]:
    told: dict[str, Any] = {"model": name, "with": other, "saved": str(out)}
    told |= {"family": done.model.config.family, "model_type": done.model_type}
    for state in STATES:
        sizes = [one.parameters for one in done.tensors if one.state == state]
        told[state.replace(" ", "_")] = {"tensors": len(sizes), "parameters": sum(sizes)}
    told["tensors"] = [
        {
            "state": one.state,
            "name": one.name,
            "begins" if one.state == "new" else "why" if one.state == "left out" else "from": (
                one.origin
            ),
            "of": one.said or None,
            "shape": list(one.shape),
        }
        for one in done.tensors
    ]
    return told | {"notes": done.notes, "recover": command}


# the recovery ------------------------------------------------------------------------------------


def recover(config: TransformerConfig, folder: Path) -> str:
    """The command that trains the new model, by the first shipped recipe of its family."""
    import yaml

    name, recipe = next(
        (name, recipe)
        for name, recipe in _shipped()
        if recipes.family(recipe) == config.family and recipe.model.folder is None
    )
    place = yaml.safe_dump({"folder": str(folder)}, default_flow_style=True, width=10_000).strip()
    changes = [f"model={place}", f"tokenizer={place}"]
    if recipe.objective.length > config.context_length:
        changes.append(f"objective.length={config.context_length}")
    drawn = config.dropout, config.attention_dropout, config.activation_dropout
    if recipe.objective.r_drop and not any(drawn):
        changes.append("objective.r_drop=0")
    words = ["tercet", "train", name, *(word for change in changes for word in ("--set", change))]
    return shlex.join([*words, "--folder", str(folder.with_name(f"{folder.name}-recovered"))])


def _shipped() -> Iterable[tuple[str, Any]]:
    for path in sorted(recipes.SHIPPED.glob("*.yaml")):
        try:
            yield path.stem, recipes.load(str(path))
        except InputError:
            pass  # of another verb

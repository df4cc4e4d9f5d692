"""What is a decoder worth as the beginning of an encoder? Made of one (`tercet convert`) and of
random weights, the same network learns masked words for the same time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.jobs import recipe as recipes
from tercet.jobs.flags import say
from tercet.jobs.reproduce.kept import Kept
from tercet.jobs.reproduce.kinds import CAUSAL, MASKED, POOLS, probed
from tercet.jobs.reproduce.table import Row, trained
from tercet.train.progress import clock

if TYPE_CHECKING:
    from tercet.jobs.train.settings import RunRecipe

MADE, FRESH = "made of the decoder", "fresh"


def recovery(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """The probe of the decoder, of the encoder made of it before and after its recovery, and of the
    fresh one, before and after the same time."""
    from tercet.language_model import load
    from tercet.language_model.identity import fingerprint

    told = entry["decoder"]
    decoder, _ = trained(told["recipe"], Path(told["folder"]), quiet=quiet)
    begun = _begun(decoder.folder / "model", folder)
    kept = Kept(folder / "pieces.json", say if not quiet else lambda sentence: None)

    def row(name: str, place: Path, kind: str, said: str = "") -> Row:
        model = load(place)
        piece = f"{name} {fingerprint(model)[:8]}"
        found = kept(piece, lambda: probed(entry["probe"], model, POOLS[kind]))
        note = f"{said}; {found['note']}" if said else found["note"]
        return Row(f"{found['measure']}, {name}", found["figure"], None, note)

    rows = [row("decoder", decoder.folder / "model", CAUSAL)]
    rows += [row(f"{name}, untrained", place, MASKED) for name, place in begun.items()]
    for name, place in begun.items():
        run, result = trained(_recipe(entry, place), folder / place.name / "run", quiet=quiet)
        said = f"{result['step']:,} steps, {result['tokens']:,} tokens, {clock(result['seconds'])}"
        said += f", validation loss {result['loss']:.3f}"
        rows.append(row(f"{name}, trained", run.folder / "model", MASKED, said))
    return rows


def _begun(decoder: Path, folder: Path) -> dict[str, Path]:
    """The folders of both encoders before they learn: the same network but for its weights."""
    from tercet.language_model import LanguageModel, convert, load
    from tercet.model import build

    places = {MADE: folder / "made", FRESH: folder / "fresh"}
    made = convert(load(decoder), "encoder").model
    made.save(places[MADE])
    LanguageModel(build(made.config, seed=1), made.tokenizer).save(places[FRESH])
    return places


def _recipe(entry: dict[str, Any], place: Path) -> RunRecipe:
    """The recipe of masked words, begun with a folder."""
    wanted = recipes.load(entry["recipe"], entry["changes"])
    model = dataclasses.replace(wanted.model, preset=None, folder=str(place), change={})
    return dataclasses.replace(wanted, model=model, tokenizer=None)

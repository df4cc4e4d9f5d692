"""The verb `embed`: a vector a text, into a file of numpy's or as JSON; or documents into a
collection that can be searched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from tercet.errors import InputError
from tercet.files import writable, written
from tercet.jobs.collection.collect import Cutting, Reading, collect
from tercet.jobs.flags import Files, Model, print_json, say, unset
from tercet.text import Overflow


def run(
    model: Model,
    files: Files,
    *,
    out: Annotated[Path, arg(metavar="FILE")] = Path("embeddings.npy"),
    pool: Annotated[Literal["first", "mean", "last"] | None, unset("{first,mean,last}")] = None,
    prompt: Annotated[str | None, unset("NAME")] = None,
    overflow: Annotated[Overflow | None, unset("POLICY")] = None,
    to: Annotated[str | None, unset("COLLECTION")] = None,
    reading: Reading = Reading(),
    cutting: Cutting = Cutting(),
    quiet: bool = False,
    json: bool = False,
) -> None:
    """Turns texts into vectors: float32, a row a text, in the order of the lines.

    With --to, documents of any kind are cut into passages and put into a collection, which `tercet
    search` finds them in. What is there already costs nothing, and after a kill the same command
    goes on.

      tercet embed sentence-model lines.txt --out lines.npy
      tercet embed sentence-model --text "Where is the library?" --json
      tercet embed sentence-model notes/ papers.jsonl --to library

    Args:
        out: where the array goes (numpy.load reads it)
        pool: the first token, the mean of all, or the last; without it, what the model asks for
        prompt: one of the model's own prompts, such as query, put before each text
        overflow: texts beyond the context: error, keep-start, keep-end, middle-out or slide;
            without it files keep the start, and what was cut is counted
        to: the collection, which is made where none is
        json: a JSON object a line to standard output instead of a file
    """
    import numpy as np

    if to is not None:
        for flag, value in (("pool", pool), ("prompt", prompt), ("overflow", overflow)):
            if value is not None:
                raise InputError(f"--{flag} {value} does not go with --to, which asks the model")
        collect(model, files, to, reading, cutting, quiet=quiet, json=json)
        return

    texts = files.read()
    if not json and out.suffix != ".npy":
        raise InputError(f"--out {out}: the array is a .npy file; name it so, or ask for --json")
    if not json:
        writable(out)
    vectors = model.load("embed").embed(texts, pool=pool, overflow=overflow, prompt=prompt)
    vectors = np.atleast_2d(vectors)  # (B, D)
    if json:
        for text, vector in zip([texts] if isinstance(texts, str) else texts, vectors):
            print_json({"text": text, "vector": [float(f"{value:.9g}") for value in vector]})
        return
    with written(out) as path:
        np.save(path, vectors)
    say(f"{out}: {len(vectors):,} x {vectors.shape[1]:,} float32")

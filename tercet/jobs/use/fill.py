"""The verb `fill`: what an encoder would write in place of each mask."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from tyro.conf import arg

from tercet.errors import InputError
from tercet.jobs.flags import Model, Text, one_line, print_json, say


def run(
    model: Model,
    text: Text,
    *,
    top_k: Annotated[int, arg(metavar="K")] = 5,
    json: bool = False,
) -> int:
    """The likeliest words for each [MASK] of a text, with their probabilities.

      tercet fill runs/quickstart/encoder "Return the [MASK] of the list."

    Args:
        top_k: words a mask
        json: a JSON object a text: for each mask, the words, their probabilities, the whole text
    """
    texts = text.read()
    network = model.load("fill")
    if isinstance(texts, str):
        _show(texts, network.fill(texts, top_k=top_k), json)
        return 0
    code = 0
    for number, line in enumerate(texts, 1):
        try:
            _show(line, network.fill(line, top_k=top_k), json)
        except InputError as error:
            say(f"text {number}: {error}")
            code = 2
    return code


def _show(text: str, filled: list, json: bool) -> None:
    masks = filled if isinstance(filled[0], list) else [filled]
    if json:
        print_json({"text": text, "masks": [[asdict(fill) for fill in mask] for mask in masks]})
        return
    for number, mask in enumerate(masks, 1):
        if len(masks) > 1:
            print(f"[MASK] {number}")
        for fill in mask:
            token = fill.token if fill.token.strip() else repr(fill.token)
            print(f"{fill.probability:7.1%}  {token:16}  {one_line(fill.text)}")

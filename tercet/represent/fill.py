"""What belongs in the place of a mask."""

from __future__ import annotations

import torch

from tercet.answers import Fill
from tercet.errors import InputError
from tercet.model import Network, flatten
from tercet.text import Tokenizer

MASK = "[MASK]"  # in what a caller writes, however the tokenizer spells its own


def marked(text: str, tokenizer: Tokenizer, top_k: int) -> tuple[list[str], str]:
    """The parts of a text between its masks, and the text in the tokenizer's own spelling."""
    if tokenizer.mask_id is None:
        raise InputError("the model's tokenizer has no mask token, so there is nothing to fill")
    if type(top_k) is not int or top_k < 1:
        raise InputError(f"top_k {top_k} must be a whole number of 1 or more")
    spelt = tokenizer.pieces([tokenizer.mask_id])[0]
    parts = text.replace(spelt, MASK).split(MASK)
    return parts, spelt.join(parts)


@torch.inference_mode()
def fill(
    network: Network, tokenizer: Tokenizer, parts: list[str], ids: list[int], top_k: int
) -> list[list[Fill]]:
    """The likeliest tokens, best first, for each mask of ``ids``, which spell ``parts``."""
    device = network.tokens.weight.device
    places = [i for i, token in enumerate(ids) if token == tokenizer.mask_id]
    if not places:
        raise InputError(
            f"the text {''.join(parts)!r} has no mask; put {MASK} where a token is wanted"
        )
    tokens, layout = flatten([ids], device)
    logits = network(tokens, layout, select=torch.tensor(places, device=device))
    best = logits.float().softmax(-1).topk(min(top_k, logits.shape[-1]))  # (M, k)
    return [
        [
            _filled(tokenizer, MASK.join(parts[:at]), choice, value, MASK.join(parts[at:]))
            for value, choice in zip(values, choices, strict=True)
        ]
        for at, (values, choices) in enumerate(
            zip(best.values.tolist(), best.indices.tolist(), strict=True), 1
        )
    ]


def _filled(tokenizer: Tokenizer, before: str, choice: int, probability: float, after: str) -> Fill:
    """The text as it was given, with a token in the place of one mask."""
    piece = tokenizer.decode([choice])
    token = piece.strip() or piece  # a line break is a token too
    if tokenizer.pieces([choice])[0].startswith("##"):  # it goes on with the word before
        token = piece = piece.removeprefix("##").strip()
        before = before.rstrip()
    elif not before or before[-1].isspace():
        piece = token
    return Fill(token, probability, before + piece + after)

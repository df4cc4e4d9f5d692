"""The verb `score`: how likely texts are under a decoder."""

from __future__ import annotations

import math
from typing import Annotated

from tercet.jobs.flags import Files, Model, one_line, print_json, unset
from tercet.text import Overflow


def run(
    model: Model,
    files: Files,
    *,
    overflow: Annotated[Overflow | None, unset("POLICY")] = None,
    json: bool = False,
) -> None:
    """The perplexity of each text (exp of the mean surprise a token): lower is likelier.

    A line for each text: perplexity, tokens, text; below several texts, that of all their tokens.

      tercet score runs/quickstart/decoder --text "Return the number of items."

    Args:
        overflow: texts beyond the context: error, keep-start, keep-end, middle-out or slide;
            without it files slide by half a context, each token scored once
        json: a JSON object a text, with the log-probability of each token
    """
    texts = files.read()
    scores = model.load().score(texts, overflow=overflow)
    texts, scores = ([texts], [scores]) if isinstance(texts, str) else (texts, scores)
    known = [p for score in scores for p in score.log_probabilities if p is not None]
    for text, score in zip(texts, scores):
        if json:
            tokens = list(zip(score.pieces, score.log_probabilities))
            print_json({"text": text, "perplexity": score.perplexity, "tokens": tokens})
        else:
            print(f"{score.perplexity:10.2f}  {len(score.ids):6}  {one_line(text)}")
    if len(texts) > 1 and not json and known:
        print(
            f"{math.exp(-sum(known) / len(known)):10.2f}  {len(known):6}  (all {len(texts)} texts)"
        )

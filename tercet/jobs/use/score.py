"""The verb `score`: how likely texts are under a decoder."""

from __future__ import annotations

import math
from typing import Annotated

from tercet.errors import InputError
from tercet.jobs.flags import Files, Model, one_line, print_json, say, unset
from tercet.text import Overflow

ALONE = "a single token has nothing before it, so that nothing is scored; give a longer text"


def run(
    model: Model,
    files: Files,
    *,
    overflow: Annotated[Overflow | None, unset("POLICY")] = None,
    json: bool = False,
) -> int:
    """The perplexity of each text (exp of the mean surprise a token): lower is likelier.

    A line for each text: perplexity, tokens scored, text; below several texts, that of all their
    tokens. Every token is scored but a text's first, which nothing stands before: a text of a
    single token is an error, among several texts one that the others do not suffer from.

      tercet score runs/quickstart/decoder --text "Return the number of items."

    Args:
        overflow: texts beyond the context: error, keep-start, keep-end, middle-out or slide;
            without it files slide by half a context, each token scored once
        json: a JSON object a text, with the log-probability of each token
    """
    texts = files.read()
    scores = model.load("score").score(texts, overflow=overflow)
    one = isinstance(texts, str)
    texts, scores = ([texts], [scores]) if one else (texts, scores)
    known = [[p for p in score.log_probabilities if p is not None] for score in scores]
    if one and not known[0]:
        raise InputError(f"the text {texts[0]!r}: {ALONE}")
    code = 0
    for number, (text, score, scored) in enumerate(zip(texts, scores, known), 1):
        if not scored:
            say(f"text {number}: {ALONE}")
            code = 2
        if json:
            tokens = list(zip(score.pieces, score.log_probabilities))
            told = {"text": text, "perplexity": score.perplexity, "tokens": tokens}
            print_json({**told, "error": None if scored else ALONE})
        else:
            print(f"{score.perplexity:10.2f}  {len(scored):6}  {one_line(text)}")
    count = sum(map(len, known))
    if len(texts) > 1 and not json and count:
        whole = math.exp(-sum(map(sum, known)) / count)
        print(f"{whole:10.2f}  {count:6}  (all {len(texts)} texts)")
    return code

"""The verb `translate`: an encoder-decoder's best answers, by beam search."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from tyro.conf import arg

from tercet.jobs.flags import Model, Text, failures, one_line, print_json, unset


def run(
    model: Model,
    text: Text,
    *,
    beams: Annotated[int, arg(metavar="N")] = 5,
    length_penalty: Annotated[float, arg(metavar="X")] = 1.0,
    n_best: Annotated[int, arg(metavar="N")] = 1,
    max_new_tokens: Annotated[int | None, unset("N")] = None,
    json: bool = False,
) -> int:
    """Translates, summarises, rewrites: whatever the encoder-decoder was trained to do.

    A file's lines give a line each, with line breaks as \\n; several answers a text (--n-best)
    stand below each other, with an empty line between texts.

      tercet translate runs/quickstart/dates "the third of May, nineteen ninety-six"

    Args:
        beams: beginnings kept at each step; 1 is greedy
        length_penalty: log-probabilities are divided by length to this power; higher is longer
        n_best: answers a text, best first
        max_new_tokens: stop after so many tokens; without it, at the edge of the model's context
        json: a JSON object an answer, with ids, log-probabilities and the reason of the end
    """
    texts = text.read()
    answers = model.load().translate(
        texts,
        beams=beams,
        length_penalty=length_penalty,
        n_best=n_best,
        max_new_tokens=max_new_tokens,
    )
    sources, answers = ([texts], [answers]) if isinstance(texts, str) else (texts, answers)
    groups = [answer if isinstance(answer, list) else [answer] for answer in answers]
    for number, (source, group) in enumerate(zip(sources, groups)):
        if n_best > 1 and number and not json:
            print()
        for answer in group:
            if json:
                print_json({"source": source, **asdict(answer)})
            else:
                print(one_line(answer.text))
    return failures([group[0] for group in groups])

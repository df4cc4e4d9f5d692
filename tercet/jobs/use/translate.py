"""The verb `translate`: an encoder-decoder's best answers, by beam search."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from tyro.conf import UseAppendAction, arg

from tercet.jobs.flags import Model, Text, failed, in_groups, one_line, print_json, shown, unset


def run(
    model: Model,
    text: Text,
    *,
    beams: Annotated[int, arg(metavar="N")] = 5,
    length_penalty: Annotated[float, arg(metavar="X")] = 1.0,
    n_best: Annotated[int, arg(metavar="N")] = 1,
    max_new_tokens: Annotated[int | None, unset("N")] = None,
    no_repeat_ngram: Annotated[int, arg(metavar="N")] = 0,
    forbid: Annotated[UseAppendAction[tuple[str, ...]], unset("WORD")] = (),
    force: Annotated[UseAppendAction[tuple[str, ...]], unset("WORD")] = (),
    json: bool = False,
) -> int:
    """Translates, summarises, rewrites: whatever the encoder-decoder was trained to do.

    A file's lines give a line each, 32 texts at a time, with line breaks as \\n; several answers a
    text (--n-best) stand below each other, with an empty line between texts.

      tercet translate runs/quickstart/dates "the third of May, nineteen ninety-six"

    Args:
        beams: beginnings kept at each step; 1 is greedy
        length_penalty: log-probabilities are divided by length to this power; higher is longer
        n_best: answers a text, best first
        max_new_tokens: stop after so many tokens; without it, at the edge of the model's context
        no_repeat_ngram: no N tokens in a row come twice; 0 allows all
        forbid: a word that no answer holds; may be given again and again
        force: a word that every answer holds; may be given again and again
        json: a JSON object an answer, with ids, log-probabilities and the reason of the end
    """
    texts = text.read()
    network = model.load("translate")

    def translate(sources: Any) -> Any:
        return network.translate(
            sources,
            beams=beams,
            length_penalty=length_penalty,
            n_best=n_best,
            max_new_tokens=max_new_tokens,
            no_repeat_ngram=no_repeat_ngram,
            forbidden=forbid,
            forced=force,
        )

    one = isinstance(texts, str)
    answers = iter([(texts, translate(texts))]) if one else in_groups(texts, translate)
    code = 0
    for number, (source, found) in enumerate(answers, 1):
        best = found if isinstance(found, list) else [found]
        if n_best > 1 and number > 1 and not json:
            print()
        for answer in best:
            if json:
                print_json({"source": source, **asdict(answer)})
            else:
                print(shown(one_line(answer.text)))
        code = 2 if failed(number, best[0]) else code
    return code

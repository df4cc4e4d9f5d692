"""The verb `generate`: a text continued as it is written, or the lines of a file."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from tercet.jobs.flags import Choice, Model, Text, failures, one_line, print_json, unset


def run(
    model: Model,
    text: Text,
    choice: Choice,
    *,
    max_new_tokens: Annotated[int | None, unset("N")] = None,
    stop: Annotated[tuple[str, ...], unset("TEXT...")] = (),
    overflow: Literal["error", "slide"] = "error",
    json: bool = False,
) -> int:
    """Continues a text (decoder), or answers it (encoder-decoder).

    One text is written as it comes; a file's lines give a line each, with line breaks as \\n.

      tercet generate runs/quickstart/decoder "Return the" --temperature 0.8 --max-new-tokens 40

    Args:
        max_new_tokens: stop after so many tokens; without it, at the edge of the model's context
        stop: strings that end the text and are left out of it
        overflow: a text beyond the context: refuse it, or let its oldest tokens slide out
        json: a JSON object a line, with ids, log-probabilities and the reason of the end
    """
    sampling, texts = choice.sampling(), text.read()
    network = model.load()
    if isinstance(texts, str) and not json:
        for piece in network.stream(
            texts,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            seed=choice.seed,
            overflow=overflow,
        ):
            print(piece, end="", flush=True)
        print()
        return 0
    answers = network.generate(
        texts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        stop=stop,
        seed=choice.seed,
        overflow=overflow,
    )
    prompts = [texts] if isinstance(texts, str) else texts
    answers = answers if isinstance(answers, list) else [answers]
    for prompt, answer in zip(prompts, answers):
        if json:
            print_json({"prompt": prompt, **asdict(answer)})
        else:
            print(one_line(answer.text))
    return failures(answers)

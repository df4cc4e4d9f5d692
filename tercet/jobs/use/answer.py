"""The verb `answer`: where a text answers a question."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.jobs.flags import Model, one_line, print_json, unset
from tercet.text.read import lines


def run(
    model: Annotated[Positional[str], arg(metavar="MODEL", help_behavior_hint="")],
    *,
    question: Annotated[str, arg(metavar="TEXT", help_behavior_hint="")],
    context: Annotated[str | None, unset("TEXT")] = None,
    file: Annotated[str | None, unset("FILE")] = None,
    n_best: Annotated[int, arg(metavar="N")] = 1,
    precision: Literal["float32", "bfloat16", "int8", "int4"] = "float32",
    allow_pickle: bool = False,
    json: bool = False,
) -> None:
    """The words of a text that answer a question; they are there, or the answer is wrong.

      tercet answer runs/questions/model --question "Who met Bo?" --context "Ada met Bo."

    Args:
        model: a folder, or a model of the Hugging Face hub: owner/name
        question: the question
        context: the text that holds the answer
        file: a file with that text instead; - for standard input
        n_best: this many answers, best first
        precision: fewer bits are faster: bfloat16 loses next to nothing, int8 little, int4 more
        allow_pickle: read *.bin weights where there are no others; only from whom you trust
        json: a JSON object: for each answer, its text, characters and probability
    """
    if (context is None) == (file is None):
        said = "neither" if context is None else "both"
        raise InputError(f"give --context TEXT or --file FILE, not {said}")
    text = context if file is None else "\n".join(lines(file))
    assert text is not None
    # not the flags of Model: here --context is a text, and a long one is read in windows
    network = Model(model, allow_pickle=allow_pickle, precision=precision).load("answer")
    found = network.answer(question, text, n_best=n_best)
    answers = [found] if n_best == 1 else found
    if json:
        print_json({"question": question, "answers": [asdict(answer) for answer in answers]})
        return
    for answer in answers:
        place = f"{answer.start}-{answer.end}"
        print(f"{answer.probability:7.1%}  {place:11}  {one_line(answer.text)}")

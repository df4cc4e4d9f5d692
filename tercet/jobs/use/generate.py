"""The verb `generate`: a text continued as it is written, or the lines of a file."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from tercet.answers import CutWarning, slides
from tercet.errors import InputError
from tercet.jobs.flags import (
    Choice,
    Model,
    Text,
    failed,
    in_groups,
    one_line,
    print_json,
    say,
    shown,
    unset,
)
from tercet.text.read import lines

if TYPE_CHECKING:
    from tercet.generate.grammar import Grammar


def run(
    model: Model,
    text: Text,
    choice: Choice,
    *,
    max_new_tokens: Annotated[int | None, unset("N")] = None,
    stop: Annotated[UseAppendAction[tuple[str, ...]], unset("TEXT")] = (),
    samples: Annotated[int, arg(metavar="N")] = 1,
    overflow: Literal["error", "slide"] = "error",
    draft: Annotated[str | None, unset("MODEL")] = None,
    json_schema: Annotated[str | None, unset("FILE")] = None,
    regex: Annotated[str | None, unset("PATTERN")] = None,
    json: bool = False,
) -> int:
    """Continues a text (decoder), or answers it (encoder-decoder).

    One text is written as it comes; a file's lines give a line each, and several samples too, with
    line breaks as \\n, 32 texts at a time.

      tercet generate runs/quickstart/decoder "Return the" --temperature 0.8 --max-new-tokens 40

    Args:
        max_new_tokens: stop after so many tokens; without it, at the edge of the model's context
        stop: a string that ends the text and is left out of it; may be given again and again
        samples: so many different texts for each, one after the other
        overflow: a text beyond the context: refuse it, or let its oldest tokens slide out
        draft: who guesses several tokens ahead, which speeds a single text up and changes none: a
            smaller model with the same tokenizer, or lookup: what followed the same words before
        json_schema: a file with a JSON schema; the text is JSON that it describes
        regex: the text matches this regular expression from beginning to end
        json: a JSON object a line, with ids, log-probabilities and the reason of the end
    """
    sampling, texts = choice.sampling(), text.read()
    network = model.load("generate")
    guesses: Any = draft
    if draft not in (None, "lookup"):  # it guesses within its own context
        guesses = replace(model, model=draft, context=None).load("generate")
    how: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "sampling": sampling,
        "stop": stop,
        "seed": choice.seed,
        "samples": samples,
        "overflow": overflow,
        "draft": guesses,
        "grammar": _grammar(json_schema, regex),
    }
    if isinstance(texts, str) and samples == 1 and not json:
        del how["samples"]
        for piece in network.stream(texts, **how):
            print(shown(piece), end="", flush=True)
        print()
        return 0
    answers: Any
    if isinstance(texts, str):
        answers = ((text, network.generate(text, **how)) for text in [texts])
    else:
        # Copies of a prompt are given different texts, which only one call can see to.
        copies = sampling.temperature > 0 and len(set(texts)) < len(texts)
        answers = in_groups(texts, lambda group: network.generate(group, **how), together=copies)
    code, written = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)  # of each group: said of all at the end
        for number, (prompt, answer) in enumerate(answers, 1):
            for one in answer if samples > 1 else [answer]:
                if json:
                    print_json({"prompt": prompt, **asdict(one)})
                else:
                    print(shown(one_line(one.text)))
                written.append(one)
            code = 2 if failed(number, written[-1]) else code
    if said := slides(written):
        say(said)
    return code


def _grammar(schema: str | None, regex: str | None) -> Grammar | None:
    from tercet.generate.grammar import Grammar

    if schema is not None and regex is not None:
        raise InputError("--json-schema and --regex are two things to be; give one of them")
    if schema is not None:
        return Grammar.json("\n".join(lines(schema)))
    return None if regex is None else Grammar.regex(regex)

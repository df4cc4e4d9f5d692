"""The verb `rank`: texts in the order in which they answer a query, by a cross-encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.jobs.flags import Model, one_line, print_json, unset
from tercet.text.read import lines


@dataclass(frozen=True)
class Query:
    """What the texts should answer."""

    query: Annotated[Positional[str], arg(metavar="QUERY", help_behavior_hint="")]
    """the question, or whatever else the texts should answer"""


def run(
    model: Model,
    query: Query,
    *,
    file: Annotated[str, arg(metavar="FILE", help_behavior_hint="")] = "-",
    top: Annotated[int | None, unset("K")] = None,
    json: bool = False,
) -> None:
    """Puts texts into order by how well they answer a query, best first.

    A line for each text: its score from 0 to 1, its line in the file, the text. Each text is read
    together with the query by a model that was trained for that (tercet finetune --task rank).

      tercet rank runs/ranker "How do I leave a loop early?" --file answers.txt

    Args:
        file: a file with a text a line; without it, or as -, standard input
        top: the best K alone
        json: a JSON object a text instead
    """
    if top is not None and top < 1:
        raise InputError(f"--top {top} must be 1 or more")
    texts = list(lines(file))
    if not texts:
        raise InputError(f"{file}: is empty; give a file with a text a line")
    empty = next((i for i, text in enumerate(texts, 1) if not text.strip()), None)
    if empty is not None:
        raise InputError(f"{file}, line {empty}: is empty; take the line out")
    for found in model.load("rank").rank(query.query, texts)[:top]:
        if json:
            print_json({"text": found.text, "score": found.score, "line": found.index + 1})
        else:
            print(f"{found.score:8.4f}  {found.index + 1:6}  {one_line(found.text)}")

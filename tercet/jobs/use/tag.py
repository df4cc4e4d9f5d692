"""The verb `tag`: what the words of a text are called."""

from __future__ import annotations

from dataclasses import asdict

from tercet.answers import Tag
from tercet.jobs.flags import Model, Text, in_groups, one_line, print_json, say


def run(model: Model, text: Text, *, words: bool = False, json: bool = False) -> int:
    """The entities of a text, or the part of speech of each of its words, as the model was trained.

      tercet tag runs/entities/model "Ada Lovelace lived in London."

    Args:
        words: the words are between spaces already; print the tag of each
        json: a JSON object a text: for each tag, its words, characters and probability
    """
    texts = text.read()
    tagger = model.load("tag")
    if isinstance(texts, str):
        _show(texts, tagger.tag(_cut([texts]) if words else [texts])[0], json)
        return 0
    code = 0
    full = []
    for number, line in enumerate(texts, 1):
        if line.strip():
            full.append(line)
        else:
            say(f"text {number}: is empty")
            code = 2
    for line, tags in in_groups(full, lambda some: tagger.tag(_cut(some) if words else some)):
        _show(line, tags, json)
    return code


def _cut(texts: list[str]) -> list[list[str]]:
    return [text.split() for text in texts]


def _show(text: str, tags: list[Tag], json: bool) -> None:
    if json:
        print_json({"text": text, "tags": [asdict(tag) for tag in tags]})
        return
    width = max((len(tag.tag) for tag in tags), default=0)
    for tag in tags:
        place = f"{tag.start}-{tag.end}"
        print(f"{tag.probability:7.1%}  {tag.tag:{width}}  {place:9}  {one_line(tag.text)}")
    print()

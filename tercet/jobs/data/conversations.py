"""`data show DATA --model M`: conversations as a model reads them, what is learned in colour."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.errors import InputError
from tercet.jobs.flags import print_json, say

if TYPE_CHECKING:
    from rich.text import Text

    from tercet.data.conversations import Conversation
    from tercet.text import Tokenizer
    from tercet.text.chat import ChatTemplate, Compiled

LEARNED, SPECIAL = "bold green", "dim"
PLAIN_MARKS = "⟦", "⟧"  # around what is learned, where there are no colours


def show_conversations(
    data: str, model: str, *, rows: int = 3, form: str | None = None, json: bool = False
) -> None:
    """Prints the first `rows` conversations, and counts over all of them."""
    from tercet import hf
    from tercet.data.compiled import Counts, compiled
    from tercet.data.conversations import conversations
    from tercet.text import Tokenizer
    from tercet.text.chat import ChatTemplate

    if rows < 0:
        raise InputError(f"--rows {rows} must be 0 or more")
    folder, shapes = hf.find_settings(model)
    config, _ = hf.config_of(folder, shapes=shapes)
    template = ChatTemplate.of(Tokenizer.load(folder))
    read = conversations(data, form=form)
    say(f"{data}: {read}")
    say(_about(template, folder))
    every = read.conversations
    done = list(compiled(every, template))
    for row, one in list(zip(every, done, strict=True))[:rows]:
        if json:
            tokens = template.tokenizer.pieces(one.ids)
            print_json({"where": row.where, "ids": one.ids, "tokens": tokens, "mask": one.mask})
        else:
            _print(row, one, template.tokenizer)
    counts = Counts.of(done, config.context_length)
    if json:
        print_json({"form": read.form.name, "template": template.hash, **asdict(counts)})
    else:
        print(counts)


def _about(template: ChatTemplate, folder: Path) -> str:
    if not template.given:
        added = f", with the new tokens {' '.join(template.added)}" if template.added else ""
        return f"{folder} has no chat template; ChatML is taken{added}"
    how = "says itself what is learned" if template.marked else "does not say what is learned"
    return f"the chat template of {folder} ({template.hash[:8]}) {how}"


def _print(row: Conversation, one: Compiled, tokenizer: Tokenizer) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.rule(row.where, align="left")
    console.print(_coloured(one, tokenizer, marks=console.color_system is None))


def _coloured(one: Compiled, tokenizer: Tokenizer, *, marks: bool) -> Text:
    """The text of the ids; `marks`: signs in the place of colours."""
    from rich.text import Text

    text, was = Text(), False
    special_ids, streamer = tokenizer.special_ids, tokenizer.streamer(skip_special=False)
    kinds = [(on, not on and token in special_ids) for token, on in zip(*one, strict=True)]
    for (learned, special), run in groupby(range(len(kinds)), key=kinds.__getitem__):
        if marks and learned != was:
            text.append(PLAIN_MARKS[0] if learned else PLAIN_MARKS[1])
        said = "".join(streamer.put(one.ids[place]) for place in run)
        text.append(said, style=LEARNED if learned else SPECIAL if special else "")
        was = learned
    text.append(streamer.end(), style=LEARNED if was else "")
    return text.append(PLAIN_MARKS[1] if marks and was else "")

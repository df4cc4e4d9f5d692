"""Random decoders with a chat template, and conversations of a known length for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chat_templates import FAMILIES

import tercet
from tercet.model import build
from tercet.presets import preset
from tercet.text import Special, train_tokenizer

CONTEXT = 160
TEXT = "user assistant system Be short. the cat sat on the mat. Who sat? The cat did, and the dog."
ENDS = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}
Messages = list[dict[str, str]]


def talker(family: str | None = "llama3", **changes: Any) -> tercet.LanguageModel:
    """`family`: whose template; None for none. Its end of text is never its end of a turn. A "z" is
    a token, however often it comes."""
    chosen = None if family is None else FAMILIES[family]
    special = Special(ENDS, extra=() if chosen is None else chosen.special)
    tokenizer = train_tokenizer([TEXT * 3], vocab_size=360, special=special)
    if chosen is not None:
        tokenizer = tokenizer.with_special((), chat_template=chosen.unmarked)
    config = replace(
        preset("tercet-tiny-decoder"),
        vocab_size=tokenizer.vocab_size,
        context_length=CONTEXT,
        d_model=32,
        d_ff=48,
        n_heads=4,
        n_kv_heads=4,
        decoder_layers=2,
        init_std=0.3,
        bos_id=tokenizer.bos_id,
        eos_ids=(tokenizer.eos_id,),
    )
    return tercet.LanguageModel(build(replace(config, **changes), seed=1), tokenizer)


def talk(turns: int, question: str = "z", *, system: bool = True) -> Messages:
    """A conversation that ends with a question."""
    said = [{"role": "system", "content": "Be short."}] if system else []
    for i in range(turns):
        said.append({"role": "user", "content": f"Who sat {i % 10}?"})
        said.append({"role": "assistant", "content": "z" * (2 + i % 3)})
    return [*said, {"role": "user", "content": question}]


def talk_of(template: tercet.ChatTemplate, tokens: int) -> Messages:
    """A conversation of so many tokens: as many turns as go in, and a longer last question."""
    base, more = (len(template.prompt(talk(n))) for n in (0, 30))
    turns = max(0, 30 * (tokens - base) // (more - base) - 2)
    while len(template.prompt(talk(turns + 1))) <= tokens:
        turns += 1
    found = talk(turns, "z" * (1 + tokens - len(template.prompt(talk(turns)))))
    assert len(template.prompt(found)) == tokens
    return found

"""What a recipe says of the texts that a run learns from: its sources, which samples a step sees,
and what a batch is made of them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tercet.data import (
    Causal,
    Masked,
    Masking,
    Pieces,
    Rows,
    SentencePairs,
    Spans,
    TextPairs,
    Tokens,
    Translation,
    spans,
)
from tercet.data.draw import Draw
from tercet.data.prepare import Pairs as PairFiles
from tercet.data.prepare import Source, Tail, Texts
from tercet.data.shape import Shape
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.train.settings import Data
from tercet.text import Special
from tercet.text.special import SPECIAL
from tercet.text.spellings import Spellings

if TYPE_CHECKING:
    from tercet.jobs.train.run import Run


def source_of(data: Data) -> Source:
    """A recipe's words as a source of texts or pairs."""
    files = tuple(recipes.expanded(data.files))
    if data.source is None or data.target is None:
        read: Texts | PairFiles = Texts(files, data.split, data.column)
    elif files:
        read = PairFiles(data.source, data.target, files)
    else:
        source, target = recipes.expanded([data.source, data.target])
        read = PairFiles(source, target)
    held_out: float | Tail | Texts | PairFiles
    if data.tail is not None:
        held_out = Tail(data.tail)
    elif data.validation_source is not None and data.validation_target is not None:
        own = [data.validation_source, data.validation_target]
        source, target = recipes.expanded(own)
        held_out = PairFiles(source, target)
    elif isinstance(data.validation, list):
        named = tuple(recipes.expanded(data.validation))
        held_out = Texts(named, data.split, data.column)
        if isinstance(read, PairFiles):
            held_out = PairFiles(read.source, read.target, named)
    else:
        held_out = data.validation
    return Source(read, held_out)


def special_of(kind: str) -> str | Special:
    """The special tokens that a tokenizer for an objective of this kind needs."""
    if kind == "spans":
        whole = SPECIAL["encoder-decoder"]
        return dataclasses.replace(whole, extra=spans.spellings())
    return {"next-token": "decoder", "masked": "encoder"}.get(kind, "encoder-decoder")


def draw_of(run: Run, tokens: Tokens) -> Draw:
    """Which samples of one source a step reads."""
    objective, seed, size = run.recipe.objective, run.recipe.seed, run.recipe.batch.tokens
    if objective.kind == "pairs":
        return TextPairs(tokens, size, seed, longest=objective.length)
    length = objective.length - run.shape.added  # the special tokens around a text
    if length < 2:
        raise InputError(
            f"objective.length {objective.length} leaves {length} tokens beside the special "
            "ones; make it longer"
        )
    if objective.next_sentence:
        return SentencePairs(tokens, length, size, seed)
    if objective.packing == "rows":
        return Rows(tokens, length, max(1, size // length), seed)
    return Pieces(tokens, length, size, seed, bare=objective.kind != "next-token")


def shape_of(run: Run) -> Shape:
    """How samples become a batch. A model is loaded for pairs and spans alone."""
    objective, tokenizer = run.recipe.objective, run.tokenizer
    if objective.kind == "next-token":
        return Causal()
    if objective.kind == "pairs":
        start, end = run.config.start_id, tokenizer.eos_id
        assert start is not None and end is not None
        return Translation(start, end)
    if objective.kind == "spans":
        assert run.config.start_id is not None and tokenizer.eos_id is not None
        return Spans.of(
            tokenizer,
            start_id=run.config.start_id,
            rate=objective.rate,
            length=objective.span,
            seed=run.recipe.seed,
        )
    masking = Masking.of(tokenizer, rate=objective.rate, whole_words=objective.whole_words)
    return Masked(masking, run.recipe.seed, next_sentence=objective.next_sentence)


def learned_shape(run: Run) -> Shape:
    """The shape of what is learned from, whose words may be spelled otherwise."""
    dropout, shape = run.recipe.objective.bpe_dropout, run.shape
    if not dropout or not isinstance(shape, Translation):
        return shape
    sides = (run.tokenizer, run.tokenizer.target)
    source, target = (Spellings(side, dropout, run.recipe.seed) for side in sides)
    return dataclasses.replace(
        shape,
        spellings=(source, target),
        longest=run.config.context_length,
        seed=run.recipe.seed,
    )

"""What the page about masks shows of a sample, and what it counts of many.

A view stands over a shape of the data: over masked tokens or words, or over dropped spans.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.data import Masked, Sample, Spans
from tercet.data.masking import Words
from tercet.report.masks import How, MaskedSample, MaskedToken, Rate
from tercet.text import Tokenizer
from tercet.text.words import word_pieces


class Spelling:
    """Tokens for people: their text, and how they stand to the word before."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.words = tokenizer, Words(word_pieces(tokenizer))

    def text(self, token: int) -> str:
        (piece,) = self.tokenizer.pieces([token])
        written = self.tokenizer.written(token)
        if written is not None and written[1]:
            piece = piece.removeprefix("##")
        return piece.removeprefix("▁").replace("▁", "␣") or "␣"

    def tokens(
        self, ids: Tensor, hows: list[How], reads: list[str], *, inside: bool = False
    ) -> list[MaskedToken]:
        """``reads``: what is read in place of each token, "" for itself. ``inside``: something
        stands before them."""
        found = []
        across = not inside  # nothing of the text goes on across a special token
        for token, how, read, begins in zip(
            ids.tolist(), hows, reads, self.words.starts(ids).tolist()
        ):
            apart = across or how == "special"
            spaced = apart or self.spaced(token)
            found.append(MaskedToken(self.text(token), how, read, begins or apart, spaced))
            across = how == "special"
        return found

    def spaced(self, token: int) -> bool:
        written = self.tokenizer.written(token)
        return written is None or written[0].startswith(b" ") or written[1] is False


@dataclass
class Tally:
    """What is counted of masks."""

    free: int = 0  # tokens that may be masked
    squares: float = 0.0  # of the tokens of each unit that is chosen as a whole
    chosen: int = 0
    mask: int = 0
    kept: int = 0
    words: int = 0
    whole: int = 0  # words that are hidden as a whole, and in part
    part: int = 0
    pairs: int = 0
    elsewhere: int = 0


class MaskedView:
    """Masked tokens or whole words."""

    remark = (
        "Whether a token or word is hidden, and how, is drawn for each by itself, so the counts "
        "scatter; σ is the standard deviation that this scatter has. A random token that happens "
        "to be the right one counts as kept, which the wanted rates include."
    )

    def __init__(self, shape: Masked, tokenizer: Tokenizer) -> None:
        self.shape, self.spelling, self.tally = shape, Spelling(tokenizer), Tally()
        self.by_word = dataclasses.replace(shape.masking, words=self.spelling.words)
        unit = "whole words" if shape.masking.words else "single tokens"
        self.lead = (
            f"{shape.masking.rate:.0%} of all tokens are to be guessed, {unit} at a time. "
            "Every epoch hides others."
        )

    def shown(self, sample: Sample, name: str) -> MaskedSample:
        batch, mask_id = self.shape.batch([sample]), self.shape.masking.mask_id
        ids, hidden = self._originals(batch.tokens, batch.targets, batch.select)
        special = {self.shape.masking.cls_id, self.shape.masking.sep_id}
        hows: list[How] = []
        reads: list[str] = []
        for token, read, target in zip(ids.tolist(), batch.tokens.tolist(), hidden.tolist()):
            how: How = "special" if token in special else "seen"
            if target:
                how = "mask" if read == mask_id else "kept" if read == token else "random"
            hows.append(how)
            reads.append(self.spelling.text(read) if how in ("mask", "random") else "")
        note = f"epoch {sample.key[-2]}, {len(batch.targets)} of {sample.n_tokens} tokens hidden"
        if sample.label is not None:
            note += ", the second text " + ("comes from elsewhere" if sample.label else "follows")
        return MaskedSample(name, note, self.spelling.tokens(ids, hows, reads))

    def count(self, samples: list[Sample]) -> None:
        batch, tally, masking = self.shape.batch(samples), self.tally, self.shape.masking
        ids, hidden = self._originals(batch.tokens, batch.targets, batch.select)
        free, first = masking.free[ids], batch.layout.first
        read = batch.tokens[hidden]
        tally.free += int(free.sum())
        tally.squares += float((masking.units(ids, first)[free].bincount().double() ** 2).sum())
        tally.chosen += len(read)
        tally.mask += int((read == masking.mask_id).sum())
        tally.kept += int((read == batch.targets).sum())
        words = self.by_word.units(ids, first)
        sizes = words[free].bincount(minlength=len(ids))
        found = words[hidden].bincount(minlength=len(ids))
        tally.words += int((sizes > 0).sum())
        tally.whole += int(((sizes > 0) & (found == sizes)).sum())
        tally.part += int(((found > 0) & (found < sizes)).sum())
        tally.pairs += sum(sample.label is not None for sample in samples)
        tally.elsewhere += sum(bool(sample.label == 1) for sample in samples)

    def rates(self) -> list[Rate]:
        tally, masking = self.tally, self.shape.masking
        scatter = math.sqrt(masking.rate * (1 - masking.rate) * tally.squares)
        by_chance = masking.shuffled / masking.vocab_size
        swapped = tally.chosen - tally.mask - tally.kept
        kept = 1 - masking.replaced - masking.shuffled
        found = [
            Rate("of all tokens are targets", masking.rate, tally.chosen, tally.free, scatter),
            _share("of these read as the mask", masking.replaced + by_chance, tally.mask, tally),
            _share("read as a random token", masking.shuffled - 2 * by_chance, swapped, tally),
            _share("read as they are", kept + by_chance, tally.kept, tally),
        ]
        if masking.words is not None:
            scatter = math.sqrt(masking.rate * (1 - masking.rate) * tally.words)
            found += [
                Rate("words hidden as a whole", masking.rate, tally.whole, tally.words, scatter),
                Rate("words hidden in part", 0.0, tally.part, tally.words),
            ]
        if tally.pairs:
            scatter = math.sqrt(tally.pairs / 4)
            found += [Rate("pairs from elsewhere", 0.5, tally.elsewhere, tally.pairs, scatter)]
        return found

    def _originals(
        self, tokens: Tensor, targets: Tensor, select: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(N,) the tokens before masking, and (N,) bool: which are targets."""
        assert select is not None
        original, hidden = tokens.clone(), torch.zeros_like(tokens, dtype=torch.bool)
        original[select], hidden[select] = targets, True
        return original, hidden


def _share(name: str, wanted: float, count: int, tally: Tally) -> Rate:
    from tercet.report.masks import Rate

    return Rate(name, wanted, count, tally.chosen, math.sqrt(tally.chosen * wanted * (1 - wanted)))


class SpansView:
    """Dropped spans."""

    remark = (
        "How many tokens and spans a text loses is no chance: both are rounded, once a text. Where "
        "they lie is drawn, all ways being equally probable."
    )

    def __init__(self, shape: Spans, tokenizer: Tokenizer) -> None:
        self.shape, self.spelling = shape, Spelling(tokenizer)
        self.texts = self.tokens = self.dropped = self.spans = 0
        self.lead = (
            f"{shape.rate:.0%} of all tokens are dropped in spans of {shape.length:g} tokens on "
            "average; one mark stands for each, and the decoder has to say what it hides."
        )

    def shown(self, sample: Sample, name: str) -> MaskedSample:
        tokens: list[MaskedToken] = []
        for number, part in enumerate(self.shape.parts(sample)):
            if number % 2 == 0:
                hows: list[How] = ["seen"] * len(part)
                tokens += self.spelling.tokens(part, hows, [""] * len(part), inside=number > 0)
                continue
            mark = self.spelling.text(self.shape.sentinels[number // 2])
            tokens += [
                MaskedToken(
                    self.spelling.text(token),
                    "dropped",
                    "" if place else mark,
                    begins=not place,  # a span is framed, whatever words it lies in
                    spaced=self.spelling.spaced(token),
                )
                for place, token in enumerate(part.tolist())
            ]
        n_dropped = sum(token.how == "dropped" for token in tokens)
        note = f"epoch {sample.key[-2]}, {n_dropped} of {sample.n_tokens} tokens dropped"
        return MaskedSample(name, note, tokens)

    def count(self, samples: list[Sample]) -> None:
        for sample in samples:
            gone = self.shape.parts(sample)[1::2]
            self.texts += 1
            self.tokens += sample.n_tokens
            self.dropped += sum(map(len, gone))
            self.spans += len(gone)

    def rates(self) -> list[Rate]:
        dropped, texts, length = self.dropped, self.texts, self.shape.length
        return [
            Rate("of all tokens dropped", self.shape.rate, dropped, self.tokens, slack=texts),
            Rate("tokens a span", length, dropped, self.spans, slack=length * texts, percent=False),
        ]

"""Two BLEU scores of a translation, and chrF, each with its signature. The two differ by points on
the same output: never put both in one column.

``bleu_published`` is what papers on small sets report: lower-cased Moses tokens, as they stand.
``bleu_13a`` is what a reader of the text would measure: detokenised, against the raw references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tercet.errors import InputError, require

EXTRA = "translate"


@dataclass(frozen=True)
class Bleu:
    """score and precisions: in percent. lengths: in tokens of this metric, over the whole set."""

    score: float
    precisions: tuple[float, ...]  # of n-grams of 1, 2, 3 and 4 tokens
    brevity_penalty: float
    output_length: int
    reference_length: int
    metric: str
    signature: str  # sacrebleu's

    def __str__(self) -> str:
        precisions = "/".join(f"{precision:.1f}" for precision in self.precisions)
        return (
            f"{self.score:.2f} {self.metric} ({precisions}, BP {self.brevity_penalty:.3f}, "
            f"{self.output_length:,} against {self.reference_length:,} tokens; {self.signature})"
        )


def bleu_published(outputs: Sequence[str], references: Sequence[str]) -> Bleu:
    """Tokenised lower-cased BLEU: both sides are split where they have blanks, and nowhere else.

    Corpus-level and without smoothing, which is also fairseq's score (``fairseq-score``,
    ``generate``'s BLEU4): the figure published for Multi30k. A corpus without one common 4-gram
    scores 0. Outputs and references must be tokenised alike.
    """
    settings = dict(tokenize="none", smooth_method="none", lowercase=True, force=True)
    return _bleu(outputs, references, "tokenised lower-cased BLEU", settings)


def bleu_13a(outputs: Sequence[str], references: Sequence[str]) -> Bleu:
    """sacreBLEU with its own 13a tokenisation, lower-cased: detokenised outputs, raw references."""
    settings = dict(tokenize="13a", lowercase=True)
    return _bleu(outputs, references, "sacreBLEU 13a lc", settings)


@dataclass(frozen=True)
class ChrF:
    """score: in percent, the F of character n-grams, recall counted double (Popović 2015)."""

    score: float
    signature: str  # sacrebleu's

    def __str__(self) -> str:
        return f"{self.score:.2f} chrF ({self.signature})"


def chrf(outputs: Sequence[str], references: Sequence[str]) -> ChrF:
    """sacreBLEU's chrF2 over the whole set: for languages whose words change their endings."""
    _check(outputs, references)
    scorer = require("sacrebleu.metrics", EXTRA).CHRF()
    found = scorer.corpus_score(list(outputs), [list(references)])
    return ChrF(found.score, str(scorer.get_signature()))


def detokenise(lines: Sequence[str], language: str = "de") -> list[str]:
    """Moses tokens -> text: the blanks before punctuation go, &quot; becomes a quotation mark."""
    moses = require("sacremoses", EXTRA).MosesDetokenizer(lang=language)
    return [moses.detokenize(line.split()) for line in lines]


def _bleu(
    outputs: Sequence[str], references: Sequence[str], metric: str, settings: dict[str, Any]
) -> Bleu:
    _check(outputs, references)
    scorer = require("sacrebleu.metrics", EXTRA).BLEU(**settings)
    found = scorer.corpus_score(list(outputs), [list(references)])
    return Bleu(
        found.score,
        tuple(found.precisions),
        found.bp,
        found.sys_len,
        found.ref_len,
        metric,
        str(scorer.get_signature()),
    )


def _check(outputs: Sequence[str], references: Sequence[str]) -> None:
    if len(outputs) != len(references) or not outputs:
        raise InputError(
            f"{len(outputs):,} outputs for {len(references):,} references; give one for each"
        )

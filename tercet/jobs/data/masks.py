"""The verb `data masks`: a page that shows what is masked in real texts, how, and at which rates.

The page is made of the very parts that a training run is made of: a draw and a shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.files import writable
from tercet.jobs.flags import say, unset

if TYPE_CHECKING:
    from tercet.data import Draw, Masked, Sample, Spans
    from tercet.report import Page
    from tercet.text import Tokenizer

COUNTED = 1_000_000  # tokens that the rates are counted over
SHOWN = 12  # texts on the page
STEP = 16_384  # tokens drawn at a time
ASKED = (128, 0.15, False, False, False, 0, None)  # the flags at their defaults


def run(
    folder: Annotated[Positional[Path], arg(metavar="FOLDER", help_behavior_hint="")],
    *,
    length: int = 128,
    rate: float = 0.15,
    whole_words: bool = False,
    next_sentence: bool = False,
    spans: bool = False,
    seed: int = 0,
    source: Annotated[str | None, unset("NAME")] = None,
    out: Annotated[Path | None, unset("FILE")] = None,
) -> None:
    """Writes a page that shows what is masked in a run or a prepared corpus, and at which rates.

    Of a run, its recipe decides all but --out.

      tercet data masks runs/novels

    Args:
        folder: of `tercet train`, or of `tercet data prepare`
        length: tokens of a text at the most
        rate: the share of the tokens that are masked
        whole_words: mask all tokens of a word together
        next_sentence: read pairs of texts
        spans: drop whole spans, as an encoder-decoder is pretrained
        seed: of the order and of the masks
        source: of which source, where there are several
        out: the page, one file that opens in any browser; FOLDER/masks.html if not given
    """
    from tercet.data import Masked, Masking, Pieces, SentencePairs, Spans
    from tercet.data.corpus import Corpus

    place = out or folder / "masks.html"
    writable(place)
    if (folder / "recipe.yaml").exists():
        from tercet.jobs.train.run import Run

        if (length, rate, whole_words, next_sentence, spans, seed, source) != ASKED:
            raise InputError(
                f"{folder} is a run with its own settings; try others on {Run.open(folder).place}"
            )
        return _write(of_run(folder), place)
    if spans and (whole_words or next_sentence):
        raise InputError("spans are neither whole words nor pairs; give --spans alone")
    opened = Corpus.open(folder)
    chosen = opened.named(source)
    tokenizer, tokens = opened.tokenizer, opened.sources[chosen].train
    if spans:
        start = tokenizer.eos_id if tokenizer.pad_id is None else tokenizer.pad_id
        shape = Spans.of(tokenizer, start_id=start or 0, rate=rate, seed=seed)
    else:
        masking = Masking.of(tokenizer, rate=rate, whole_words=whole_words)
        shape = Masked(masking, seed, next_sentence=next_sentence)
    if next_sentence:
        draw = SentencePairs(tokens, length, STEP, seed)
    else:
        draw = Pieces(tokens, length, STEP, seed, bare=True)
    page = masks(
        draw,
        shape,
        tokenizer,
        name=lambda sample: opened.origin(chosen, "train", sample.document),
        kicker=f"tercet data masks {folder}",
    )
    _write(page, place)


def _write(page: Page, place: Path) -> None:
    page.write(place)
    say(f"{place}: open it in a browser")


def of_run(folder: Path) -> Page:
    """The page of a run: what its own draw and shape do."""
    from tercet.data import Masked, Spans
    from tercet.jobs.data.steps import origin
    from tercet.jobs.train.run import Run

    run = Run.open(folder)
    shape = run.shape
    if not isinstance(shape, Masked | Spans):
        raise InputError(
            f"{folder}: its objective, {run.recipe.objective.kind}, masks nothing; name a run that "
            "does, or prepared data"
        )
    return masks(
        run.draw(),
        shape,
        run.tokenizer,
        name=lambda sample: origin(run, sample),
        kicker=f"tercet data masks {folder}",
    )


def masks(
    draw: Draw,
    shape: Masked | Spans,
    tokenizer: Tokenizer,
    *,
    name: Callable[[Sample], str],
    kicker: str,
) -> Page:
    """The page. ``name``: where a sample comes from, for people."""
    from tercet.data import Spans
    from tercet.jobs.data.masks_view import MaskedView, SpansView
    from tercet.report import masks_page

    view = SpansView(shape, tokenizer) if isinstance(shape, Spans) else MaskedView(shape, tokenizer)
    shown = []
    for samples in _samples(draw):
        long = [s for s in samples if 2 * s.n_tokens >= max(s.n_tokens for s in samples)]
        shown += [view.shown(sample, name(sample)) for sample in long[: SHOWN - len(shown)]]
        view.count(samples)
    counted = f"Counted over the first {COUNTED:,} tokens that training reads. {view.remark}"
    return masks_page(shown, view.rates(), kicker=kicker, lead=view.lead, remark=counted)


def _samples(draw: Draw) -> Iterator[list[Sample]]:
    """As many epochs as the count takes, each with its own masks."""
    epoch = read = 0
    while read < COUNTED:
        for samples in draw.epoch(epoch):
            yield samples
            read += sum(sample.n_tokens for sample in samples)
            if read >= COUNTED:
                return
        epoch += 1

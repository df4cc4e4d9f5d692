"""What a LanguageModel makes of texts that it reads: vectors, labels, tags, answers, an order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tercet.answers import Attention, Fill, Ranked
from tercet.errors import InputError
from tercet.generate.texts import Request
from tercet.language_model.asked import (
    check_single,
    listed,
    string,
    texts_or_pairs,
    warn_of_cuts,
)
from tercet.language_model.parts import Parts
from tercet.represent import classify as classifying
from tercet.represent.answer import answered
from tercet.represent.fill import fill, marked
from tercet.represent.look import look
from tercet.represent.tag import tagged
from tercet.text import CutReport


class Representing(Parts):
    """The methods that read."""

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        pool: str | None = None,
        overflow: str | None = None,
        prompt: str | None = None,
    ) -> np.ndarray:
        """One vector a text: (B, D) float32; (D,) for a single string.

        pool: first ([CLS]), mean or last; None: as the model's folder says, else mean. overflow:
        None keeps the start of the texts in a list and refuses a single one; ``slide`` is the mean
        over windows weighted by tokens. prompt: one of the folder's prompts ("query"), put before
        each text.
        """
        texts, one = listed(texts)
        policy, report = overflow or ("error" if one else "keep-start"), CutReport()
        asked, how = self._asked(texts, pool, prompt)
        vectors = np.concatenate([*self.reader.embedded(list(asked), how, policy, report)])
        warn_of_cuts(report, policy)
        return vectors[0] if one else vectors

    def embed_stream(
        self,
        texts: Iterable[str],
        *,
        pool: str | None = None,
        overflow: str = "keep-start",
        prompt: str | None = None,
    ) -> Iterator[np.ndarray]:
        """The vectors (D,) of ``embed`` one by one, of any number of texts in bounded memory: some
        thousand texts are read ahead. Texts are checked as they come, options at the call."""
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise InputError(f"texts {texts!r}: give an iterable of strings; one text is for embed")
        asked, how = self._asked(texts, pool, prompt)

        def stream() -> Iterator[np.ndarray]:
            report = CutReport()
            try:
                for vectors in self.reader.embedded(asked, how, overflow, report):
                    yield from vectors
            finally:
                warn_of_cuts(report, overflow)

        return stream()

    def read(self, texts: Sequence[str], report: CutReport) -> list[list[int]]:
        """The ids of texts as ``embed`` reads them, with the default prompt; of those beyond the
        context the start, and the report counts what was cut."""
        asked, _ = self._asked(texts, None, None)
        windows, _ = self.reader.windows(list(asked), "keep-start", report)
        return [window.ids for window in windows]

    def _asked(
        self, texts: Iterable[str], pool: str | None, prompt: str | None
    ) -> tuple[Iterator[str], str]:
        """The texts as the model wants them, and how their states become a vector."""
        settings = self.extras.embedding
        before, how = settings.prompt(prompt), pool or settings.pool or "mean"
        if how not in ("first", "mean", "last"):
            raise InputError(f"pool {how!r} is unknown; use first, mean or last")
        return (settings.dressed(before, string(text)) for text in texts), how

    def classify(
        self, texts: str | tuple[str, str] | Sequence[Any], *, overflow: str | None = None
    ) -> Any:
        """What a fine-tuned head says of a text: a Label with calibrated probabilities, Labels, or
        a Value, as the model was taught; a list of them for a list.

        texts: a text, or a pair of them as a tuple; or a list of either. overflow: of texts beyond
        the context; None: as the model has learned it, else the start of those in a list is kept
        and a single one refused.
        """
        self._must("classify")
        given, one = texts_or_pairs(texts)
        policy = overflow or self.extras.overflow or ("error" if one else "keep-start")
        report = CutReport()
        if policy == "slide":
            raise InputError("overflow 'slide' is not for labels: choose keep-start or middle-out")
        read = classifying.read(self.tokenizer, given, self.limit, policy, report)
        warn_of_cuts(report, policy)
        logits, extras = classifying.logits(self.network, read), self.extras
        found = classifying.answers(logits, self.labels, extras.problem, extras.temperature)
        return found[0] if one else found

    def fill(self, text: str, *, top_k: int = 5) -> list[Fill] | list[list[Fill]]:
        """The likeliest tokens for ``[MASK]``, best first; a list for each mask when there are
        several.

        ``[MASK]`` stands for the tokenizer's own mask token, however that is spelt.
        """
        self._must("fill")
        check_single(text)
        parts, spelt = marked(text, self.tokenizer, top_k)
        filled = fill(self.network, self.tokenizer, parts, self.reader.whole(spelt), top_k)
        return filled[0] if len(filled) == 1 else filled

    def tag(self, texts: str | Sequence[str] | Sequence[Sequence[str]]) -> Any:
        """What a text names: a list of Tags, in order, or a list of such lists.

        Entities where the model's tags are B-..., I-... and O, else every word. A sentence given
        as a list of words, as in ``[["A", "word"]]``, has a Tag for each of them. Illegal tags
        are repaired. Long texts are read in windows, and each word where it has most context.
        """
        self._must("tag")
        if isinstance(texts, str):
            return tagged(self.reader, self.labels, [texts])[0]
        return tagged(self.reader, self.labels, list(texts))

    def answer(
        self, question: str | Sequence[str], context: str | Sequence[str], *, n_best: int = 1
    ) -> Any:
        """The stretch of a context that answers a question: an Answer, or the ``n_best`` of them,
        best first, when that is above 1; a list of either for several questions.

        context: one for all questions, or one for each. Beyond the model's context it is read in
        windows that overlap by half.
        """
        self._must("answer")
        asked, one = listed(question)
        contexts, same = listed(context)
        pairs = contexts * len(asked) if same else contexts
        found = answered(self.reader, asked, pairs, n_best)
        answers: list[Any] = [best if n_best > 1 else best[0] for best in found]
        return answers[0] if one else answers

    def rank(self, query: str, texts: Sequence[str]) -> list[Ranked]:
        """The texts in the order in which they answer the query, best first, each with its score.

        For an encoder with one label that reads both together: a cross-encoder (Nogueira and Cho
        2019). The scores are the sigmoid of what the head says; of equal ones the earlier text
        stands first. Of what is too long to be read together the longer's end is cut, with a
        warning.
        """
        self._must("rank")
        check_single(query)
        given, one = listed(texts)
        if one:
            raise InputError(f"texts {texts!r}: give a list of texts to put into order")
        for name, text in (
            ("the query", query),
            *((f"text {i}", t) for i, t in enumerate(given, 1)),
        ):
            if not text.strip():
                raise InputError(f"{name} is empty ({text!r}); give at least one word")
        pairs, report = [(query, text) for text in given], CutReport()
        read = classifying.read(self.tokenizer, pairs, self.limit, "keep-start", report)
        warn_of_cuts(report, "keep-start")
        return classifying.ranked(given, classifying.logits(self.network, read)[:, 0])

    def attention(self, text: str, target: str | None = None) -> dict[str, Attention]:
        """The exact attention weights over a text: "encoder", "decoder", "cross", as the family
        has.

        target: what an encoder–decoder's decoder reads; None: what it writes itself.
        """
        self._must("attention")
        if target is not None and not self.writer.reads_source:
            raise InputError(
                f"target {target!r} is for an encoder–decoder; this model is {self.config.family}: "
                "give the whole text as one"
            )
        ids = self.reader.whole(text)
        written = self._written(text, target) if self.writer.reads_source else None
        return look(self.network, self.tokenizer, ids, written)

    def _written(self, text: str, target: str | None) -> list[int]:
        """What the decoder reads beside a source: a target, or what it writes itself."""
        if target is None:
            written = self.writer.generate([text], Request())[0].ids
        else:
            written = self.tokenizer.target.encode(target)
        assert self.config.start_id is not None
        written = [self.config.start_id, *written]
        if target is not None and len(written) > self.config.context_length:
            raise InputError(
                f"the target has {len(written):,} tokens, the start token counted, and the "
                f"context {self.config.context_length:,}; shorten it"
            )
        return written[: self.config.context_length]  # our own end-of-text may lie beyond

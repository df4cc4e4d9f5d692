"""What a LanguageModel writes, and how probable it finds what others wrote."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tercet.answers import ChatWarning, CutWarning, Generation, Score
from tercet.errors import InputError
from tercet.generate import Beam, Sampling
from tercet.generate.grammar import Grammar
from tercet.generate.sampling import GREEDY
from tercet.generate.speculation import Draft, DraftNetwork, PromptLookup
from tercet.generate.texts import Request
from tercet.language_model.asked import (
    check_samples,
    check_single,
    listed,
    stops,
    warn_of_cuts,
    warn_of_slides,
)
from tercet.language_model.conversing import Conversing, Reply, Replying
from tercet.language_model.parts import Parts
from tercet.represent.score import score
from tercet.text import CutReport
from tercet.text.messages import Messages

if TYPE_CHECKING:
    from tercet.language_model.model import LanguageModel

NOTHING = "no text can be written: what is forbidden, or a network of NaN, leaves no token"


class Writing(Parts):
    """The methods that write."""

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        max_new_tokens: int | None = None,
        sampling: Sampling = GREEDY,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        samples: int = 1,
        overflow: str = "error",
        draft: str | LanguageModel | None = None,
        grammar: Grammar | None = None,
    ) -> Any:
        """Goes on with a prompt (decoder) or answers a text (encoder–decoder): a Generation, or a
        list.

        max_new_tokens: None runs to the edge of the context and reports ``length``. stop: strings
        that end a text and are left out of it. seed: decides, with the prompt, a sampled text.
        grammar: what the text must be, ``tercet.Grammar.json(schema)`` or ``.regex(pattern)``.
        draft: "lookup" (what followed before) or a smaller model: what it guesses is read several
        tokens at a time, text by text, and no text changes.
        samples: above 1, a list of so many different texts takes the place of each Generation.
        overflow:
        ``error``, or ``slide``, which drops the oldest tokens. In a list, an item that cannot be
        run has
        ``finish == "error"`` and says why in ``error``; the others go on.
        """
        self._must("generate")
        guesses = self._draft(draft)
        request = Request(max_new_tokens, sampling, stops(stop), seed, overflow, guesses, grammar)
        check_samples(samples, sampling)
        texts, one = listed(prompt)
        good, bad = ([0], {}) if one else self.writer.sound(texts, max_new_tokens, overflow)
        answers = {i: [answer] * samples for i, answer in bad.items()}
        if good:
            asked = [texts[i] for i in good for _ in range(samples)]
            written = self.writer.generate(asked, request)
            warn_of_slides(written)
            answers |= {i: written[k * samples :][:samples] for k, i in enumerate(good)}
        lists = [answers[i] if samples > 1 else answers[i][0] for i in range(len(texts))]
        return lists[0] if one else lists

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int | None = None,
        sampling: Sampling = GREEDY,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        overflow: str = "error",
        draft: str | LanguageModel | None = None,
        grammar: Grammar | None = None,
    ) -> Iterator[str]:
        """The text of ``generate`` in pieces, as it is written."""
        self._must("generate")
        guesses = self._draft(draft)
        request = Request(max_new_tokens, sampling, stops(stop), seed, overflow, guesses, grammar)
        check_single(prompt)
        pieces = self.writer.stream(prompt, request)
        return self._told(prompt, pieces) if overflow == "slide" else pieces

    def chat(
        self,
        messages: Messages,
        *,
        max_new_tokens: int | None = None,
        sampling: Sampling = GREEDY,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        overflow: str = "error",
        grammar: Grammar | None = None,
    ) -> Reply:
        """The answer to a conversation that ends with a question, by the model's chat template
        (ChatML where it has none). For decoders.

        messages: dicts with ``role`` and ``content``, a system message first or none, then
        questions ("user") and answers ("assistant") in turn. max_new_tokens: None may run to the
        edge of the context, of which a quarter is kept for it. overflow: what happens to a
        conversation beyond the context: ``error``; ``keep-end``, whole turns are left out, the
        oldest first; ``middle-out``, those of the middle; ``slide``, the oldest, also while the
        answer is written. The system message and the last question stay. The others as of
        ``generate``. What was left out is in ``sight`` of the Reply, and a CutWarning says it.
        """
        how = Request(max_new_tokens, sampling, stops(stop), seed, overflow, None, grammar)
        replying = self._conversing.stream(messages, how)
        for _ in replying:
            pass
        return replying.reply

    def chat_stream(
        self,
        messages: Messages,
        *,
        max_new_tokens: int | None = None,
        sampling: Sampling = GREEDY,
        stop: str | Sequence[str] = (),
        seed: int = 0,
        overflow: str = "error",
        grammar: Grammar | None = None,
    ) -> Replying:
        """The text of ``chat`` in pieces, as it is written; ``reply`` is at every moment the Reply
        so far, ``close()`` ends it there."""
        how = Request(max_new_tokens, sampling, stops(stop), seed, overflow, None, grammar)
        return self._conversing.stream(messages, how)

    @cached_property
    def _conversing(self) -> Conversing:
        self._must("chat")
        conversing = Conversing(self.writer)
        if conversing.about:
            warnings.warn(conversing.about, ChatWarning, stacklevel=4)
        return conversing

    def _draft(self, draft: str | LanguageModel | None) -> Draft | None:
        """Who guesses. Raises InputError for a model with another tokenizer."""
        if draft is None:
            return None
        if draft == "lookup":
            return PromptLookup()
        if not isinstance(draft, Parts):
            raise InputError(f"draft {draft!r} is unknown; use 'lookup' or a loaded model")
        if draft.tokenizer.hash != self.tokenizer.target.hash:
            raise InputError("the draft's tokenizer is not the model's; choose a draft of its kind")
        return DraftNetwork(draft.network)

    def _told(self, prompt: str, pieces: Iterator[str]) -> Iterator[str]:
        """The pieces, and at the end a warning when the text outgrew the context."""
        written = []
        for piece in pieces:
            written.append(piece)
            yield piece
        n_tokens = len(self.tokenizer.encode(prompt + "".join(written)))
        if n_tokens > self.config.context_length:
            warnings.warn(
                f"the text grew to about {n_tokens:,} tokens, beyond the context of "
                f"{self.config.context_length:,}: its oldest tokens slid out of the model's sight",
                CutWarning,
                stacklevel=2,
            )

    def translate(
        self,
        texts: str | Sequence[str],
        *,
        beams: int = 5,
        length_penalty: float = 1.0,
        early_stopping: bool | str = False,
        n_best: int = 1,
        max_new_tokens: int | None = None,
        no_repeat_ngram: int = 0,
        forbidden: Sequence[str] = (),
        forced: Sequence[str] = (),
    ) -> Any:
        """A Generation a text by beam search, or a list of the ``n_best`` each when that is above
        1.

        length_penalty: the exponent of the length by which a finished text's log-probability is
        divided. early_stopping: True, False or "never", see ``Beam``. no_repeat_ngram: no so
        many tokens in a row come twice. forbidden, forced: words that no answer, and every answer,
        holds: their tokens, at the beginning or behind a space (which longer words may begin with
        too); where one found no room, the answer ends as ``length``. In a
        list, an item that cannot be run has ``finish == "error"``; the others go on.
        """
        self._must("translate")
        wording = self.writer.wording(no_repeat_ngram, forbidden, forced)
        beam = Beam(beams, length_penalty, early_stopping, n_best, wording)
        given, one = listed(texts)
        good, bad = ([0], {}) if one else self.writer.sound(given, max_new_tokens, "error")
        best = {i: [answer] for i, answer in bad.items()}
        if good:
            found = self.writer.translate([given[i] for i in good], beam, max_new_tokens)
            best.update(zip(good, found, strict=True))
        for answers in best.values():
            if not answers and one:
                raise InputError(NOTHING)
            if not answers:
                answers.append(Generation("", error=NOTHING))
        lists = [best[i] if n_best > 1 else best[i][0] for i in range(len(given))]
        return lists[0] if one else lists

    def score(self, texts: str | Sequence[str], *, overflow: str | None = None) -> Any:
        """How probable each token is after those before it, and the perplexity: a Score, or a list.

        overflow: None refuses a single text beyond the context, and lets those of a list slide by
        half a context, each token scored once. A text of a single token has nothing that could be
        scored: its perplexity is nan.
        """
        self._must("score")
        texts, one = listed(texts)
        policy, report = overflow or ("error" if one else "slide"), CutReport()
        windows, owners = self.reader.windows(texts, policy, report, half=True)
        warn_of_cuts(report, policy)
        ids = [self.tokenizer.encode(text) for text in texts]
        values = score(self.network, windows, owners, [len(text) for text in ids])
        scores = [
            Score(text, self.tokenizer.pieces(text), value)
            for text, value in zip(ids, values, strict=True)
        ]
        return scores[0] if one else scores

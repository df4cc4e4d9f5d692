"""LanguageModel: a network, its tokenizer and what the two do together.

Text comes in and goes out here; ids stay inside. What a family cannot do raises with what it can.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tercet import hf
from tercet.answers import Attention, ChatWarning, CutWarning, Fill, Generation, Ranked, Score
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.files import written_folder
from tercet.generate import Beam, Sampling, TokenRules
from tercet.generate.grammar import Grammar
from tercet.generate.speculation import Draft, DraftNetwork, PromptLookup
from tercet.generate.texts import Request, Writer
from tercet.language_model.asked import (
    check_samples,
    check_single,
    listed,
    stops,
    string,
    texts_or_pairs,
    warn_of_cuts,
    warn_of_slides,
)
from tercet.language_model.conversing import Conversing, Reply, Replying
from tercet.model import Network
from tercet.model.linear import PackedLinear
from tercet.model.lora import LoRA, adapt, adapters, merge
from tercet.represent import classify as classifying
from tercet.represent.answer import answered
from tercet.represent.fill import fill, marked
from tercet.represent.look import look
from tercet.represent.score import score
from tercet.represent.tag import tagged
from tercet.represent.texts import TextReader
from tercet.text import CutReport, Tokenizer
from tercet.text.messages import Messages

GREEDY = Sampling()
NOTHING = "no text can be written: what is forbidden, or a network of NaN, leaves no token"
READS = {
    "classifier": "classify",
    "tagger": "tag",
    "span": "answer",
}  # heads, and the methods that they are for


class LanguageModel:
    """``config``, ``tokenizer``, ``network`` are the parts; the methods are what they do
    together.
    """

    def __init__(
        self, network: Network, tokenizer: Tokenizer, extras: hf.Extras | None = None
    ) -> None:
        self.network, self.tokenizer = network.eval(), tokenizer
        self.extras = extras or hf.Extras()
        self.base: str | None = None  # the folder that it was loaded from, which an adapter names
        if tokenizer.vocab_size > self.config.vocab_size:
            raise InputError(
                f"the tokenizer has {tokenizer.vocab_size:,} tokens but the model's table only "
                f"{self.config.vocab_size:,} rows; use the tokenizer that belongs to the model"
            )
        eos = tokenizer.eos_id
        self.writer = Writer(
            network,
            tokenizer,
            self.config.eos_ids or (() if eos is None else (eos,)),
            TokenRules(self.extras.never, self.extras.first, self.extras.last),
        )

    @property
    def config(self) -> TransformerConfig:
        return self.network.config

    @property
    def reader(self) -> TextReader:
        normalise = self.extras.embedding.normalise
        return TextReader(self.network, self.tokenizer, self.limit, normalise)

    @property
    def device(self) -> torch.device:
        return self.network.tokens.weight.device

    @property
    def can(self) -> tuple[str, ...]:
        """The methods that this model's family and heads allow."""
        able = ["embed"]
        if "masked" in self.config.heads:
            able.append("fill")
        able += [method for head, method in READS.items() if head in self.config.heads]
        if "classify" in able and self.config.family == "encoder" and self.config.n_labels == 1:
            able.append("rank")
        if "language" in self.config.heads:
            able += ["generate", "stream"]
            able += (
                ["chat", "chat_stream", "score"]
                if self.config.family == "decoder"
                else ["translate"]
            )
        if self.config.mixer == "attention":
            able.append("attention")
        return tuple(able)

    def save(self, folder: str | Path) -> None:
        """A Hugging Face folder: config.json, model.safetensors, tokenizer.json and companions. Of
        an adapted model, the adapter in peft's format, which names the folder of its base;
        ``merged().save`` writes it whole.

        Raises InputError for weights of a few bits, which are for use alone (an adapter over them
        is saved), and for an adapter whose base was never a folder.
        """
        adapted = bool(adapters(self.network))
        packed = any(isinstance(module, PackedLinear) for module in self.network.modules())
        if packed and not adapted:
            raise InputError(
                "a model in int8 or int4 is not saved; load it in float32 and save that"
            )
        if adapted:
            if self.base is None:
                raise InputError(
                    "an adapter names the folder of its base, and this base has none; save the "
                    "base, load it and adapt that, or save merged()"
                )
            if Path(folder).resolve() == Path(self.base):
                raise InputError(
                    f"{folder} is the adapter's base, which it would take the place of; choose "
                    "another folder"
                )
        with written_folder(folder) as place:
            if adapted:
                hf.save_adapter(self.network, place, self.extras, base=self.base or "")
            else:
                hf.save(self.network, place, self.extras)
            self.tokenizer.save(place, types=self.config.token_types > 1)

    # adapters ------------------------------------------------------------------------------------

    def adapt(self, lora: LoRA = LoRA(), *, seed: int = 0) -> None:
        """Puts a low-rank adapter on the network, which changes nothing until it is trained;
        everything else but the heads of a task is frozen. Raises InputError for an unknown target
        or a rank above a matrix' size."""
        adapt(self.network, lora, seed)

    def merged(self) -> LanguageModel:
        """A copy with the adapter added into the matrices: as fast as a model without one."""
        network = copy.deepcopy(self.network)
        merge(network)
        return LanguageModel(network, self.tokenizer, self.extras)

    # representation ------------------------------------------------------------------------------

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

        texts: a text, or a pair of them as a tuple; or a list of either. overflow: None keeps the
        start of the texts in a list and refuses a single one beyond the context.
        """
        self._must("classify")
        given, one = texts_or_pairs(texts)
        policy, report = overflow or ("error" if one else "keep-start"), CutReport()
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

    # generation ----------------------------------------------------------------------------------

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
        if not isinstance(draft, LanguageModel):
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

    # the pieces ----------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """Tokens of the longest text that the model states it reads."""
        stated = (self.extras.embedding.max_length, self.tokenizer.max_length)
        return min([self.config.context_length, *(n for n in stated if n)])

    @property
    def labels(self) -> tuple[str, ...]:
        """What the classes are called, of texts or of words."""
        return self.extras.labels or tuple(f"LABEL_{i}" for i in range(self.config.n_labels))

    def _must(self, method: str) -> None:
        if method not in self.can:
            heads = ", ".join(self.config.heads) or "none"
            raise InputError(
                f"this model ({self.config.family}; heads: {heads}) cannot {method}; "
                f"it can {', '.join(self.can)}"
            )

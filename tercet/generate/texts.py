"""Writing, from text to text: prompts become ids, ids become a Generation, and stop strings end
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tercet.answers import Generation
from tercet.errors import InputError
from tercet.generate.engine import generate, stream
from tercet.generate.grammar import Form, Grammar
from tercet.generate.prompts import Finished, begin, check_options
from tercet.generate.sampling import NO_RULES, Sampling, TokenRules
from tercet.generate.search import Beam, beam_search
from tercet.generate.speculation import Draft
from tercet.generate.wording import Wording
from tercet.model import Network
from tercet.text import Streamer, Tokenizer


@dataclass(frozen=True)
class Request:
    """How to write: the options that one call gives to all its texts."""

    max_new_tokens: int | None = None
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    seed: int = 0
    overflow: str = "error"
    draft: Draft | None = None
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        if any(not isinstance(s, str) for s in self.stop):
            raise InputError(f"stop {self.stop!r}: give strings")
        if self.grammar is not None and not isinstance(self.grammar, Grammar):
            raise InputError(
                f"grammar {self.grammar!r} must be a tercet.Grammar.json(...) or .regex(...)"
            )
        if any(not s for s in self.stop):
            raise InputError("an empty stop string would end every text at once; leave it out")
        if self.stop and self.grammar is not None:
            raise InputError(
                f"stop {self.stop!r} and a grammar: a document that is cut there is none; the "
                "grammar alone says where it ends"
            )
        if not isinstance(self.sampling, Sampling):
            raise InputError(f"sampling {self.sampling!r} must be a tercet.Sampling(...)")


@dataclass(frozen=True)
class Writer:
    """A network that writes, its tokenizer, and the rules of its checkpoint."""

    network: Network
    tokenizer: Tokenizer
    ends: tuple[int, ...]
    rules: TokenRules = NO_RULES

    @property
    def reads_source(self) -> bool:
        """An encoder–decoder answers a source; a decoder goes on with a prompt."""
        return self.network.config.family == "encoder-decoder"

    def ids(self, text: str) -> list[int]:
        """A prompt's or source's tokens. A decoder's prompt ends without an end-of-text token."""
        if not text.strip():
            raise InputError(f"the text {text!r} is empty; give at least one word")
        ids = self.tokenizer.encode(text)
        if not self.reads_source:
            while len(ids) > 1 and ids[-1] in self.ends:
                ids.pop()
        return ids

    def form(self, grammar: Grammar | None) -> Callable[[], Form] | None:
        """What makes the form of each text."""
        if grammar is None:
            return None
        if not self.ends:
            raise InputError("the model has no end-of-text token, which a grammar needs at its end")
        return lambda: Form(grammar, self.tokenizer.target, self.ends)

    def _sides(self, ids: list[list[int]]) -> tuple[list[list[int]] | None, list[list[int]] | None]:
        return (None, ids) if self.reads_source else (ids, None)

    def generate(self, texts: Sequence[str], request: Request) -> list[Generation]:
        """One answer a text, in one ragged batch. Raises InputError for the first that cannot be
        run.
        """
        asked = [self.ids(text) for text in texts]
        streamers = [self._streamer(ids) for ids in asked]
        written = [""] * len(texts)

        def stopped(index: int, ids: list[int]) -> bool:
            if ids[-1] not in self.ends:
                written[index] += streamers[index].put(ids[-1])
            return cut(written[index], request.stop)[0]

        prompts, sources = self._sides(asked)
        finished = generate(
            self.network,
            prompts,
            sources=sources,
            max_new_tokens=request.max_new_tokens,
            sampling=request.sampling,
            seed=request.seed,
            overflow=request.overflow,
            eos_ids=self.ends,
            rules=self.rules,
            draft=request.draft,
            form=self.form(request.grammar),
            stopped=stopped if request.stop else None,
        )
        return [
            self._generation(text, self._lead(ids), request.stop)
            for text, ids in zip(finished, asked, strict=True)
        ]

    def stream(self, text: str, request: Request) -> Iterator[str]:
        """The same text in pieces, as soon as they are certain. Input is checked at the call."""
        ids = self.ids(text)
        tokens = stream(
            self.network,
            None if self.reads_source else ids,
            source=ids if self.reads_source else None,
            max_new_tokens=request.max_new_tokens,
            sampling=request.sampling,
            seed=request.seed,
            overflow=request.overflow,
            eos_ids=self.ends,
            rules=self.rules,
            draft=request.draft,
            form=self.form(request.grammar),
        )
        return self.pieces(tokens, self._streamer(ids), request.stop)

    def pieces(
        self, tokens: Iterator[int], streamer: Streamer, stop: tuple[str, ...]
    ) -> Iterator[str]:
        """The text of tokens as soon as it is certain, up to a stop string."""
        held = ""
        for token in tokens:
            held += "" if token in self.ends else streamer.put(token)
            found, safe = cut(held, stop)
            if safe:
                yield held[:safe]
            if found:
                return
            held = held[safe:]
        held += streamer.end()
        found, safe = cut(held, stop)
        if rest := held[: safe if found else len(held)]:
            yield rest

    def translate(
        self, texts: Sequence[str], beam: Beam, max_new_tokens: int | None
    ) -> list[list[Generation]]:
        """The best texts of a beam search for each source, best first."""
        prompts, sources = self._sides([self.ids(text) for text in texts])
        found = beam_search(
            self.network,
            prompts,
            sources=sources,
            beam=beam,
            max_new_tokens=max_new_tokens,
            eos_ids=self.ends,
            rules=self.rules,
        )
        return [[self._generation(text, [], ()) for text in best] for best in found]

    def wording(self, ngram: int, forbidden: Sequence[str], forced: Sequence[str]) -> Wording:
        for name, words in {"forbidden": forbidden, "forced": forced}.items():
            if not isinstance(words, Sequence) or isinstance(words, str):
                raise InputError(f"{name} {words!r}: give a list of words, such as ['this']")
        no = tuple(spelling for word in forbidden for spelling in self._spellings(word))
        return Wording(ngram, no, tuple(self._spellings(word) for word in forced))

    def _spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The tokens of a word at the beginning of a text and behind a space."""
        if not isinstance(word, str) or not word.strip():
            raise InputError(f"{word!r} is no word; give a string of at least one letter")
        tokenizer = self.tokenizer.target
        found = {tuple(tokenizer.encode(text, special=False)) for text in (word, f" {word}")}
        found = {ids for ids in found if ids and tokenizer.unk_id not in ids}
        if not found:
            raise InputError(f"the model's tokenizer cannot spell the word {word!r}")
        return tuple(sorted(found))

    def sound(
        self, texts: Sequence[str], max_new_tokens: int | None, overflow: str
    ) -> tuple[list[int], dict[int, Generation]]:
        """Which texts can be run, and for the others what is wrong with each: one bad line of a
        file must not cost the rest. What would be wrong with every text raises.
        """
        check_options(max_new_tokens, overflow, slides=not self.reads_source)
        good: list[int] = []
        bad: dict[int, Generation] = {}
        for i, text in enumerate(texts):
            try:
                sides = self._sides([self.ids(text)])
                begin(self.network, *sides, max_new_tokens=max_new_tokens, overflow=overflow)
                good.append(i)
            except InputError as error:
                bad[i] = Generation("", error=str(error))
        return good, bad

    def _lead(self, prompt: list[int]) -> list[int]:
        """The prompt's last token, where the text behind it depends on it: a tokenizer that marks
        words by a space before them leaves it out at the start of a text, and "Once" must go on
        as " upon a time". Empty where the token alone has no whole text."""
        lead = [] if self.reads_source else prompt[-1:]
        text = self.tokenizer.target.decode(lead)
        return lead if text and self.tokenizer.target.streamer().put(lead[0]) == text else []

    def _streamer(self, prompt: list[int]) -> Streamer:
        """A streamer that goes on behind the prompt."""
        streamer = self.tokenizer.target.streamer()
        for token in self._lead(prompt):
            streamer.put(token)
        return streamer

    def _generation(self, finished: Finished, lead: list[int], stop: tuple[str, ...]) -> Generation:
        decode = self.tokenizer.target.decode
        ids, before = [i for i in finished.ids if i not in self.ends], decode(lead)
        text = decode([*lead, *ids])
        text = text[len(before) :] if text.startswith(before) else decode(ids)
        found, end = cut(text, stop)
        return Generation(
            text[:end] if found else text,
            finished.ids,
            finished.finish,
            finished.log_probabilities,
            finished.dropped,
        )


def cut(text: str, stop: Sequence[str]) -> tuple[bool, int]:
    """Whether a stop string stands in ``text``, and how many characters are certain to lie before
    one.

    "Hello Us" with stop "User:" is certain up to "Hello ": what follows may begin the stop string.
    """
    found = [at for s in stop if (at := text.find(s)) >= 0]
    if found:
        return True, min(found)
    safe = len(text)
    for s in stop:
        for n in range(min(len(s) - 1, len(text)), 0, -1):
            if text.endswith(s[:n]):
                safe = min(safe, len(text) - n)
                break
    return False, safe

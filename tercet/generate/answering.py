"""An answer while it is written: its pieces, and at every moment what there is of it.

The prompt is ids, as a chat template gives them. Where it can be had shorter, the answer goes on
beyond the edge of the context. Knows no messages.
"""

from __future__ import annotations

from collections.abc import Iterator

from tercet.generate.engine import run
from tercet.generate.prompts import Again, Ids, begin
from tercet.generate.reader import Kept, ending, picker
from tercet.generate.texts import Request, Writer


class Answering(Iterator[str]):
    """Gives pieces of text as soon as they are certain; who leaves early calls `close`.

    ids, log_probabilities   of the answer so far, as of a Generation
    dropped                  tokens that slid out of the model's sight while it answered
    finish                   "stop", "length", or "interrupted" as long as it is neither
    """

    def __init__(
        self,
        writer: Writer,
        prompt: Ids,
        request: Request,
        *,
        again: Again | None = None,
        kept: Kept | None = None,
    ) -> None:
        """again: the prompt in no more than so many tokens. kept: what was read of the prompt
        before. Raises InputError as `generate` does."""
        network, sampling = writer.network, request.sampling
        sampling.check(network.config.vocab_size)
        (self._text,) = begin(
            network,
            [prompt],
            None,
            max_new_tokens=request.max_new_tokens,
            overflow=request.overflow,
            form=writer.form(request.grammar),
        )
        self._text.again = again
        pick = picker(sampling, request.seed, writer.rules)
        self._steps = run(network, [self._text], pick, kept)
        tokens = self._written(frozenset(writer.ends))
        self._pieces = writer.pieces(tokens, writer.tokenizer.streamer(), request.stop)
        self._stopped = False

    def _written(self, ends: frozenset[int]) -> Iterator[int]:
        for (text,) in self._steps:
            text.finish = ending(text, ends, None)
            yield text.ids[-1]

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration:
            self._stopped = True  # at a stop string the text itself does not know it
            self.close()
            raise

    def close(self) -> None:
        """Ends the answer where it is."""
        self._steps.close()

    @property
    def ids(self) -> list[int]:
        return self._text.ids

    @property
    def log_probabilities(self) -> list[float]:
        return self._text.log_probabilities

    @property
    def dropped(self) -> int:
        return self._text.dropped

    @property
    def finish(self) -> str:
        return self._text.finish or ("stop" if self._stopped else "interrupted")

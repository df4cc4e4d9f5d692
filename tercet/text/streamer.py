"""Text out of tokens as they come, never half a character, and never a character taken back.

What has been given out is at every moment the beginning of `decode(all ids)`; with `end()` it is
all of it. Decoding only looks a few tokens back, so a token costs the same however long the text.
"""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what decoding makes of the bytes of an unfinished character


class Streamer:
    """Feed ids with `put`, which returns the new text (often a word, sometimes nothing).

    decode   ids -> text
    skip     ids that `decode` leaves out (special tokens)
    wait     ids whose text is not known before the next token (single bytes of a character)
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        *,
        skip: Callable[[int], bool],
        wait: Callable[[int], bool],
    ) -> None:
        self._decode = decode
        self._skip = skip
        self._wait = wait
        self._ids: list[int] = []
        self._given: list[str] = []
        # A token's text can depend on what stands before it (a first token loses its space), so
        # new text is the difference of two decodings that begin at the same `anchor`.
        self._anchor = 0
        self._done = 0  # ids[:done] have been given out
        self._before = ""  # decode(ids[anchor:done])

    def put(self, token: int) -> str:
        """The text that this token completes."""
        if self._skip(token):
            return ""
        self._ids.append(token)
        if self._wait(token):
            return ""
        text = self._decode(self._ids[self._anchor :])
        if len(text) <= len(self._before) or text.endswith(REPLACEMENT):
            return ""
        if not text.startswith(self._before):
            return ""
        piece = text[len(self._before) :]
        self._anchor, self._done = self._done, len(self._ids)
        self._before = self._decode(self._ids[self._anchor : self._done])
        self._given.append(piece)
        return piece

    def end(self) -> str:
        """What was held back; afterwards the streamer is as new."""
        given = "".join(self._given)
        rest = self._decode(self._ids)[len(given) :]
        self._ids, self._given = [], []
        self._anchor, self._done, self._before = 0, 0, ""
        return rest

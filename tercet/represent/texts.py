"""Reading, from text to ids and vectors: texts become windows that fit the model, part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tercet.errors import InputError
from tercet.model import Network
from tercet.represent.encode import encode
from tercet.text import POLICIES, CutReport, Tokenizer, Window, fit

PART_TEXTS, PART_CHARACTERS = 4_096, 1 << 24  # tokenised at once while embedding


@dataclass(frozen=True)
class TextReader:
    """A network that reads, its tokenizer, the tokens of the longest text that it takes, and
    whether its vectors have a length of 1."""

    network: Network
    tokenizer: Tokenizer
    limit: int
    normalise: bool = False

    def whole(self, text: str) -> list[int]:
        """The ids of a text that must fit as it is: the caller has no overflow policy."""
        return self.windows([text], "error", CutReport(), choices=())[0][0].ids

    def windows(
        self,
        texts: list[str],
        policy: str,
        report: CutReport,
        *,
        done: int = 0,
        half: bool = False,
        choices: Sequence[str] = POLICIES[1:],
    ) -> tuple[list[Window], list[int]]:
        """The windows of all texts, and the text of each. done: texts that came before them. half:
        ``slide`` by half a window."""
        windows, owners = [], []
        special = self.tokenizer.special_counts
        stride = max(1, (self.limit - sum(special)) // 2) if half else None
        for i, (text, ids) in enumerate(
            zip(texts, self.tokenizer.encode_batch(texts), strict=True)
        ):
            name = "the text" if len(texts) == 1 and not done else f"text {done + i + 1}"
            _check_empty(text, name)
            found = fit(
                ids,
                self.limit,
                policy,  # type: ignore[arg-type]
                special=special,
                stride=stride,
                report=report,
                name=name,
                choices=choices,
            )
            windows += found
            owners += [i] * len(found)
        return windows, owners

    def _check(self, texts: list[str], policy: str) -> None:
        """Raises as ``windows`` does, for all texts; those of a single part need no look ahead."""
        done = 0
        for part in _parts(texts):
            if len(part) == len(texts):
                return
            if policy == "error":
                self.windows(part, policy, CutReport(), done=done)
            for i, text in enumerate(part):
                _check_empty(text, f"text {done + i + 1}")
            done += len(part)

    def embedded(
        self, texts: Iterable[str], how: str, policy: str, report: CutReport
    ) -> Iterator[np.ndarray]:
        """(b, D) float32 of the texts, part by part. how: first, mean or last; a text in several
        windows is their mean, weighted by tokens. A list is checked before anything is computed."""
        if isinstance(texts, list):
            self._check(texts, policy)
        done = 0
        for part in _parts(texts):
            windows, owners = self.windows(part, policy, report, done=done)
            means = encode(self.network, [window.ids for window in windows], how).numpy()
            if len(windows) > len(part):
                means = _means(means, windows, owners)
            if self.normalise:
                means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
            done += len(part)
            yield means


def _means(vectors: np.ndarray, windows: list[Window], owners: list[int]) -> np.ndarray:
    """(windows, D) -> (texts, D): of the windows of each text, by their tokens."""
    weights = np.array([max(1, window.weight) for window in windows], dtype=np.float32)
    means = np.zeros((owners[-1] + 1, vectors.shape[1]), dtype=np.float32)
    np.add.at(means, owners, vectors * weights[:, None])
    return means / np.bincount(owners, weights)[:, None].astype(np.float32)


def _check_empty(text: str, name: str) -> None:
    if not text.strip():
        raise InputError(f"{name} is empty ({text!r}); give at least one word")


def _parts(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in lists that are bounded in number and in characters."""
    part, characters = [], 0
    for text in texts:
        part.append(text)
        characters += len(text)
        if len(part) == PART_TEXTS or characters >= PART_CHARACTERS:
            yield part
            part, characters = [], 0
    if part:
        yield part

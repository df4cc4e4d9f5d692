"""The model behind topics: texts to blocks of vectors, and the contract that says which model it
was. Loaded when it is first needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tercet.errors import InputError
from tercet.language_model import LanguageModel, load
from tercet.language_model.asked import warn_of_cuts
from tercet.represent.collection.contract import Contract
from tercet.text import CutReport
from tercet.text.passages import Passages

PART = 1_024  # texts that are embedded together
VECTORS = ("precision", "pool", "normalise", "width", "fingerprint")  # what two must share
LEAST = 64  # texts, and so tokens: `encode` has another way for fewer


class Embedder:
    """Of a model, or of the contract with one that is loaded later."""

    def __init__(self, contract: Contract, model: LanguageModel | None = None) -> None:
        self.contract, self._model = contract, model

    @classmethod
    def of(cls, model: LanguageModel | str | Path) -> Embedder:
        """Texts are read as ``embed`` reads them: behind the model's default prompt."""
        read = model if isinstance(model, LanguageModel) else load(model)
        contract = Contract.of(read, Passages(None), name=_place(model))
        return cls(replace(contract, passage=read.extras.embedding.prompt()), read)

    @property
    def model(self) -> LanguageModel:
        if self._model is None:
            self.take(self.contract.model)
        assert self._model is not None
        return self._model

    def take(self, model: LanguageModel | str | Path) -> None:
        """Uses this one. Raises InputError where it is not the one that made the vectors."""
        if isinstance(model, LanguageModel):
            read = model
        else:
            try:
                read = load(model, precision=self.contract.precision)
            except InputError as error:
                raise InputError(
                    f"the model of the topics, {model}: {error}; if it was moved, say where it is: "
                    "Topics.load(folder, model)"
                ) from error
        other = Contract.of(read, Passages(None))
        if unlike := self.contract.unlike(other, VECTORS):
            name, ours, theirs = unlike
            raise InputError(
                f"the topics were made with {name} {ours!r}, and the model given has "
                f"{theirs!r}: its vectors cannot be compared; give "
                f"{self.contract.model or 'the same'}, or find the topics anew"
            )
        self._model = read
        self.contract = replace(self.contract, model=_place(model) or other.model)

    def blocks(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """(b, D) float32 of the texts, in order; beyond the context their start is read."""
        report = CutReport()
        settings = self.model.extras.embedding
        for part in _parts(texts):
            dressed = [settings.dressed(self.contract.passage, text) for text in part]
            block = self._read(dressed, report)
            wrong = np.flatnonzero(~np.isfinite(block).all(1))
            if wrong.size:
                raise InputError(
                    f"the model's vector of {part[wrong[0]][:80]!r} holds what is no number (NaN "
                    "or infinite); check its weights"
                )
            yield block
        warn_of_cuts(report, "keep-start")

    def _read(self, texts: list[str], report: CutReport) -> np.ndarray:
        """A few texts are read with copies of themselves: fewer tokens than that go another way
        through the network, whose last digits are others at the second time."""
        more = texts * (LEAST // len(texts) if len(texts) < LEAST else 0)
        read = self.model.reader.embedded
        blocks = [*read(texts + more, self.contract.pool, "keep-start", report)]
        return np.concatenate(blocks)[: len(texts)]


def _place(model: LanguageModel | str | Path) -> str:
    """A folder as it is found from anywhere, a name of the hub as it is; "" for a model."""
    if isinstance(model, LanguageModel):
        return ""
    return str(Path(model).resolve()) if Path(model).exists() else str(model)


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Of at least PART texts, where there are so many: no few are left at the end."""
    start = 0
    while start < len(texts):
        stop = start + PART if len(texts) - start >= 2 * PART else len(texts)
        yield texts[start:stop]
        start = stop

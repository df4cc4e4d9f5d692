"""The model behind topics: texts to blocks of vectors, and the contract that says which model it
was. Loaded when it is first needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from tercet.errors import InputError
from tercet.language_model import LanguageModel, load
from tercet.language_model.asked import warn_of_cuts
from tercet.represent.collection.contract import Contract
from tercet.text import CutReport
from tercet.text.passages import Passages

UNSEEN = ("model", "language", "passages", "assumed")  # parts of a contract that make no vector


class Embedder:
    """Of a model, or of the contract with one that is loaded later."""

    def __init__(self, contract: Contract, model: LanguageModel | None = None) -> None:
        self.contract, self._model = contract, model

    @classmethod
    def of(cls, model: LanguageModel | str | Path) -> Embedder:
        """Texts are read as ``embed`` reads them: behind the model's default prompt."""
        name = "" if isinstance(model, LanguageModel) else str(model)
        read = model if isinstance(model, LanguageModel) else load(model)
        contract = Contract.of(read, Passages(None), name=name)
        return cls(replace(contract, passage=read.extras.embedding.prompt()), read)

    @property
    def model(self) -> LanguageModel:
        if self._model is None:
            self.take(self.contract.load())
        assert self._model is not None
        return self._model

    def take(self, model: LanguageModel | str | Path) -> None:
        """Uses this one. Raises InputError where it is not the one that made the vectors."""
        read = model if isinstance(model, LanguageModel) else load(model)
        theirs = asdict(Contract.of(read, Passages(None)))
        for name, ours in asdict(self.contract).items():
            if name not in (*UNSEEN, "passage", "query") and theirs[name] != ours:
                raise InputError(
                    f"the topics were made with {name} {ours!r}, and the model given has "
                    f"{theirs[name]!r}: its vectors cannot be compared; give "
                    f"{self.contract.model or 'the same'}, or find the topics anew"
                )
        self._model = read

    def blocks(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """(b, D) float32 of the texts, in order; beyond the context their start is read."""
        report = CutReport()
        lower = self.model.extras.embedding.lower_case
        dressed = (self.contract.passage + text for text in texts)
        asked = (text.lower() for text in dressed) if lower else dressed
        yield from self.model.reader.embedded(asked, self.contract.pool, "keep-start", report)
        warn_of_cuts(report, "keep-start")

"""What the vectors of a collection were made with. It lies beside them, and a query that was made
with anything else is refused: vectors of two models cannot be compared, and nothing would show it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tercet.errors import InputError
from tercet.language_model import LanguageModel, load
from tercet.language_model.identity import fingerprint, precision_of
from tercet.text.passages import Passages

FORMAT = 1
LONG = 128  # tokens of a passage


@dataclass(frozen=True)
class Contract:
    """model: the folder, or a name of the hub. fingerprint: of the weights in their precision, of
    tokenizer and settings. language: of the texts, for
    the index of their words. query, passage: what is put before a text of each kind. pool: first,
    mean or last; assumed: the model's folder does not say it. width: of a vector."""

    model: str
    fingerprint: str
    precision: str
    query: str
    passage: str
    pool: str
    assumed: bool
    normalise: bool
    width: int
    passages: Passages
    language: str

    @classmethod
    def of(
        cls,
        model: LanguageModel,
        cut: Passages | None = None,
        *,
        name: str = "",
        language: str = "English",
    ) -> Contract:
        """For a model that embeds. Its prompts "query" and "passage" (or "document") are used where
        its folder has them, else its default one. cut: None for passages of 128 tokens, or as many
        as the model reads. Raises InputError for passages that do not fit its context."""
        told = model.extras.embedding
        room = model.limit - sum(model.tokenizer.special_counts)
        default = told.prompt()
        passage = next(
            (told.prompts[name] for name in ("passage", "document") if name in told.prompts),
            default,
        )
        cut = cut or Passages(min(LONG, room))
        if cut.tokens is not None and cut.tokens > room:
            raise InputError(
                f"passages of {cut.tokens} tokens do not fit the model, which reads {room} beside "
                "its special ones; ask for fewer"
            )
        return cls(
            name or model.base or "",
            fingerprint(model),
            precision_of(model),
            told.prompts.get("query", default),
            passage,
            told.pool or "mean",
            told.pool is None,
            told.normalise,
            model.config.d_model,
            cut,
            language,
        )

    def check(self, model: LanguageModel, place: str) -> None:
        """Raises InputError where the model is not the one that the vectors were made with."""
        found = Contract.of(model, Passages(None))  # theirs need not fit, for it to be told apart
        names = ("precision", "pool", "query", "passage", "normalise", "width", "fingerprint")
        if unlike := self.unlike(found, names):
            name, ours, theirs = unlike
            raise InputError(
                f"{place} was made with {name} {ours!r}, and the model "
                f"{found.model or 'given'} has {theirs!r}: its vectors cannot be compared; "
                f"leave the model out (then {self.model} is used), or bring the collection to "
                f"this one: tercet index upgrade {place} --to {found.model or 'MODEL'}"
            )

    def unlike(self, other: Contract, names: Sequence[str]) -> tuple[str, Any, Any] | None:
        """The first of these facts that differs, with ours and the other's."""
        facts = ((name, getattr(self, name), getattr(other, name)) for name in names)
        return next((fact for fact in facts if fact[1] != fact[2]), None)

    @property
    def rows(self) -> str:
        """The name of the table that holds vectors of this contract."""
        return f"rows-{self.fingerprint[:16]}"

    def load(self) -> LanguageModel:
        """The model of the vectors. Raises InputError where its folder is gone."""
        try:
            return load(self.model, precision=self.precision)
        except InputError as error:
            raise InputError(f"the model of the collection, {self.model}: {error}") from error

    def text(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def read(cls, text: str, place: str) -> Contract:
        """Raises InputError for what no version, or only a newer one, has written."""
        try:
            told = json.loads(text)
            number = told.pop("format")
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{place}: its contract is damaged ({error}); build it anew") from None
        if number != FORMAT:
            raise InputError(
                f"{place}: is of format {number}, and this version reads {FORMAT}; install a newer "
                "tercet"
            )
        try:
            return cls(**{**told, "passages": Passages(**told["passages"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"{place}: its contract is damaged ({error}); build it anew") from None

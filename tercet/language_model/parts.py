"""What a LanguageModel is made of, and what its family and heads allow."""

from __future__ import annotations

import torch

from tercet import hf
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.generate import TokenRules
from tercet.generate.texts import Writer
from tercet.model import Network
from tercet.represent.texts import TextReader
from tercet.text import Tokenizer

READS = {
    "classifier": "classify",
    "tagger": "tag",
    "span": "answer",
}  # heads, and the methods that they are for


class Parts:
    """A network, its tokenizer, and what a folder says beside."""

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
        alone = self.config.family == "encoder" and self.config.n_labels == 1
        # a number in the user's units is no score: its sigmoid would be 1 for whatever is above 20
        if "classify" in able and alone and self.extras.problem != "regression":
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

    @property
    def described(self) -> str:
        """What ``can`` follows from, for people."""
        said = f"{self.config.family}; heads: {', '.join(self.config.heads) or 'none'}"
        return f"{said}; problem: {self.extras.problem}" if self.extras.problem else said

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
            raise InputError(
                f"this model ({self.described}) cannot {method}; it can {', '.join(self.can)}"
            )

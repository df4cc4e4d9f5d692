"""Held-out texts, and what networks and n-grams make of the same tokens of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tercet.data.corpus import Corpus
from tercet.data.documents import documents
from tercet.evaluate.ngram import NGram
from tercet.evaluate.perplexity import loss
from tercet.jobs.recipe import expanded
from tercet.text import Tokenizer


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A text as one stream of tokens, the end-of-text token first; all but that one are scored."""

    stream: Tensor  # (N,)
    n_bytes: int

    @classmethod
    def read(cls, entry: dict[str, Any], tokenizer: Tokenizer) -> HeldOut:
        """``entry``: the file, and how its documents begin (see `documents`; a file by itself)."""
        found = documents(expanded([entry["file"]]), split=entry.get("split", "file"))
        text = "".join(document.text for document in found)
        assert tokenizer.eos_id is not None
        ids = [tokenizer.eos_id, *tokenizer.encode(text, special=False)]
        return cls(torch.tensor(ids), len(text.encode()))

    @property
    def n_tokens(self) -> int:
        return len(self.stream) - 1

    def bits_per_byte(self, nats: float) -> float:
        """From nats a token."""
        return nats * self.n_tokens / math.log(2) / self.n_bytes

    def nats(self, network: Any, length: int) -> float:
        """Nats a token in windows of ``length`` tokens that slide by half."""
        return loss(network, self.stream, length)

    def ngram_nats(self, ngram: NGram) -> float:
        """Nats a token of an n-gram, which sees all that stands before, as far as it looks."""
        return -float(ngram.log_probabilities(self.stream.numpy()).mean())


def trained_ngram(corpus: Corpus, order: int) -> tuple[NGram, int]:
    """Of all the training tokens of a corpus, and how many they are."""
    parts = [splits.train.take(0, splits.train.n_tokens) for splits in corpus.sources.values()]
    tokens = np.concatenate([part.numpy() for part in parts])
    return NGram(tokens, corpus.tokenizer.vocab_size, order=order), len(tokens)

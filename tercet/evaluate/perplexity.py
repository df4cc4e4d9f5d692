"""How well a network foretells a held-out text: nats a token, bits a byte, and by visible context.

One measure for every network with our call signatures, and for a text in a model's own tokenizer.
Bits per byte compare models whose tokenizers differ; nats a token do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from tercet.data import Batch, Masked, Masking
from tercet.data.windows import hidden_alone, windows
from tercet.errors import InputError
from tercet.language_model import LanguageModel

Documents = Sequence[tuple[int, int]]
LOGITS = 1 << 23  # held at once: 32 MB in float32, 167 rows of a vocabulary of 50,257


class Predictor(Protocol):
    """What is asked of a network: a decoder or its recurrent twin."""

    training: bool

    def states(self, tokens: Tensor, layout: Any) -> Tensor: ...
    def logits(self, states: Tensor) -> Tensor: ...
    def parameters(self) -> Iterator[Any]: ...
    def train(self, mode: bool = True) -> Any: ...


def loss(
    network: Predictor, tokens: Tensor, length: int, *, documents: Documents | None = None
) -> float:
    """Nats a token over the stream ``tokens`` (N,), of all but the first; exp() is the perplexity.

    Windows of ``length`` slide by half and each token is scored once. documents: see ``windows``;
    each is then read alone.
    """
    nats, n_targets = _nats(network, tokens, length, documents=documents)
    return nats / n_targets


def bits_per_byte(
    network: Predictor,
    tokens: Tensor,
    length: int,
    n_bytes: int,
    *,
    documents: Documents | None = None,
) -> float:
    """Bits that the stream costs, of all its tokens but the first, for each of ``n_bytes``."""
    return _nats(network, tokens, length, documents=documents)[0] / math.log(2) / n_bytes


def loss_by_context(
    network: Predictor,
    tokens: Tensor,
    contexts: Sequence[int] = (32, 64, 128, 256, 512),
    *,
    documents: Documents | None = None,
) -> dict[int, float]:
    """Visible context -> nats a token, of the same tokens for every context.

    At a context c each token has at least c / 2 and at most c tokens before it. Scored are the
    tokens with the longest of the contexts before them: the beginning of a text, where nobody sees
    far, is left out.
    """
    found = {}
    for context in contexts:
        nats, n_targets = _nats(network, tokens, context, documents=documents, seen=max(contexts))
        found[context] = nats / n_targets
    return found


def text_bits_per_byte(model: LanguageModel, text: str, *, length: int | None = None) -> float:
    """Bits for each byte of ``text`` (UTF-8), in windows of ``length`` (None: the model's limit).

    The model's begin-of-text token, else its end-of-text token, stands before the text, as in
    training. Where it has neither, the first token and its bytes are left out. A tokenizer that
    drops capitals or writes unknown words as one token flatters its model: the bytes it lost cost
    nothing.
    """
    if "score" not in model.can:
        raise InputError(
            f"this model ({model.config.family}) cannot score a text; it can {', '.join(model.can)}"
        )
    tokenizer = model.tokenizer
    ids, n_bytes = tokenizer.encode(text, special=False), len(text.encode())
    before = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    if before is None:
        n_bytes -= len(tokenizer.decode(ids[:1]).encode())
    else:
        ids = [before, *ids]
    stream = torch.tensor(ids, dtype=torch.int64)
    return bits_per_byte(model.network, stream, length or model.limit, n_bytes)


@torch.inference_mode()
def pseudo_bits_per_byte(
    model: LanguageModel, text: str, *, length: int | None = None, sample: int = 4_096
) -> float:
    """What a token costs an encoder that sees all the others around it (Salazar et al. 2020), in
    bits for each byte of ``text``.

    ``sample`` tokens at equal distances are each hidden alone, in pieces of ``length`` tokens with
    the special ones (None: the model's limit), and stand for all tokens. The product of these
    probabilities is not the probability of the text: the figure compares masked models, and says
    nothing beside the bits per byte of a decoder.
    """
    if "fill" not in model.can:
        raise InputError(
            f"this model ({model.config.family}) fills no masks; it can {', '.join(model.can)}"
        )
    masking = Masking.of(model.tokenizer)
    ids = torch.tensor(model.tokenizer.encode(text, special=False), device=model.device)
    if not len(ids):
        raise InputError("the text has no tokens; give a longer one")
    before = torch.tensor([i for i in (masking.cls_id,) if i is not None]).to(ids)
    after = torch.tensor([i for i in (masking.sep_id,) if i is not None]).to(ids)
    room = (length or model.limit) - Masked(masking).added
    texts = [torch.cat([before, piece, after]) for piece in ids.split(max(1, room))]
    chosen = torch.linspace(0, len(ids) - 1, min(sample, len(ids)), dtype=torch.float64).long()
    places = [(at // room, len(before) + at % room) for at in chosen.tolist()]
    with _evaluating(model.network):
        batches = hidden_alone(texts, places, masking.mask_id)
        nats = sum(_batch_nats(model.network, batch) for batch in batches)
    return nats / len(places) * len(ids) / math.log(2) / len(text.encode())


@torch.inference_mode()
def _nats(
    network: Predictor,
    tokens: Tensor,
    length: int,
    *,
    documents: Documents | None = None,
    seen: int = 1,
) -> tuple[float, int]:
    """The negative log-likelihood of all targets, and how many there are."""
    nats, n_targets = 0.0, 0
    with _evaluating(network):
        tokens = tokens.to(next(network.parameters()).device)
        for batch in windows(tokens, length, documents=documents, seen=seen):
            nats += _batch_nats(network, batch)
            n_targets += len(batch.targets)
    if not n_targets:
        raise InputError(
            f"a stream of {len(tokens)} tokens has none with {seen} before it; give a longer text"
        )
    return nats, n_targets


def _batch_nats(network: Predictor, batch: Batch) -> float:
    """Of the batch's targets; the logits are made a few rows at a time."""
    states = network.states(batch.tokens, batch.layout)[batch.select]  # (n, D)
    nats, at, rows = 0.0, 0, 1  # one row tells how wide the logits are
    while at < len(states):
        logits = network.logits(states[at : at + rows]).float()  # (rows, V)
        nats += float(F.cross_entropy(logits, batch.targets[at : at + rows], reduction="sum"))
        at, rows = at + rows, max(1, LOGITS // logits.shape[-1])
    return nats


@contextmanager
def _evaluating(network: Predictor) -> Iterator[None]:
    """Without dropout; afterwards the network is in the mode in which it came."""
    training = network.training
    network.train(False)
    try:
        yield
    finally:
        network.train(training)

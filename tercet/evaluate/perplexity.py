"""How well a network foretells a held-out text: nats a token, bits a byte, by visible context and
by position.

One measure for every network with our call signatures, and for a text in a model's own tokenizer.
Bits per byte compare models whose tokenizers differ; nats a token do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from tercet.data import Batch, Masked, Masking
from tercet.data.windows import hidden_alone, windows
from tercet.errors import InputError
from tercet.language_model import LanguageModel
from tercet.text import Tokenizer

Documents = Sequence[tuple[int, int]]
Watch = Callable[[int], object]  # is told, again and again, how many targets are measured
LOGITS = 1 << 23  # held at once: 32 MB in float32, 167 rows of a vocabulary of 50,257


class Predictor(Protocol):
    """What is asked of a network: a decoder or its recurrent twin."""

    training: bool

    def states(self, tokens: Tensor, layout: Any) -> Tensor: ...
    def logits(self, states: Tensor) -> Tensor: ...
    def parameters(self) -> Iterator[Any]: ...
    def train(self, mode: bool = True) -> Any: ...


@dataclass(frozen=True)
class Cost:
    """What ``n_tokens`` targets cost together, in nats."""

    nats: float
    n_tokens: int

    @property
    def loss(self) -> float:
        """Nats a token."""
        return self.nats / self.n_tokens

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))  # beyond, a float is at its end

    def bits_per_byte(self, n_bytes: int) -> float:
        return self.nats / math.log(2) / n_bytes


@dataclass(frozen=True)
class HeldOut:
    """Texts as one stream ``tokens`` (N,), the (start, stop) of each as in ``windows``, and the
    bytes that its targets stand for."""

    tokens: Tensor
    documents: Documents
    n_bytes: int

    @property
    def n_targets(self) -> int:
        return sum(max(0, stop - start) for start, stop in self.documents)


def held_out(tokenizer: Tokenizer, texts: Iterable[str]) -> HeldOut:
    """Texts that do not see each other, ready to be measured.

    The tokenizer's begin-of-text token, else its end-of-text token, stands before each, as in
    training. Where it has neither, a text's first token and its bytes are left out.
    """
    before = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    stream: list[int] = []
    documents, n_bytes = [], 0
    for text in texts:
        ids = tokenizer.encode(text, special=False)
        n_bytes += len(text.encode())
        if before is None:
            n_bytes -= len(tokenizer.decode(ids[:1]).encode())
        else:
            ids = [before, *ids]
        documents.append((len(stream), len(stream) + len(ids) - 1))
        stream += ids
    return HeldOut(torch.tensor(stream, dtype=torch.int64), documents, n_bytes)


def loss(
    network: Predictor, tokens: Tensor, length: int, *, documents: Documents | None = None
) -> float:
    """Nats a token over the stream ``tokens`` (N,), of all but the first; exp() is the perplexity.

    Windows of ``length`` slide by half and each token is scored once. documents: see ``windows``;
    each is then read alone.
    """
    return cost(network, tokens, length, documents=documents).loss


def bits_per_byte(network: Predictor, tokens: Tensor, length: int, n_bytes: int) -> float:
    """Bits that the stream costs, of all its tokens but the first, for each of ``n_bytes``."""
    return cost(network, tokens, length).bits_per_byte(n_bytes)


def loss_by_context(
    network: Predictor, tokens: Tensor, contexts: Sequence[int] = (32, 64, 128, 256, 512)
) -> dict[int, float]:
    """Visible context -> nats a token, of the same tokens for every context.

    At a context c each token has at least c / 2 and at most c tokens before it. Scored are the
    tokens with the longest of the contexts before them: the beginning of a text, where nobody sees
    far, is left out.
    """
    return {
        context: cost(network, tokens, context, seen=max(contexts)).loss for context in contexts
    }


def position_ranges(length: int) -> list[tuple[int, int]]:
    """1 to 31, 32 to 63, 64 to 127 and so on, doubling, up to ``length``, which the last holds."""
    firsts = [1]
    while (following := max(32, 2 * firsts[-1])) < length:
        firsts.append(following)
    return list(zip(firsts, [first - 1 for first in firsts[1:]] + [length]))


def cost_by_position(
    network: Predictor,
    tokens: Tensor,
    length: int,
    *,
    documents: Documents | None = None,
    piece: int | None = None,
    watch: Watch | None = None,
) -> dict[tuple[int, int], Cost]:
    """(first, last) of ``position_ranges`` -> the cost of the tokens with so many before them.

    Each document is cut into pieces of ``piece`` tokens that do not see each other, a shorter rest
    left out, so that every position is measured equally often. piece: None for ``length``, then
    each is one window; where it is longer, windows of ``length`` slide over it by half: what a
    network of a shorter context makes of the same tokens. Raises InputError where there is none.
    """
    piece = piece or length
    whole = [(0, len(tokens) - 1)] if documents is None else documents
    starts = [at for start, stop in whole for at in range(start, stop - piece + 1, piece)]
    if not starts:
        longest = max((stop - start for start, stop in whole), default=0)
        raise InputError(
            f"the longest text has {longest:,} tokens, and a window by position {piece:,}; "
            "give a longer text"
        )
    pieces = [(at, at + piece) for at in starts]
    found = [nats for _, nats in _measured(network, tokens, length, pieces, watch=watch)]
    nats = torch.cat(found).double().view(len(pieces), piece)
    parts = {(first, last): nats[:, first - 1 : last] for first, last in position_ranges(piece)}
    return {place: Cost(float(part.sum()), part.numel()) for place, part in parts.items()}


def text_bits_per_byte(model: LanguageModel, text: str, *, length: int | None = None) -> float:
    """Bits for each byte of ``text`` (UTF-8), in windows of ``length`` (None: the model's limit);
    see ``held_out``.

    A tokenizer that drops capitals or writes unknown words as one token flatters its model: the
    bytes it lost cost nothing.
    """
    check_scores(model)
    alone = held_out(model.tokenizer, [text])
    return bits_per_byte(model.network, alone.tokens, length or model.limit, alone.n_bytes)


def check_scores(model: LanguageModel) -> None:
    """Raises InputError for a model that gives no probability to a text."""
    if "score" in model.can:
        return
    other = "; pseudo_bits_per_byte compares encoders" if "fill" in model.can else ""
    raise InputError(
        f"this model ({model.config.family}) cannot score a text, as decoders do; "
        f"it can {', '.join(model.can)}{other}"
    )


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
        nats = sum(float(_nats(model.network, batch).double().sum()) for batch in batches)
    return nats / len(places) * len(ids) / math.log(2) / len(text.encode())


def cost(
    network: Predictor,
    tokens: Tensor,
    length: int,
    *,
    documents: Documents | None = None,
    seen: int = 1,
    watch: Watch | None = None,
) -> Cost:
    """All targets that have ``seen`` tokens before them, in windows as in ``loss``."""
    nats, n_targets = 0.0, 0
    for batch, found in _measured(network, tokens, length, documents, seen=seen, watch=watch):
        nats += float(found.double().sum())
        n_targets += len(batch.targets)
    if not n_targets:
        raise InputError(
            f"a stream of {len(tokens)} tokens has none with {seen} before it; give a longer text"
        )
    return Cost(nats, n_targets)


@torch.inference_mode()
def _measured(
    network: Predictor,
    tokens: Tensor,
    length: int,
    documents: Documents | None,
    *,
    seen: int = 1,
    watch: Watch | None = None,
) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch of windows, with the nats of its targets (n,)."""
    done = 0
    with _evaluating(network):
        tokens = tokens.to(next(network.parameters()).device)
        for batch in windows(tokens, length, documents=documents, seen=seen):
            yield batch, _nats(network, batch)
            done += len(batch.targets)
            if watch is not None:
                watch(done)


def _nats(network: Predictor, batch: Batch) -> Tensor:
    """(n,) of the batch's targets, float32; the logits are made a few rows at a time."""
    states = network.states(batch.tokens, batch.layout)[batch.select]  # (n, D)
    found: list[Tensor] = []
    at, rows = 0, 1  # one row tells how wide the logits are
    while at < len(states):
        logits = network.logits(states[at : at + rows]).float()  # (rows, V)
        found.append(F.cross_entropy(logits, batch.targets[at : at + rows], reduction="none"))
        at, rows = at + rows, max(1, LOGITS // logits.shape[-1])
    return torch.cat(found)


@contextmanager
def _evaluating(network: Predictor) -> Iterator[None]:
    """Without dropout; afterwards the network is in the mode in which it came."""
    training = network.training
    network.train(False)
    try:
        yield
    finally:
        network.train(training)

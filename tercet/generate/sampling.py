"""How the next token is chosen: pure functions from logits to ids.

Randomness is no state here. A draw is a number in [0, 1) that depends on (seed, text, position)
alone, so neither the batch that a text travels in nor its neighbours can change what it becomes.
Knows no network, no cache and no text.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tercet.errors import InputError
from tercet.kernels.best import best, log_sums


@dataclass(frozen=True)
class Sampling:
    """How adventurous the choice is. Temperature 0, the default, takes the likeliest token.

    First the logits are moved: by `bias`, then by the penalties. Then come `temperature`, `top_k`,
    `top_p`, `min_p`, each acting on what the one before left.

    temperature: divides the logits; 1 is the model's own distribution.
    top_k: keeps the k likeliest tokens (Fan et al. 2018, section 5.1), and whatever ties the last.
    top_p: keeps the smallest set that holds this much probability (Holtzman et al. 2020).
    min_p: keeps tokens at least this fraction as likely as the likeliest (Nguyen et al. 2024).
    repetition_penalty: divides positive logits, and multiplies negative ones, of every token that
        prompt or text holds (Keskar et al. 2019, section 4.1); 1 does nothing.
    presence_penalty: is taken from the logit of every token that was written, once.
    bias: id -> what is added to its logit; -inf forbids it.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            left_out = value is None and name in ("top_k", "top_p", "min_p")
            if name != "bias" and not left_out and not isinstance(value, int | float):
                raise InputError(f"{name} {value!r} must be a number")
        if not (0 <= self.temperature < math.inf):
            raise InputError(
                f"temperature {self.temperature} must be 0 (greedy) or above, such as 0.8"
            )
        if self.top_k is not None and (type(self.top_k) is not int or self.top_k < 1):
            raise InputError(
                f"top_k {self.top_k} must be a whole number of 1 or more; leave it out to keep all"
            )
        if self.top_p is not None and not (0 < self.top_p <= 1):
            raise InputError(f"top_p {self.top_p} must be above 0 and at most 1, such as 0.95")
        if self.min_p is not None and not (0 <= self.min_p <= 1):
            raise InputError(f"min_p {self.min_p} must lie between 0 and 1, such as 0.05")
        if not (0.001 <= self.repetition_penalty <= 1000):
            raise InputError(
                f"repetition_penalty {self.repetition_penalty} must lie between 0.001 and 1000, "
                "such as 1.1; 1 is none"
            )
        if not (-2 <= self.presence_penalty <= 2):
            raise InputError(
                f"presence_penalty {self.presence_penalty} must lie between -2 and 2; 0 is none"
            )
        if not isinstance(self.bias, Mapping):
            raise InputError(f"bias {self.bias!r} must be a dict of token ids and numbers")
        for token, value in self.bias.items():
            known = isinstance(value, int | float) and (abs(value) <= 1e6 or value == -math.inf)
            if not known:
                raise InputError(
                    f"bias {value!r} of token {token} must be a number up to 1,000,000, or -inf"
                )

    def check(self, vocab_size: int) -> None:
        """Raises InputError for a bias of what is no token."""
        for token in self.bias:
            if type(token) is not int or not 0 <= token < vocab_size:
                raise InputError(
                    f"bias: token id {token!r} is outside the vocabulary of {vocab_size:,}"
                )

    @property
    def moves(self) -> bool:
        """Whether logits are moved at all."""
        return bool(self.bias) or self.repetition_penalty != 1 or self.presence_penalty != 0


@dataclass(frozen=True)
class TokenRules:
    """Tokens that a checkpoint's own settings forbid or force.

    never: ids that are not to be chosen (a translation model's padding, for one).
    first: the id that every text begins with (a language's name, a begin-of-text token).
    last: the id that stands at the last place when a text fills all the tokens allowed.
    """

    never: tuple[int, ...] = ()
    first: int | None = None
    last: int | None = None

    def forces(self, n_new: int, limits: Sequence[int]) -> bool:
        """Whether a token is certain, of texts of `n_new` tokens that end at `limits` (B)."""
        last = self.last is not None and n_new + 1 in limits
        return last or (self.first is not None and n_new == 0)

    def apply(self, scores: Tensor, n_new: int, limits: Sequence[int]) -> Tensor:
        """scores (B, V) with ruled-out tokens at -inf; `n_new` tokens stand, of `limits` (B)."""
        return scores if self == NO_RULES else self.apply_(scores.clone(), n_new, limits)

    def apply_(self, scores: Tensor, n_new: int, limits: Sequence[int]) -> Tensor:
        """The same in place. A forced token's score becomes 0."""
        if self.never:
            scores[:, list(self.never)] = -math.inf
        if self.first is not None and n_new == 0:
            scores[:] = -math.inf
            scores[:, self.first] = 0.0
        if self.last is not None:
            rows = [row for row, limit in enumerate(limits) if limit == n_new + 1]
            scores[rows] = -math.inf
            scores[rows, self.last] = 0.0
        return scores


GREEDY = Sampling()
NO_RULES = TokenRules()


def moved(
    logits: Tensor, sampling: Sampling, seen: Sequence[Sequence[int]], new: Sequence[Sequence[int]]
) -> Tensor:
    """logits (B, V) after bias and penalties; of each row the ids ``seen`` and the ``new`` ones."""
    if not sampling.moves:
        return logits
    scores = logits.clone()
    if sampling.bias:
        values = torch.tensor(list(sampling.bias.values()), dtype=scores.dtype)
        scores[:, list(sampling.bias)] += values.to(scores.device)
    if sampling.repetition_penalty != 1:
        at = _places(seen)
        old = scores[at]
        penalty = sampling.repetition_penalty
        scores[at] = torch.where(old > 0, old / penalty, old * penalty)
    if sampling.presence_penalty != 0:
        at = _places(new)
        scores[at] = scores[at] - sampling.presence_penalty
    return scores


def _places(ids: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Rows and columns of the different ids of each row."""
    pairs = [(row, token) for row, found in enumerate(ids) for token in set(found)]
    return [row for row, _ in pairs], [token for _, token in pairs]


def choose(logits: Tensor, sampling: Sampling, *, draws: Tensor | None = None) -> Tensor:
    """ids (B,) from logits (B, V). `draws` (B,), numbers in [0, 1), are needed above temperature 0.

    A draw picks the token at whose stretch of the cumulative distribution, in the vocabulary's
    order, it falls (inverse transform), so equal draws give equal tokens on every device.
    """
    if sampling.temperature == 0:
        return best(logits, 1)[1].squeeze(-1)
    assert draws is not None, "sampling above temperature 0 needs a draw for every row"
    weights = distribution(logits, sampling).cumsum(-1)  # (B, V)
    _numbers(weights[:, -1].tolist())
    # The sum of all may end at 0.9999…: scaled by it, no draw can fall behind the last token.
    reach = draws.to(weights).unsqueeze(-1) * weights[:, -1:]  # (B, 1)
    return torch.searchsorted(weights, reach, right=True).squeeze(-1)


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities (B, V), float64, after temperature and filters; 0 where filtered out."""
    scores = logits.double()
    # Below the maximum, nothing can overflow, however small the temperature is.
    scores = (scores - scores.amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None:
        lowest = scores.topk(min(sampling.top_k, scores.shape[-1]), -1).values[:, -1:]
        scores = scores.masked_fill(scores < lowest, -math.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        ascending, order = scores.sort(-1)
        outside = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        outside[:, -1] = False  # the likeliest always stays
        scores = scores.masked_fill(outside.scatter(-1, order, outside), -math.inf)
    probabilities = scores.softmax(-1)
    if sampling.min_p is not None:
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
        probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    return probabilities


def log_probabilities(logits: Tensor, ids: Tensor, sums: Tensor | None = None) -> list[float]:
    """B numbers: the model's own log-probability of each id: temperature 1, no filter, no rule.
    sums: ``log_sums(logits)``, where they are known. Raises InputError where a network gives NaN,
    which torch's argmax takes for the largest."""
    own = logits.gather(-1, ids.unsqueeze(-1)).flatten().tolist()
    sums = log_sums(logits) if sums is None else sums
    # plain numbers: behind a large network's weights each call into torch is a cold one
    found = [x - total for x, total in zip(own, sums.tolist(), strict=True)]
    _numbers(found)
    return found


def _numbers(found: list[float]) -> None:
    if any(x != x for x in found):
        raise InputError(
            "the network gives no numbers (NaN): check its weights, or try precision float32"
        )


def identities(texts: Sequence[tuple[int, ...]]) -> list[bytes]:
    """A key for each text: its content, and how many equal texts stand before it in the list.

    So `[a, b]` in one call gives what `a` and `b` give in two, and copies of one prompt differ.
    """
    seen: dict[tuple[int, ...], int] = {}
    keys = []
    for text in texts:
        seen[text] = seen.get(text, -1) + 1
        keys.append(hashlib.blake2b(f"{seen[text]} {text}".encode(), digest_size=16).digest())
    return keys


def draw(seed: int, identity: bytes, position: int) -> float:
    """The number in [0, 1) that belongs to one position of one text under one seed (53 bits)."""
    counter = f"{seed} {position}".encode()
    digest = hashlib.blake2b(counter, key=identity, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53

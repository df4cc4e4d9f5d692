"""Token vectors that counting gives before any training: which tokens stand near which.

The positive pointwise mutual information of neighbours, its width cut down by singular values, is
what skip-grams with negative samples learn (Levy and Goldberg 2014; Levy et al. 2015, section 3:
contexts smoothed by 0.75, nearer neighbours counted more). A masked model spends its first
thousands of steps on just that; to count the same text takes seconds (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tercet.data import Tokens
from tercet.data.order import generator
from tercet.errors import InputError

WINDOW = 5  # neighbours on each side; the nearest counts 1, the farthest 1/5
CONTEXTS = 4_096  # the commonest tokens: the counts of a vocabulary of 16,384 take 268 MB
SMOOTHING = 0.75  # of the contexts' frequencies: or rare ones would decide
BLOCK = 1 << 20  # tokens read at a time
ROWS = 1_024  # of the counts turned into information at a time


def counted_vectors(
    streams: Sequence[Tokens], vocab_size: int, width: int, *, seed: int = 0
) -> Tensor:
    """(vocab_size, width) float32, of length 1 on average, from all the tokens of the streams.

    Tokens that never occur (a mask, say) get a random vector of that length. Raises InputError for
    streams without two tokens.
    """
    times = sum((_times(tokens, vocab_size) for tokens in streams), torch.zeros(vocab_size))
    if times.sum() < 2:
        raise InputError(f"{int(times.sum())} tokens have no neighbours to count; give more text")
    contexts = times.argsort(descending=True, stable=True)[: min(CONTEXTS, int((times > 0).sum()))]
    found = _reduced(_information(_counts(streams, vocab_size, contexts)), width, seed)
    seen = times > 0
    found -= found[seen].mean(0)
    found *= width**-0.5 / found[seen].square().mean().sqrt().clamp_min(1e-12)
    drawn = torch.randn(vocab_size, width, generator=generator("counted", seed)) * width**-0.5
    return torch.where(seen[:, None], found, drawn)


def _times(tokens: Tokens, vocab_size: int) -> Tensor:
    """(V,) how often each token occurs."""
    blocks = (tokens.take(at, at + n) for at, n in _blocks(tokens))
    counts = (torch.bincount(block, minlength=vocab_size).float() for block in blocks)
    return sum(counts, torch.zeros(vocab_size))


def _blocks(tokens: Tokens) -> Iterator[tuple[int, int]]:
    for start in range(0, tokens.n_tokens, BLOCK):
        yield start, min(BLOCK, tokens.n_tokens - start)


def _counts(streams: Sequence[Tokens], vocab_size: int, contexts: Tensor) -> Tensor:
    """(V, C) how often a context stands near a token, on either side."""
    column = torch.full((vocab_size,), -1)
    column[contexts] = torch.arange(len(contexts))
    counts = torch.zeros(vocab_size * len(contexts))
    for tokens in streams:
        for start, n in _blocks(tokens):
            ids = tokens.take(start, min(start + n + WINDOW, tokens.n_tokens))
            for far in range(1, WINDOW + 1):
                before, after = ids[:n][: max(0, len(ids) - far)], ids[far : n + far]
                for token, context in ((before, column[after]), (after, column[before])):
                    known = context >= 0
                    places = token[known] * len(contexts) + context[known]
                    weight = torch.tensor(1 - (far - 1) / WINDOW)
                    counts.scatter_add_(0, places, weight.expand(len(places)))
    return counts.view(vocab_size, -1)


def _information(counts: Tensor) -> Tensor:
    """In place: counts (V, C) -> how much oftener than by chance, as a logarithm, at least 0."""
    each = counts.sum(0).pow_(SMOOTHING)
    chance = each / each.sum()  # (C,)
    for rows in counts.split(ROWS):
        rows /= rows.sum(1, keepdim=True).clamp_min(1e-12) * chance.clamp_min(1e-12)
        rows.clamp_min_(1).log_()
    return counts


def _reduced(information: Tensor, width: int, seed: int) -> Tensor:
    """(V, C) -> (V, width): singular vectors by the roots of their values; 0 beyond the rank."""
    most = min(information.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vectors, values, _ = torch.svd_lowrank(information, q=min(most, width + 20), niter=2)
    kept = min(width, len(values))
    return F.pad(vectors[:, :kept] * values[:kept].sqrt(), (0, width - kept))

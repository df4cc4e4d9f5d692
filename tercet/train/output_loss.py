"""The output layer and its cross-entropy in one: exact, and never N x V logits.

Objectives return sums, so the gradient of each row's logits is known as soon as they are. Rows go
through the output a chunk at a time, forwards and backwards at once: what stays are the gradients
of states and table, which backward only scales. (Wijmans et al. 2024 recompute the logits instead;
that is a third more products.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tercet.kernels.linear import rounded_up, times
from tercet.kernels.softmax import rows

CHUNK_BYTES = 64 << 20  # of logits
TABLE_ROWS = 8192  # of the table's gradient at a time: its bfloat16 product stays in the cache
TWIN_ROWS = 32  # compared at a time: 2 x 32 x 5,000 logits, 1.3 MB, stay in the cache


def cross_entropy(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    r_drop: float = 0.0,
    chunk: int | None = None,
) -> Tensor:
    """The summed loss, in nats, of states (n, D) under a table (V, D) and bias (V,): a scalar.

    Targets (n,); ``chunk``: rows at a time. Under autocast the products are bfloat16; softmax and
    sums are float32, and so is the table's gradient. It can be gone back through once.

    r_drop: above 0 the states are (2n, D), of the same targets under two draws of dropout. The loss
    is the mean of both and r_drop / 4 times the sum of the two Kullback-Leibler divergences between
    them: half of what Liang et al. 2021 (R-Drop, equation 4) minimise.
    """
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < len(weight):
        raise IndexError(f"a target is outside of the vocabulary of {len(weight)}")
    inputs = [x for x in (states, weight, bias) if x is not None]
    gradient = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    with_table = gradient and weight.requires_grad
    return _Chunked.apply(  # type: ignore[return-value]
        states, weight, bias, targets, smoothing, r_drop, chunk, gradient, with_table
    )


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        r_drop: float,
        chunk: int | None,
        gradient: bool,
        with_table: bool,
    ) -> Tensor:
        kind = states.dtype
        if torch.is_autocast_enabled(states.device.type):
            kind = torch.get_autocast_dtype(states.device.type)
        exact = torch.promote_types(kind, torch.float32)
        x, table = states.to(kind), weight.to(kind)
        offset = None if bias is None else bias.to(kind)
        copies = 2 if r_drop else 1
        x = x.reshape(copies, len(targets), x.shape[-1])
        d_states = torch.empty_like(x, dtype=states.dtype) if gradient else None
        d_table = torch.empty(weight.shape, dtype=exact, device=x.device) if with_table else None
        d_bias = torch.zeros_like(bias, dtype=exact) if gradient and bias is not None else None
        if d_table is not None and not len(targets):
            d_table.zero_()
        loss = torch.zeros((), dtype=torch.float64, device=x.device)
        with torch.autocast(states.device.type, enabled=False):
            for i, part in enumerate(_parts(len(targets), (chunk or _rows(table)) // copies)):
                mine = x[:, part].flatten(0, 1)  # (copies n, D)
                n, read = len(mine), rounded_up(mine)
                logits = times(read, table, offset)  # (copies n and a few, V)
                if r_drop:
                    loss += _twins(logits[:n], targets[part], smoothing, r_drop, gradient=gradient)
                else:
                    loss += rows(logits[:n], targets[part], smoothing, gradient=gradient)
                logits[n:] = 0
                if d_states is not None:
                    d_states[:, part] = times(logits, table.t())[:n].view(copies, -1, x.shape[-1])
                if d_table is not None:
                    _add_products(d_table, logits, read, first=i == 0)
                if d_bias is not None:
                    d_bias += logits.sum(0, dtype=exact)
                del logits
        d_states = None if d_states is None else d_states.view_as(states)
        ctx.made = d_states, d_table, d_bias
        # a tied table adds the rows that were read to our gradient (model/pick.py)
        ctx.waiting = getattr(weight, "waiting", None) if with_table else None
        return loss.to(exact)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        made, ctx.made = ctx.made, None
        assert made is not None, "the gradients of this loss were taken already"
        if ctx.waiting is not None:
            ctx.waiting.announce()
        scaled = (None if x is None else x.mul_(gradients[0]) for x in made)
        return *scaled, None, None, None, None, None, None


def _twins(
    logits: Tensor, targets: Tensor, smoothing: float, r_drop: float, *, gradient: bool
) -> Tensor:
    """The loss of logits (2n, V) under two draws of dropout; with ``gradient`` they become their
    own gradient, as in ``rows``.

    With p, q the two distributions and a = log p - log q, both divergences are sums of (p - q) a;
    half of that sum goes back to the logits of p as (p (a - KL(p|q)) + p - q) / 2, and likewise.
    """
    loss = torch.zeros((), dtype=torch.float64, device=logits.device)
    kind = torch.promote_types(logits.dtype, torch.float32)
    for part in _parts(len(targets), TWIN_ROWS if logits.device.type == "cpu" else len(targets)):
        both = logits.view(2, len(targets), -1)[:, part]  # (2, n, V)
        logs = both.to(kind).log_softmax(-1)
        share, apart = logs.exp(), logs - logs.flip(0)  # p and q; a and -a
        far = (share * apart).sum(-1, keepdim=True)  # KL(p|q) and KL(q|p), (2, n, 1)
        loss += r_drop / 4 * far.sum()
        single = both.flatten(0, 1)
        loss += rows(single, targets[part].repeat(2), smoothing, gradient=gradient) / 2
        if gradient:
            pull = share.mul(apart.sub_(far)).add_(share - share.flip(0))
            both.copy_(pull.mul_(r_drop / 4).add_(single.view_as(both), alpha=0.5))
    return loss


def _rows(table: Tensor) -> int:
    return max(64, CHUNK_BYTES // (len(table) * table.element_size()))


def _parts(n: int, most: int) -> list[slice]:
    """As few parts as ``most`` rows a part allow, of equal size."""
    count = -(-n // max(1, most))
    size = -(-n // count) if count else 1
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def _add_products(total: Tensor, logits: Tensor, x: Tensor, *, first: bool) -> None:
    """total (V, D) += logits' x, some rows of the table at a time, added up in ``total``'s type."""
    for part in _parts(len(total), TABLE_ROWS):
        product = times(logits[:, part].t(), x.t())
        if first:
            total[part].copy_(product)
        else:
            total[part].add_(product)


def log_likelihoods(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """(n,) float32 natural logarithms of the targets' probabilities, for losses that are no sums
    over targets. Logits are made a chunk at a time, and again on the way back (Chen et al. 2016).
    """
    parts = _parts(len(targets), _rows(weight))
    found = [
        checkpoint(_likelihoods, states[p], weight, bias, targets[p], use_reentrant=False)
        for p in parts
    ]
    return torch.cat(found) if found else states.new_zeros(0, dtype=torch.float32)


def _likelihoods(x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    logits = F.linear(x, weight, bias).float()  # (n, V)
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]

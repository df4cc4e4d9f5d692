"""Where a token stands: sinusoidal and learned tables, rotary angles with their scalings, relative
buckets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tercet.config import RopeScaling
from tercet.errors import InputError
from tercet.model.layout import Layout


class Table(nn.Module):
    """A constant a position, computed once and kept for the longest sequence so far; in no
    checkpoint.

    Subclasses give ``compute(positions) -> (..., width)`` in float64; it is rounded once, to the
    type asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def compute(self, positions: Tensor) -> Tensor:
        raise NotImplementedError

    def rows(self, layout: Layout, dtype: torch.dtype) -> Tensor:
        """(N, width), the table's row for each token."""
        return self.table(max(layout.totals), layout.device, dtype)[layout.positions]

    def table(self, longest: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """(at least ``longest``, width)."""
        key = (device, dtype)
        if key not in self.tables or len(self.tables[key]) < longest:
            # a power of two, so that a growing text computes it seldom; never an inference tensor,
            # since training may use the table after an evaluation made it
            with torch.inference_mode(False), torch.no_grad():
                n = 1 << (longest - 1).bit_length()
                positions = torch.arange(n, dtype=torch.float64, device=device)
                self.tables[key] = self.compute(positions).to(dtype)
        return self.tables[key]


class Sinusoidal(Table):
    """Sines and cosines of geometrically spaced frequencies (Vaswani et al. 2017, section 3.5).

    ``halves`` puts all sines before all cosines; otherwise they alternate.
    """

    def __init__(self, d_model: int, halves: bool) -> None:
        super().__init__()
        self.d_model, self.halves = d_model, halves

    def compute(self, positions: Tensor) -> Tensor:
        pairs = (self.d_model + 1) // 2
        exponent = (
            torch.arange(pairs, dtype=torch.float64, device=positions.device) * 2 / self.d_model
        )
        angles = positions[:, None] / 10_000.0**exponent  # (T, D / 2)
        sines, cosines = angles.sin(), angles.cos()[:, : self.d_model // 2]
        if self.halves:
            return torch.cat([sines, cosines], dim=-1)
        table = angles.new_empty(len(positions), self.d_model)
        table[:, 0::2], table[:, 1::2] = sines, cosines
        return table

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (N, D)
        return x + self.rows(layout, x.dtype)


class Learned(nn.Embedding):
    """One trained vector a position. ``offset`` rows of the table stand before position 0."""

    def __init__(self, context_length: int, d_model: int, offset: int) -> None:
        super().__init__(context_length + offset, d_model)
        self.context_length, self.offset = context_length, offset

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # type: ignore[override]  # (N, D)
        self.check(max(layout.totals))
        return x + super().forward(layout.positions + self.offset)

    def check(self, longest: int) -> None:
        if longest > self.context_length:
            raise InputError(
                f"a sequence of {longest} tokens is longer than the context of "
                f"{self.context_length}; shorten it"
            )


class Rotary(Table):
    """Angles that turn pairs of query and key channels (Su et al. 2021), halves convention.

    Frequencies are kept in float64 and cosines are rounded once, so that position 100,000 is as
    exact as 1.
    """

    def __init__(
        self, d_head: int, theta: float, scaling: RopeScaling | None, context_length: int
    ) -> None:
        super().__init__()
        self.d_head, self.theta, self.scaling, self.context_length = (
            d_head,
            theta,
            scaling,
            context_length,
        )
        self.factor = _temperature(scaling) if scaling else 1.0

    def frequencies(self, device: torch.device) -> Tensor:
        """(K / 2,) radians a position, float64."""
        exponent = torch.arange(0, self.d_head, 2, dtype=torch.float64, device=device) / self.d_head
        plain = self.theta**-exponent
        if self.scaling is None:
            return plain
        original = self.scaling.original_context or self.context_length
        if self.scaling.kind == "linear":
            return plain / self.scaling.factor
        if self.scaling.kind == "llama3":
            return _llama3(plain, self.scaling, original)
        return _yarn(plain, self.scaling, original, self.theta, self.d_head)

    def compute(self, positions: Tensor) -> Tensor:
        angles = positions[:, None] * self.frequencies(positions.device)  # (T, K / 2)
        return torch.cat([angles.cos(), angles.sin()], dim=-1) * self.factor

    def forward(self, layout: Layout, dtype: torch.dtype) -> Turn:
        """Cosine and sine of each token's angles, each (N, 1, K / 2)."""
        cosine, sine = self.rows(layout, dtype)[:, None].chunk(2, dim=-1)
        return cosine, sine


Turn = tuple[Tensor, Tensor]


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """(N, H, K): channel i and i + K / 2 are one plane, turned by the angle of the token's
    position.
    """
    cosine, sine = turn
    a, b = x.chunk(2, dim=-1)
    turned = torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1)
    return turned.to(x.dtype)  # under autocast the angles keep more bits than x


def _llama3(plain: Tensor, scaling: RopeScaling, original: int) -> Tensor:
    """Long waves are stretched, short ones kept, those between blended (Llama 3.1)."""
    waves = original / (2 * math.pi / plain)  # turns within the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = ((waves - low) / (high - low)).clamp(0, 1)  # 0: stretch, 1: keep
    return plain * (blend + (1 - blend) / scaling.factor)


def _yarn(plain: Tensor, scaling: RopeScaling, original: int, theta: float, d_head: int) -> Tensor:
    """NTK by parts (Peng et al. 2023, section 3.2): channels that turn often are kept, slow ones
    stretched.
    """

    def channel(turns: float) -> float:
        return d_head * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d_head - 1)
    if low == high:
        high += 0.001
    ramp = (
        (torch.arange(d_head // 2, dtype=torch.float64, device=plain.device) - low) / (high - low)
    ).clamp(0, 1)
    return plain * ((1 - ramp) + ramp / scaling.factor)


def _temperature(scaling: RopeScaling) -> float:
    """YaRN multiplies queries and keys by 0.1 ln(factor) + 1 (section 3.4)."""
    if scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor

    def of(mscale: float) -> float:
        return 0.1 * mscale * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0

    if scaling.mscale and scaling.mscale_all_dim:
        return of(scaling.mscale) / of(scaling.mscale_all_dim)
    return of(1.0)


class RelativeBuckets(nn.Module):
    """A learned bias a head for each range of distances (Raffel et al. 2020, section 2.1)."""

    def __init__(self, n_buckets: int, max_distance: int, n_heads: int, *, causal: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_buckets, n_heads))
        self.n_buckets, self.max_distance, self.causal = n_buckets, max_distance, causal

    def bucket(self, distance: Tensor) -> Tensor:
        """key position - query position -> bucket. Half of the buckets are exact, half
        logarithmic.
        """
        n, offset = self.n_buckets, torch.zeros_like(distance)
        if self.causal:
            distance = (-distance).clamp(min=0)
        else:
            n //= 2
            offset = (distance > 0).long() * n
            distance = distance.abs()
        exact = n // 2
        # float32 on purpose: the reference rounds here, and a bucket's edge must fall on the same
        # distance
        log = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = exact + (log * (n - exact)).long()
        return offset + torch.where(distance < exact, distance, far.clamp(max=n - 1))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions (..., T) and (..., S) -> bias (..., H, T, S)."""
        distance = keys[..., None, :] - queries[..., :, None]
        return self.weight[self.bucket(distance)].movedim(-1, -3)

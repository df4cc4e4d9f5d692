"""From numbers to positions on an axis, and where the ticks stand. No markup here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """What an axis is called (with its unit), whether it is logarithmic, and whether it begins at
    zero, so that a small change looks small."""

    name: str
    log: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Scale:
    """An axis with its ends: values `low` to `high` map onto 0 to 1."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where the value stands, 0 at `low` and 1 at `high`; outside it goes beyond."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def shows(self, value: float) -> bool:
        """Whether the value has a place: finite, and positive where the axis is logarithmic."""
        return math.isfinite(value) and (value > 0 or not self.log)

    def ticks(self, wanted: int = 5) -> list[float]:
        """About `wanted` round values between the ends."""
        return _log_ticks(self, wanted) if self.log else _even_ticks(self.low, self.high, wanted)


def scale_of(values: Iterable[float], *, log: bool = False, tight: bool = False) -> Scale:
    """The scale that holds all values that can be shown; `tight` adds no room at the ends."""
    shown = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(shown), max(shown)) if shown else (1.0, 10.0) if log else (0.0, 1.0)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
        return Scale(low, high, log)
    if tight:
        return Scale(low, high, log)
    if log:
        room = (high / low) ** 0.04
        return Scale(low / room, high * room, log)
    room = 0.04 * (high - low)
    # A curve of positive values never asks for ground below zero.
    return Scale(max(low - room, 0.0) if low >= 0 else low - room, high + room, log)


def _even_ticks(low: float, high: float, wanted: int) -> list[float]:
    rough = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, last + 1)]


def _log_ticks(scale: Scale, wanted: int) -> list[float]:
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [d * 10.0**e for e in range(first, last + 1) for d in digits]
        ticks = [t for t in ticks if scale.low * 0.999 <= t <= scale.high * 1.001]
        if len(ticks) >= max(3, wanted - 2):
            return ticks[:: math.ceil(len(ticks) / (2 * wanted))]
    # Less than about a decade and a half: even steps read better than three lonely powers.
    even = [t for t in _even_ticks(scale.low, scale.high, wanted) if t > 0]
    return even if len(even) > len(ticks) else ticks


def tick_labels(ticks: list[float]) -> list[str]:
    """One way of writing for all ticks of an axis: 0.5, 1.0, 1.5; 500, 1k, 1.5k; 1e-4."""
    largest = max((abs(t) for t in ticks), default=0.0)
    smallest = min((abs(t) for t in ticks if t), default=1.0)
    if largest >= 1e12 or smallest < 1e-4:
        digits = 0 if len({f"{t:.0e}" for t in ticks}) == len(ticks) else 1
        return [_power(f"{t:.{digits}e}") if t else "0" for t in ticks]
    if largest >= 10_000:
        return [_thousands(t) for t in ticks]
    gaps = [abs(b - a) for a, b in zip(ticks, ticks[1:], strict=False)]
    even = len(gaps) > 1 and max(gaps) - min(gaps) < 1e-6 * max(gaps)
    if not even and len(gaps) > 1:
        return [f"{t:g}".replace("-", "−") for t in ticks]
    exact = f"{min(gaps, default=largest):.6f}".rstrip("0")
    decimals = len(exact.partition(".")[2])
    return [f"{t:.{decimals}f}".replace("-", "−") for t in ticks]


def _power(text: str) -> str:
    """1e-04 as 1e−4."""
    digits, _, exponent = text.partition("e")
    return f"{digits}e{int(exponent)}".replace("-", "−")


def _thousands(value: float) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}".replace("-", "−")
    return f"{value:g}".replace("-", "−")

"""A page about masks: real texts with what was hidden in them and how, and the achieved rates.

Plain data comes in: spellings, how each token is read, and counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tercet.report.markup import Html, inline, join, number, tag, visible
from tercet.report.page import Page
from tercet.report.pieces import Fact, facts, table

# seen: as it is; special: put there by the shape; the others are targets: read as the mask, as
# another token, as itself; or dropped with its span, of which one mark is left
How = Literal["seen", "special", "mask", "random", "kept", "dropped"]
MEANINGS: dict[How, str] = {
    "mask": "hidden behind the mask token",
    "random": "read as a random token",
    "kept": "read as it is, and still asked for",
    "dropped": "dropped; above it the mark that is read instead",
}
SURE = 4.0  # standard deviations that a rate may be off; one page in 5,000 goes beyond by chance


@dataclass(frozen=True)
class MaskedToken:
    """One token of a sample. ``read``: what the network reads in its place, where that differs."""

    text: str
    how: How
    read: str = ""
    begins: bool = True  # a word
    spaced: bool = True  # a space stands before it


@dataclass(frozen=True)
class MaskedSample:
    name: str  # where it comes from
    note: str
    tokens: Sequence[MaskedToken]


@dataclass(frozen=True)
class Rate:
    """A share that was wanted and what came of it: ``count`` of ``among``."""

    name: str
    wanted: float
    count: float
    among: float
    deviation: float | None = None  # standard deviation of the count, where chance decides
    slack: float = 0.0  # by how much it may be off where chance does not
    percent: bool = True

    @property
    def found(self) -> float:
        return self.count / self.among if self.among else 0.0

    @property
    def off(self) -> float | None:
        """How many standard deviations the count is off; None where it has none."""
        if not self.deviation:
            return None
        return (self.count - self.wanted * self.among) / self.deviation

    @property
    def good(self) -> bool:
        off = self.off
        if off is None:
            return abs(self.count - self.wanted * self.among) <= self.slack
        return abs(off) <= SURE

    def shown(self, value: float) -> str:
        return f"{value:.2%}" if self.percent else number(round(value, 3))


def masks_page(
    samples: Sequence[MaskedSample],
    rates: Sequence[Rate],
    *,
    kicker: str,
    lead: str,
    remark: str = "",
) -> Page:
    """Rates above, texts below. ``remark``: how the rates were counted."""
    page = Page("What is masked", kicker=kicker, lead=lead)
    page.add(facts(*(_fact(rate) for rate in rates[:4])))
    header = ["", "wanted", "achieved", "count", "among", "off by", f"within {SURE:.0f} σ"]
    page.section("Rates", remark, table(header, map(_row, rates), align="lrrrrrl"))
    used = {token.how for sample in samples for token in sample.tokens}
    page.section("Texts", _legend(used), *map(_sample, samples))
    return page


def _fact(rate: Rate) -> Fact:
    return Fact(rate.shown(rate.found), rate.name, f"wanted: {rate.shown(rate.wanted)}", rate.good)


def _row(rate: Rate) -> list[str | float | bool | None]:
    off = None if rate.off is None else f"{round(rate.off, 1) + 0.0:+} σ".replace("-", "−")
    return [
        *(rate.name, rate.shown(rate.wanted), rate.shown(rate.found)),
        *(number(round(rate.count)), number(round(rate.among)), off, rate.good),
    ]


def _legend(used: set[str]) -> Html:
    items = [
        tag("li", tag("span", "word", class_=f"token {how}"), f" {meaning}")
        for how, meaning in MEANINGS.items()
        if how in used
    ]
    framed = tag("span", *(tag("span", part, class_="token") for part in "wo rd".split()))
    what = "the tokens of one span" if "dropped" in used else "the tokens of one word"
    frame = tag("li", tag("span", framed, class_="word"), f" {what}")
    return tag("ul", *items, frame, class_="mask-legend")


def _sample(sample: MaskedSample) -> Html:
    words: list[list[MaskedToken]] = []
    for token in sample.tokens:
        if token.begins or not words:
            words.append([])
        words[-1].append(token)
    body = [part for word in words for part in (" " if word[0].spaced else "", _word(word))]
    caption = tag("figcaption", tag("span", sample.name), tag("span", inline(sample.note)))
    text = tag("p", *body, class_="masked-tokens", dir="auto")
    return tag("figure", caption, text, class_="sample masks")


def _word(word: list[MaskedToken]) -> Html:
    touched = any(token.how not in ("seen", "special") for token in word)
    parts = [
        join(" " if i and token.spaced else None, _token(token)) for i, token in enumerate(word)
    ]
    inner = tag("span", *parts, class_="word" if touched else None)
    return join(inner, tag("span", class_="line-end") if word[-1].text == "⏎" else None)


def _token(token: MaskedToken) -> Html:
    if token.how in ("seen", "special"):
        return tag("span", visible(token.text), class_=f"token {token.how}")
    above = token.read or ("=" if token.how == "kept" else "")
    title = MEANINGS[token.how] + (f": {token.read}" if token.read else "")
    over = tag("rt", visible(above)) if above else tag("rt")
    return tag("ruby", visible(token.text), over, class_=f"token {token.how}", title=title)

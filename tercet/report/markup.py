"""HTML that is safe by construction: text is escaped unless it is already `Html`.

Knows nothing of pages, plots or models.
"""

from __future__ import annotations

import html
import math
import re

_VOID = {"meta", "link", "input"}
_SHAPES = {"path", "rect"}  # in SVG an empty element closes itself, or it swallows what follows
# Control characters and lone surrogates are no legal HTML and would break the write. What a
# half-trained network writes is full of them, so they are shown instead: pictures, or U+FFFD.
_ILLEGAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Html(str):
    """Text that is markup already and must not be escaped again."""

    __slots__ = ()


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def legal(text: object) -> str:
    """The text with every character that a page cannot hold made visible."""
    return _ILLEGAL.sub(_picture, str(text).replace("\r\n", "\n"))


def escape(text: object) -> Html:
    """Anything as HTML: `Html` stays as it is, all else is escaped, quotes included."""
    return text if isinstance(text, Html) else Html(html.escape(legal(text), quote=True))


def join(*children: object) -> Html:
    """The children one after the other; None is nothing."""
    return Html("".join(escape(child) for child in children if child is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. `class_` is class, `data_x` is data-x; None and False leave an attribute out."""
    pairs = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        pairs.append(f" {key}" if value is True else f' {key}="{escape(str(value))}"')
    opening = f"<{name}{''.join(pairs)}"
    if name in _SHAPES:
        return Html(opening + "/>")
    return Html(opening + ">" if name in _VOID else f"{opening}>{join(*children)}</{name}>")


def inline(text: object) -> Html:
    """Prose as HTML: escaped, and `what stands between backticks` set as code."""
    if isinstance(text, Html):
        return text
    parts = re.split(r"`([^`\n]+)`", legal(text))
    return join(*(tag("code", part) if i % 2 else part for i, part in enumerate(parts)))


def visible(token: str) -> str:
    """A token as a label: white space gets a sign, an empty token too."""
    if not token:
        return "∅"
    shown = token.replace("\r", "␍").replace("\n", "↵").replace("\t", "⇥")
    return legal(shown.replace(" ", "␣") if not shown.strip(" ") else shown.strip(" "))


def number(value: float) -> str:
    """A number for reading: whole numbers in groups of three, others to four digits."""
    if isinstance(value, float) and not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "−")
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f").replace("-", "−")
    return re.sub(r"e\+?(-?)0*(\d)", r"e\1\2", f"{value:.4g}").replace("-", "−")

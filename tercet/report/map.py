"""A map of texts: a point a text, a colour a topic, as a page to walk through and as a picture.

The page holds everything: the coordinates in single precision, the texts cut to what can be read at
a glance, and the library that draws (`twgl.min.js`, a part of twgl.js 7.0.0, its licence beside
it). Drawn by WebGL, or where there is none on a plain canvas. That part was made, and is made again
to the byte, in an empty folder by

    npm install esbuild@0.25.12 twgl.js@7.0.0 && echo 'export {createProgramInfo,
    createBufferInfoFromArrays, setAttribInfoBufferFromArray, setBuffersAndAttributes, setUniforms,
    drawBufferInfo} from "twgl.js"' | npx esbuild --bundle --minify --format=iife
    --global-name=twgl --banner:js='/*! Part of twgl.js 7.0.0, MIT: see LICENSE.twgl */'
    --outfile=twgl.min.js

(one line). A library that needs code made from strings would not run: the page forbids it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tercet.errors import InputError
from tercet.report.colours import NONE, spread
from tercet.report.map_picture import draw_map
from tercet.report.markup import Html, legal, number, tag
from tercet.report.page import asset, head, write_page

SHOWN = 300  # characters of a text that the page shows and searches
LARGEST = 500_000  # points a page; with their texts 200 MB of it, and browsers give up beyond
RIM = 0.005  # the share of points at each side that the first view may leave out
SCRIPTS = (
    *("twgl.min.js", "map_view.js", "map_painter.js", "map_search.js", "map.js", "map_hands.js"),
)
_KEYS = (
    ("drag, Shift + arrows", "move the map"),
    ("wheel, + and −", "nearer, farther"),
    ("click, arrows", "keep a text open, go to the next"),
    ("0", "the whole map"),
    ("/", "search; Enter goes from one found text to the next"),
    ("Esc", "close the text"),
)


class TextMap:
    """A map of texts; `str(map)` is its page, `write` puts it into a file, `picture` draws a PNG.

    >>> TextMap(places, texts, topics, names, title="Questions").write("map.html")

    places: (n, 2) numbers. texts: n strings, shown and searched up to some 300 characters.
    topics: n numbers, each the place of its name in `names`, or -1 for a text of no topic.
    title: also the window's. note: a line below it (how the map was made).
    Colours are chosen here. Raises InputError where the four do not fit each other.
    """

    def __init__(
        self,
        places: Sequence[Sequence[float]] | np.ndarray,
        texts: Sequence[str],
        topics: Sequence[int] | np.ndarray,
        names: Sequence[str],
        *,
        title: str,
        note: str = "",
    ) -> None:
        self.title, self.note = legal(title), legal(note)
        self.names = [" ".join(legal(name).split()) for name in names]
        self.topics = _topics(topics, len(texts), len(names))
        self.places, self.home = _centred(_places(places, len(texts)))
        self.texts = [shortened(text) for text in texts]
        members = [self.places[self.topics == topic] for topic in range(len(names))]
        self.sizes = [len(part) for part in members]
        self.middles = [middle(part) for part in members]
        self.colours = spread(self.middles, self.sizes)

    def __str__(self) -> str:
        scripts = Html("".join(asset(name) for name in SCRIPTS))
        body = tag(
            "body",
            _header(self),
            tag("main", _stage(self), _legend(self)),
            tag("script", self._data(), type="application/json"),
            tag("script", scripts),
            class_="text-map",
        )
        return "<!doctype html>\n" + tag("html", head(self.title, "map.css"), body, lang="en")

    def write(self, path: str | Path) -> Path:
        """The page as a file; an older one survives a failure."""
        return write_page(self, path)

    def picture(self, path: str | Path) -> Path:
        """The map as a PNG with the topics' names. Needs the extra `plot`, or is an InputError."""
        return draw_map(self, path)

    def _data(self) -> Html:
        data: dict[str, Any] = {
            "places": _packed(self.places.astype("<f4")),
            "topics": _packed(self.topics.astype("<i4")),
            "middles": np.round(self.middles, 5).tolist(),
            "home": self.home,
            "names": self.names,
            "colours": self.colours,
            "none": NONE,
            "texts": self.texts,
        }
        # </script> must not occur in the data, whatever the texts are.
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return Html(text.replace("<", "\\u003c"))


def shortened(text: str) -> str:
    """White space as single spaces, cut behind a word at some 300 characters."""
    words = " ".join(legal(text.lstrip()[: 4 * SHOWN]).split())
    if len(words) <= SHOWN:
        return words if len(text) <= 4 * SHOWN else words + " …"
    cut = words[:SHOWN]
    space = cut.rfind(" ", SHOWN - 40)
    return (cut[:space] if space > 0 else cut) + " …"


def middle(places: np.ndarray) -> list[float]:
    """Where most of a topic lies: the median of the half that is nearest to it, three times over.

    The median of all may lie in empty space when a topic has two islands.
    """
    if not len(places):
        return [0.0, 0.0]
    for _ in range(3):
        away = np.linalg.norm(places - np.median(places, axis=0), axis=1)
        places = places[away <= np.median(away)]
    return np.median(places, axis=0).tolist()


def _topics(topics: Sequence[int] | np.ndarray, n_texts: int, n_names: int) -> np.ndarray:
    found = np.asarray(topics)
    if found.shape != (n_texts,):
        raise InputError(f"{found.shape} topics for {n_texts} texts; give one number for each text")
    if n_texts > LARGEST:
        raise InputError(
            f"{n_texts:,} texts are too many for a page (the most is {LARGEST:,}); take a sample"
        )
    wrong = np.flatnonzero((found < -1) | (found >= n_names) | (found != np.floor(found)))
    if wrong.size:
        raise InputError(
            f"text {wrong[0]} has topic {found[wrong[0]]}, and there are {n_names} names; "
            f"give 0 to {n_names - 1}, or -1 for none"
        )
    return found.astype(np.int64)


def _places(places: Sequence[Sequence[float]] | np.ndarray, n_texts: int) -> np.ndarray:
    found = np.asarray(places, np.float64)
    if not n_texts or found.shape != (n_texts, 2):
        raise InputError(
            f"{found.shape} places for {n_texts} texts; give x and y for each, and at least one"
        )
    wrong = np.flatnonzero(~np.isfinite(found).all(1))
    if wrong.size:
        x, y = found[wrong[0]]
        raise InputError(f"text {wrong[0]} lies at ({x}, {y}); give finite numbers")
    return found


def _centred(places: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The places around (0, 0), and half the width and height of what is seen at first: most lies
    within 1 of the middle. A few points far out would make a small blot of all others: the first
    view leaves them out."""
    low, high = np.quantile(places, [RIM, 1 - RIM], axis=0)
    slack = 0.2 * (high - low).max()
    low = np.maximum(low - slack, places.min(0))
    high = np.minimum(high + slack, places.max(0))
    half = float((high - low).max()) / 2 or 1.0
    home = np.maximum((high - low) / 2 / half, 0.05)
    return (places - (low + high) / 2) / half, home.tolist()


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _header(page: TextMap) -> Html:
    search = tag(
        "div",
        tag("label", "Search", for_="map-search", class_="unseen"),
        tag(
            "input",
            id="map-search",
            type="search",
            placeholder="Search the texts",
            title="All words must occur; a word is found by its beginning",
            autocomplete="off",
            spellcheck="false",
        ),
        _button("‹", "Previous found text", data_step="-1", disabled=True),
        _button("›", "Next found text", data_step="1", disabled=True),
        tag("span", class_="map-found", role="status"),
        role="search",
        class_="map-search",
    )
    said = tag("p", page.note or None, class_="map-note") if page.note else None
    return tag("header", tag("div", tag("h1", page.title), said), search)


def _stage(page: TextMap) -> Html:
    keys = " ".join(f"{key}: {does}." for key, does in _KEYS)
    inside = [
        tag("div", class_="map-labels", aria_hidden="true"),
        tag("div", class_="map-ring", hidden=True),
        tag("div", tag("bdi"), tag("p", dir="auto"), class_="map-card", hidden=True),
    ]
    view = tag(
        "div",
        *inside,
        class_="map-view",
        tabindex="0",
        role="application",
        aria_label=f"Map of {number(len(page.texts))} texts. {keys}",
    )
    zoom = tag(
        "div",
        _button("+", "Nearer", data_zoom="1.7"),
        _button("−", "Farther", data_zoom=f"{1 / 1.7:.4f}"),
        _button("◻", "The whole map", data_zoom="0"),
        class_="map-zoom",
    )
    slow = "This browser has no WebGL: the map is drawn without it, more slowly."
    return tag(
        "div",
        view,
        zoom,
        tag("p", slow, class_="map-slow", hidden=True),
        tag("noscript", tag("p", "The map is drawn by a script in this page; allow it.")),
        tag("p", class_="map-said unseen", role="status"),
        class_="map-stage",
    )


def _button(sign: str, name: str, **attributes: object) -> Html:
    return tag("button", sign, type="button", title=name, aria_label=name, **attributes)


def _legend(page: TextMap) -> Html:
    """The topics by size, each with a box that hides it; what has no topic comes last."""
    order = sorted(range(len(page.names)), key=lambda topic: -page.sizes[topic])
    rows = [_row(page.names[t], t, page.sizes[t]) for t in order if page.sizes[t]]
    count, lone = number(len(rows)), len(page.texts) - sum(page.sizes)
    if lone:
        rows.append(_row("no topic", -1, lone))
    said = f"{number(len(page.texts))} texts, {count} {'topic' if count == '1' else 'topics'}"
    show = tag(
        "p",
        tag("button", "Show all", type="button", data_all="1"),
        tag("button", "Hide all", type="button", data_all="0"),
        class_="map-all",
    )
    keys = [part for key, does in _KEYS for part in (tag("dt", key), tag("dd", does))]
    cut = any(text.endswith(" …") for text in page.texts)
    rest = f"Texts are shown and searched up to {SHOWN} characters." if cut else None
    how = tag(
        "details",
        tag("summary", "Keys"),
        tag("dl", *keys),
        tag("p", rest) if rest else None,
        class_="how",
    )
    inside = [tag("p", said), show, tag("ul", *rows), how]
    return tag("aside", *inside, class_="map-legend", aria_label="Topics")


def _row(name: str, topic: int, size: int) -> Html:
    box = tag("input", type="checkbox", checked=True)
    label = tag("label", box, tag("i"), tag("bdi", name, title=name), tag("b", number(size)))
    only = tag("button", "only", type="button", aria_label=f"Show only {name}")
    return tag("li", label, only, data_topic=topic)

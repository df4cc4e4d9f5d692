"""Attention maps: who looks at whom, in every layer and head of one sequence.

The weights travel in the page, a byte each, on a square-root scale: fine near zero, where most
weights are. The page says how exact that is. A weight of exactly zero has the byte 0 for itself and
stays an empty cell: the decoder's future, what lies outside a window.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from tercet.errors import InputError
from tercet.report.markup import Html, join, tag, visible

LEVELS = 254  # bytes 1 ... 255 are the weights (k / 254)^2 for k = 0 ... 254
LARGEST = 24_000_000  # weights a map; base64 makes 32 MB of them, and browsers get slow beyond
_HOW = (
    "A row is a token that looks, a column what it looks at; a row’s weights add up to 100 %. "
    "Empty cells weigh exactly nothing: they are masked. Point at a cell or a token to read it, "
    "click to keep it, walk with the arrow keys. Weights are kept in 8 bits on a square-root "
    "scale, each within 0.4 percentage points of the exact one."
)
Weights = Any  # (layers, H, T, S): nested sequences, an array, a tensor, or a list of (H, T, S)


def attention_map(
    weights: Weights,
    queries: Sequence[str],
    keys: Sequence[str] | None = None,
    *,
    title: str,
    start: tuple[int, int] | None = None,
    note: str = "",
) -> Html:
    """An interactive map: an overview of all heads, one head in full, and the text read by it.

    weights: (layers, H, T, S), each from 0 to 1; a list of one (H, T, S) a layer will do.
    queries: T token labels, down the side: who looks. keys: S labels, along the top: who is looked
    at; the queries by default (self-attention).
    start: (layer, head) from 0 that the map opens with; by default the most pointed head.
    """
    keys = queries if keys is None else keys
    layers = [_grid(layer) for layer in _plain(weights)]
    shape = _shape(layers, len(queries), len(keys))
    codes = bytes(encode(w) for w in _cells(layers))
    layer, head = _sharpest(codes, shape) if start is None else start
    if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
        raise InputError(
            f"start {start} is no head of {shape[0]} layers with {shape[1]} heads; count from 0"
        )
    data = {
        "shape": shape,
        "weights": base64.b64encode(codes).decode("ascii"),
        "queries": [visible(t) for t in queries],
        "keys": [visible(t) for t in keys],
        "start": [layer, head],
    }
    return _figure(data, title, note)


def encode(weight: float) -> int:
    """The byte of a weight: 0 for exactly zero, otherwise 1 + 254 √weight, rounded."""
    if not -1e-6 <= weight <= 1 + 1e-3:  # NaN too; the slack is what half precision rounds
        raise InputError(f"attention weight {weight} is outside 0 to 1; give softmax's output")
    return 1 + round(LEVELS * math.sqrt(min(weight, 1.0))) if weight > 0 else 0


def decode(code: int) -> float:
    """The weight that a byte stands for, within 0.4 percentage points (0.04 at weights of 1 %)."""
    return ((code - 1) / LEVELS) ** 2 if code else 0.0


def _plain(values: Weights) -> Any:
    """Arrays and tensors as lists, also inside a list."""
    return values.tolist() if hasattr(values, "tolist") else values


def _grid(layer: Weights) -> list[list[list[float]]]:
    return [[_plain(row) for row in _plain(head)] for head in _plain(layer)]


def _shape(layers: list[list[list[list[float]]]], n_queries: int, n_keys: int) -> list[int]:
    """(layers, H, T, S), having seen that every part has it and that the labels fit."""
    n_heads = len(layers[0]) if layers else 0
    if not n_heads or not n_queries or not n_keys:
        raise InputError(
            f"no attention to draw: {len(layers)} layers, {n_heads} heads, {n_queries} query and "
            f"{n_keys} key tokens; give at least one of each"
        )
    shape = [len(layers), n_heads, n_queries, n_keys]
    for i, layer in enumerate(layers):
        widths = {len(row) for head in layer for row in head}
        heights = {len(head) for head in layer}
        if len(layer) != n_heads or heights != {n_queries} or widths != {n_keys}:
            raise InputError(
                f"layer {i} has {len(layer)} heads of {sorted(heights)} × {sorted(widths)} "
                f"weights, wanted {n_heads} of {n_queries} × {n_keys}: queries × keys, as labelled"
            )
    if math.prod(shape) > LARGEST:
        raise InputError(
            f"{' × '.join(map(str, shape))} = {math.prod(shape):,} weights are too many for a page "
            f"(the most is {LARGEST:,}); shorten the text"
        )
    return shape


def _cells(layers: list[list[list[list[float]]]]) -> Iterator[float]:
    return (w for layer in layers for head in layer for row in head for w in row)


def _sharpest(codes: bytes, shape: list[int]) -> tuple[int, int]:
    """The head whose queries look most pointedly at one key.

    The first key, where idle heads rest, and in self-attention a token itself do not count: a map
    should open with a head that has something to tell.
    """
    n_layers, n_heads, n_queries, n_keys = shape
    square = n_queries == n_keys

    def pointed(place: tuple[int, int]) -> float:
        base = (place[0] * n_heads + place[1]) * n_queries * n_keys
        total = 0.0
        for t in range(n_queries):
            row = codes[base + t * n_keys : base + (t + 1) * n_keys]
            told = [c for s, c in enumerate(row) if s and not (square and s == t)]
            total += decode(max(told, default=0))
        return total

    return max(((i, h) for i in range(n_layers) for h in range(n_heads)), key=pointed)


def _figure(data: dict[str, Any], title: str, note: str) -> Html:
    n_layers, n_heads, n_queries, n_keys = data["shape"]
    # </script> must not occur in the data, whatever the tokens are.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    said = (
        f"{_count(n_layers, 'layer')} of {_count(n_heads, 'head')}, {n_queries} × {n_keys} tokens"
    )
    return tag(
        "figure",
        tag("figcaption", tag("strong", title), tag("span", note or said, class_="plot-unit")),
        tag("div", _overview(n_layers, n_heads), _map(data), class_="attention-body"),
        tag("div", class_="attention-read", aria_hidden="true"),
        tag("p", class_="attention-said", role="status"),
        tag("noscript", tag("p", "The map is drawn by a script in this page; allow it to see it.")),
        tag("details", tag("summary", "How to read this"), tag("p", _HOW), class_="how"),
        tag("script", Html(text), type="application/json"),
        class_="attention",
        style=f"--rows:{n_queries};--columns:{n_keys};--cell:{_cell_size(n_queries, n_keys)}px",
    )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _cell_size(n_queries: int, n_keys: int) -> int:
    """Pixels a cell: as large as a column of the page allows, never too small to point at."""
    return max(11, min(36, 600 // max(n_queries, n_keys)))


def _overview(n_layers: int, n_heads: int) -> Html:
    """Small pictures of all heads, a row a layer; the script draws and the buttons choose."""
    corner = [tag("span")] + [tag("span", str(h + 1)) for h in range(n_heads)]
    rows = [
        join(tag("span", str(i + 1)), *(_thumbnail(i, h) for h in range(n_heads)))
        for i in range(n_layers)
    ]
    side = 4.2 if n_heads <= 4 else 3.4 if n_heads <= 8 else 2.6
    style = f"--heads:{n_heads};--thumbnail:{side}rem"
    grid = tag("div", *corner, *rows, class_="thumbnails", style=style)
    label = tag("p", "All heads", tag("span", "layers down, heads across"), class_="small-title")
    mean = tag("button", "Mean of the layer’s heads", type="button", class_="mean")
    return tag("div", label, grid, mean, class_="overview")


def _thumbnail(layer: int, head: int) -> Html:
    return tag(
        "button",
        tag("canvas", aria_hidden="true"),
        type="button",
        aria_label=f"Layer {layer + 1}, head {head + 1}",
        aria_pressed="false",
        tabindex="-1",  # the arrow keys walk through them; the script lets one of them be reached
        data_head=f"{layer},{head}",
    )


def _map(data: dict[str, Any]) -> Html:
    rows = [tag("bdi", token, title=token) for token in data["queries"]]
    columns = [tag("span", tag("bdi", token), title=token) for token in data["keys"]]
    slanted = _cell_size(len(rows), len(columns)) >= 18  # narrower, and they would cross
    cells = tag(
        "canvas",
        tabindex="0",
        role="img",
        aria_label="Attention weights. Arrow keys walk from cell to cell.",
    )
    grid = tag(
        "div",
        tag("div", tag("span", "looks at →"), tag("span", "token ↓"), class_="corner"),
        tag("div", *columns, class_="keys" if slanted else "keys upright", aria_hidden="true"),
        tag("div", *rows, class_="queries", aria_hidden="true"),
        tag("div", cells, class_="cells"),
        class_="map-grid",
    )
    ramp = tag("div", tag("canvas", aria_hidden="true"), class_="ramp")
    heading = tag("div", tag("span", class_="which"), ramp, class_="small-title")
    return tag("div", heading, tag("div", grid, class_="scroll"), class_="map")

"""Colours for any number of topics on a map: near topics get unlike ones, on light and dark paper.

Twelve hues in two tones each, equally far apart for the eye (OKLCH: Ottosson 2020, "A perceptual
color space for image processing"). Beyond twenty-four topics colours come again, far from where
they were; a topic's name is always told with its colour, since no map with many topics can be read
by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Colour = tuple[str, str]  # on light paper, on dark paper: #rrggbb
NONE: Colour = ("#a9afb8", "#5a616c")  # of what belongs to no topic
HUES = 12
# (lightness, chroma) on light paper and on dark
TONES = (((0.52, 0.16), (0.80, 0.13)), ((0.69, 0.15), (0.64, 0.16)))
ALIKE = 0.13  # distance in OKLab at which two colours begin to be told apart at a glance

AGAIN = 10.0  # what taking a colour again costs, against at most 1.15 for a like one nearby


def spread(middles: Sequence[Sequence[float]], sizes: Sequence[int]) -> list[Colour]:
    """A colour for each topic; large topics choose first, each what its neighbours have least.

    middles: (n, 2), where the topics lie, in a map about 2 units wide.
    """
    places = np.asarray(middles, np.float64).reshape(-1, 2)
    kinds = [(tone, 2 * math.pi * hue / HUES) for tone in TONES for hue in range(HUES)]
    light = np.array([_lab(*tone[0], hue) for tone, hue in kinds])
    apart = np.linalg.norm(light[:, None] - light[None], axis=-1)
    alike = np.exp(-((apart / ALIKE) ** 2))  # 1 for a colour and itself
    chosen: dict[int, int] = {}
    for topic in np.argsort(-np.asarray(sizes), kind="stable").tolist():
        cost = np.full(len(kinds), 0.0)
        for other, colour in chosen.items():
            distance = float(np.linalg.norm(places[topic] - places[other]))
            cost += (0.15 + math.exp(-3 * distance)) * alike[colour]
            cost[colour] += AGAIN
        chosen[topic] = int(cost.argmin())
    return [_both(*kinds[chosen[topic]]) for topic in range(len(places))]


def _both(tone: tuple[tuple[float, float], tuple[float, float]], hue: float) -> Colour:
    light, dark = tone
    return _hex(*light, hue), _hex(*dark, hue)


def _lab(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    return lightness, chroma * math.cos(hue), chroma * math.sin(hue)


def _hex(lightness: float, chroma: float, hue: float) -> str:
    """#rrggbb, as vivid as a screen can show it at this lightness and hue."""
    while True:
        red, green, blue = _linear(*_lab(lightness, chroma, hue))
        if chroma <= 0 or all(0 <= v <= 1 for v in (red, green, blue)):
            break
        chroma -= 0.004
    return "#" + "".join(f"{round(255 * _gamma(v)):02x}" for v in (red, green, blue))


def _linear(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    """OKLab to linear sRGB, with the matrices of its author."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def _gamma(value: float) -> float:
    value = min(max(value, 0.0), 1.0)
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055

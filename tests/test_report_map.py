"""The map of texts: what goes into its page, its picture, and what a hand does in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest

from tercet.errors import InputError
from tercet.report import TextMap
from tercet.report.colours import spread
from tercet.report.map import SHOWN, middle, shortened

NASTY = "<script>alert('x')</script> <img src=x onerror=alert(1)> & \"q\" \x00\ud800 $x_1$ 日本"
NAMES = ["fruit", "ships", NASTY, "Schiffe und Häfen, alle von je"]


def islands(each: int = 60) -> TextMap:
    """Four islands of texts and a few texts of no topic; text 0 lies alone and is known."""
    draw = np.random.default_rng(0)
    middles = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
    places = [[5.0, 5.0], *(m + draw.normal(size=2) for m in middles for _ in range(each))]
    texts = [f"Café {NASTY} alone"]
    texts += [f"the {name[:6]} of number {i}" for name in NAMES for i in range(each)]
    topics = [-1, *(topic for topic in range(4) for _ in range(each))]
    return TextMap(places, texts, topics, NAMES, title=NASTY, note=NASTY)


def test_the_page_holds_all_that_was_given_and_nothing_unescaped():
    text_map = islands()
    page = str(text_map)
    data = browser.embedded(page)
    page.encode("utf-8")
    for hostile in ("<script>alert", "<img src=x", "\x00"):
        assert hostile not in page
    places = np.frombuffer(base64.b64decode(data["places"]), "<f4").reshape(-1, 2)
    topics = np.frombuffer(base64.b64decode(data["topics"]), "<i4")
    assert len(places) == len(topics) == len(data["texts"]) == 241 and topics[0] == -1
    assert np.abs(places[0]).max() < 0.2  # between the islands
    assert data["texts"][0].startswith("Café <script>alert('x')</script>")
    assert len(data["middles"]) == len(data["colours"]) == len(data["names"]) == 4
    assert "url(" not in page and "@import" not in page


def test_places_keep_their_shape_and_most_lie_in_the_first_view():
    draw = np.random.default_rng(1)
    given = draw.normal(size=(2000, 2)) * [30, 10] + [700, -400]
    given[7] = [9000, 9000]
    text_map = TextMap(given, ["x"] * 2000, [0] * 2000, ["all"], title="t")
    scale = (given[1] - given[0]) / (text_map.places[1] - text_map.places[0])
    assert scale[0] == pytest.approx(scale[1])
    inside = (np.abs(text_map.places) <= text_map.home).all(1)
    assert not inside[7] and inside.mean() > 0.98 and max(text_map.home) == pytest.approx(1)


def test_one_point_and_points_in_one_place_are_maps_too():
    for count in (1, 3):
        page = TextMap([[2, 3]] * count, ["x"] * count, [0] * count, ["one"], title="t")
        assert page.places.tolist() == [[0, 0]] * count and min(page.home) > 0


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("", ""),
        ("  a\n\n b\tc ", "a b c"),
        ("word " * 60, ("word " * 60).strip()),
        ("word " * 400, ("word " * 60).strip() + " …"),
        ("x" * 1000, "x" * SHOWN + " …"),
    ],
)
def test_long_texts_are_cut_behind_a_word(given: str, shown: str):
    assert shortened(given) == shown


def test_a_middle_lies_where_most_of_the_topic_does():
    draw = np.random.default_rng(0)
    two = np.concatenate([draw.normal(size=(60, 2)), draw.normal(size=(40, 2)) + [50, 0]])
    assert np.linalg.norm(middle(two)) < 1


def test_near_topics_have_unlike_colours_and_none_comes_twice_before_all_are_used():
    draw = np.random.default_rng(0)
    middles = draw.uniform(-1, 1, size=(60, 2))
    colours = spread(middles.tolist(), list(range(60, 0, -1)))
    assert len(set(colours[:24])) == 24 and len(set(colours)) == 24
    assert all(re.fullmatch("#[0-9a-f]{6}", hex) for pair in colours for hex in pair)
    same = [
        np.linalg.norm(middles[i] - middles[j])
        for i in range(60)
        for j in range(i)
        if colours[i] == colours[j]
    ]
    assert min(same) > 0.25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(places=[[0, 1]]), r"\(1, 2\) places for 2 texts"),
        (dict(places=[[0, 1], [0, float("nan")]]), r"text 1 lies at \(0.0, nan\)"),
        (dict(topics=[0]), r"\(1,\) topics for 2 texts"),
        (dict(topics=[0, 1]), "text 1 has topic 1, and there are 1 names; give 0 to 0, or -1"),
        (dict(topics=[-2, 0]), "text 0 has topic -2"),
        (dict(texts=[], places=[], topics=[]), "for 0 texts"),
    ],
)
def test_what_does_not_fit_is_told(change: dict[str, Any], message: str):
    given = dict(places=[[0, 1], [1, 0]], texts=["a", "b"], topics=[0, -1], names=["n"]) | change
    with pytest.raises(InputError, match=message):
        TextMap(**given, title="t")


def test_the_library_is_the_pinned_one_with_its_licence():
    room = files("tercet.report")
    library = room.joinpath("twgl.min.js").read_bytes()
    found = hashlib.sha256(library).hexdigest()
    assert found == "28f052e778cca54650345377b6c487d69066e242208d326701a519a3554154a2"
    assert len(library) < 40_000 and b"eval(" not in library and b"</script" not in library
    assert "Permission is hereby granted" in room.joinpath("LICENSE.twgl").read_text()


def test_the_picture_is_a_png(tmp_path: Path):
    from PIL import Image

    path = islands().picture(tmp_path / "new" / "map.png")
    with Image.open(path) as image:
        assert image.format == "PNG" and min(image.size) > 1000
        colours = {tuple(pixel) for _, pixel in image.convert("RGB").getcolors(1 << 24) or []}
    assert len(colours) > 100


def test_names_stand_apart_and_inside_the_picture():
    from tercet.report.map_picture import _room

    picture, taken = (0.0, 0.0, 400.0, 300.0), []
    for _ in range(6):  # all of them at the same corner
        box = (-30.0, 280.0, 50.0, 310.0)
        right, up = _room(box, taken, picture) or pytest.fail("no room")
        taken.append((box[0] + right, box[1] + up, box[2] + right, box[3] + up))
        left, bottom, far, top = taken[-1]
        assert 0 < left and far < 400 and 0 < bottom and top < 300
        assert not any(
            left < b[2] and b[0] < far and bottom < b[3] and b[1] < top for b in taken[:-1]
        )


def test_the_picture_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'tercet\[plot\]'"):
        islands().picture(tmp_path / "map.png")


# In a browser. `textMap` is the page's own object. ----------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return islands().write(tmp_path_factory.mktemp("map") / "map.html")


@pytest.fixture
def hand(page: Path, tmp_path: Path) -> Iterator[browser.Hand]:
    with browser.opened(page, tmp_path / "profile", *browser.SOFTWARE_WEBGL) as driver:
        hand = browser.Hand(driver)
        assert hand.js("return textMap.painter.constructor.name") == "WebglPainter"
        assert not hand.one(".map-slow").is_displayed()
        yield hand


@browser.driven
def test_texts_are_read_by_pointer_and_keys(hand: browser.Hand):
    from selenium.webdriver.common.keys import Keys

    assert hand.driver.title.startswith("<script>alert")
    hand.hover(0)
    hand.until(lambda: hand.one(".map-card").is_displayed())
    name, text = hand.one(".map-card bdi").text, hand.one(".map-card p").text
    assert name == "no topic" and text.startswith("Café <script>alert('x')</script> <img src=x")
    hand.actions().click().perform()
    hand.until(lambda: "kept" in hand.one(".map-card").get_attribute("class"))
    hand.one(".map-view").send_keys(Keys.ARROW_LEFT)
    hand.until(lambda: re.match("fruit|<scr", hand.one(".map-said").get_attribute("textContent")))
    assert hand.js("return textMap.xy[2 * textMap.kept] < textMap.xy[0]")
    hand.one(".map-view").send_keys(Keys.ESCAPE)
    hand.until(lambda: hand.js("return textMap.kept") == -1)


@browser.driven
def test_words_are_found_counted_and_stepped_through(hand: browser.Hand):
    from selenium.webdriver.common.keys import Keys

    found = hand.one(".map-found")
    hand.type("SHIPS num")
    hand.until(lambda: found.text == "60 of 241 texts")
    assert hand.js("return textMap.found.list.every((i) => textMap.topics[i] === 1)")
    hand.type(Keys.ENTER)
    hand.until(lambda: hand.one(".map-card p").text == "the ships of number 0")
    assert [mark.text for mark in hand.driver.find_elements("css selector", "mark")] == [
        "ships",
        "num",
    ]
    hand.type(Keys.SHIFT, Keys.ENTER)
    hand.until(lambda: hand.one(".map-card p").text == "the ships of number 59")
    for query, count in (("hips", 0), ("cafe", 1), ("本", 1), ("number 7", 4)):
        hand.one("input[type=search]").clear()
        hand.type(query)
        hand.until(lambda count=count: found.text == f"{count} of 241 texts")
    hand.one("input[type=search]").clear()
    hand.until(lambda: found.text == "")


@browser.driven
def test_the_view_moves_and_names_never_cover_each_other(hand: browser.Hand):
    from selenium.webdriver.common.keys import Keys

    before, view = hand.place(1), hand.one(".map-view")
    assert len(hand.labels()) == 4
    hand.one("[aria-label=Nearer]").click()
    hand.until(lambda: hand.js("return textMap.view.zoom") == pytest.approx(1.7))
    hand.until(lambda: not hand.js("return textMap.waiting"))
    assert hand.place(1) != before
    view.send_keys("0")
    hand.until(lambda: hand.place(1) == before)
    hand.actions().move_to_element(view).click_and_hold().move_by_offset(80, 30).release().perform()
    hand.until(lambda: hand.place(1) == (before[0] + 80, before[1] + 30))
    view.send_keys(*"----")
    hand.until(lambda: hand.js("return textMap.view.zoom") < 0.3)
    hand.until(lambda: not hand.js("return textMap.waiting"))
    view.send_keys(Keys.SHIFT + Keys.ARROW_LEFT)
    for i, one in enumerate(labels := hand.labels()):
        for other in labels[:i]:
            apart = one["l"] >= other["r"] or one["r"] <= other["l"]
            assert apart or one["t"] >= other["b"] or one["b"] <= other["t"]


@browser.driven
def test_a_topic_is_hidden_from_sight_hover_and_count(hand: browser.Hand):
    drawn = "return textMap.painter.shown"
    assert hand.js(drawn) == 241
    hand.type("ships")
    hand.until(lambda: hand.one(".map-found").text == "60 of 241 texts")
    row = hand.one('[data-topic="1"]')
    row.find_element("css selector", "input").click()
    hand.until(lambda: hand.js(drawn) == 181 and len(hand.labels()) == 3)
    assert hand.one(".map-found").text == "60 of 241 texts, 60 of them hidden"
    assert not hand.one("[data-step='1']").is_enabled()
    hand.hover(100)
    hand.until(lambda: not hand.js("return textMap.waiting"))
    assert not hand.one(".map-card").is_displayed()
    hand.actions().move_to_element(row).perform()
    row.find_element("css selector", "button").click()
    hand.until(lambda: hand.js(drawn) == 60)
    hand.one("[data-all='1']").click()
    hand.until(lambda: hand.js(drawn) == 241)


@browser.driven
def test_without_webgl_the_page_says_so_and_draws_the_same_map(page: Path, tmp_path: Path):
    with browser.opened(page, tmp_path / "profile", "--disable-3d-apis") as driver:
        hand = browser.Hand(driver)
        assert hand.one(".map-slow").is_displayed() and "no WebGL" in hand.one(".map-slow").text
        coloured = (
            "const c = textMap.painter.canvas;"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return new Set(new Uint32Array(d.buffer)).size"
        )
        assert hand.js(coloured) > 20
        hand.hover(0)
        hand.until(lambda: hand.one(".map-card p").text.startswith("Café"))

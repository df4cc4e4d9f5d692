"""A page as a browser makes it, with Debian's chromium; and as a hand moves through it, with
selenium and Debian's chromium-driver."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

needed = pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
driven = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")),
    reason="needs Debian's chromium and chromium-driver",
)
SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
OPTIONS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"


def drawn(page: Path, profile: Path) -> str:
    """The document after its scripts ran, none of which failed."""
    options = [*OPTIONS.split(), "--enable-logging=stderr", f"--user-data-dir={profile}"]
    command = ["chromium", *options, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Uncaught" not in done.stderr, done.stderr
    return done.stdout


def embedded(page: str) -> dict[str, Any]:
    """What a page's own script reads."""
    found = re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


@contextmanager
def opened(page: Path, profile: Path, *options: str) -> Iterator[Any]:
    """The page in a browser that takes orders, closed at the end. Its console must have stayed
    clean, and it must have asked for nothing but itself."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    settings = webdriver.ChromeOptions()
    settings.binary_location = shutil.which("chromium") or ""
    kept = [option for option in OPTIONS.split() if option != "--disable-gpu"]
    for option in (*kept, *options, f"--user-data-dir={profile}", "--window-size=1200,900"):
        settings.add_argument(option)
    settings.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(settings, Service(shutil.which("chromedriver")))
    try:
        driver.get(page.as_uri())
        yield driver
        assert not (said := driver.get_log("browser")), said
        events = [
            json.loads(entry["message"])["message"] for entry in driver.get_log("performance")
        ]
        asked = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        # the browser's own first page asks too
        urls = {one["request"]["url"] for one in asked if one["documentURL"] == page.as_uri()}
        assert {url for url in urls if not url.startswith("data:")} == {page.as_uri()}, urls
    finally:
        driver.quit()


class Hand:
    """What a person does to the page of a map, and what is then seen."""

    def __init__(self, driver: Any) -> None:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.support.wait import WebDriverWait

        self.driver = driver
        self.actions = lambda: ActionChains(driver, duration=50)
        self.wait = WebDriverWait(driver, 60)
        self.until(lambda: self.js("return textMap.placed !== null && !textMap.waiting"))

    def js(self, code: str) -> Any:
        return self.driver.execute_script(code)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def until(self, seen: Any) -> None:
        self.wait.until(lambda _: seen())

    def place(self, text: int) -> tuple[float, float]:
        """Where a text lies, in pixels from the middle of the map, as selenium counts."""
        left, top = self.js(
            f"const m = textMap, [x, y] = m.view.toScreen(m.xy[2 * {text}], m.xy[2 * {text} + 1]);"
            "return [x - m.view.width / 2, y - m.view.height / 2];"
        )
        return round(left), round(top)

    def hover(self, text: int) -> None:
        view = self.one(".map-view")
        self.actions().move_to_element_with_offset(view, *self.place(text)).perform()

    def type(self, *keys: str) -> None:
        self.one("input[type=search]").send_keys(*keys)

    def labels(self) -> list[dict[str, float]]:
        return self.js(
            "return [...document.querySelectorAll('.map-labels bdi')]"
            ".filter((b) => b.style.visibility === 'visible').map((b) => {"
            "const r = b.getBoundingClientRect(); return {l: r.left, t: r.top, r: r.right,"
            " b: r.bottom}; })"
        )

"""A page as a browser makes it, with Debian's chromium; and as a hand moves through it, with
selenium and Debian's chromium-driver."""

from __future__ import annotations

import json
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

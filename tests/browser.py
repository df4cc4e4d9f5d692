"""A page as a browser makes it, with Debian's chromium."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needed = pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
OPTIONS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"


def drawn(page: Path, profile: Path) -> str:
    """The document after its scripts ran, none of which failed."""
    options = [*OPTIONS.split(), "--enable-logging=stderr", f"--user-data-dir={profile}"]
    command = ["chromium", *options, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Uncaught" not in done.stderr, done.stderr
    return done.stdout

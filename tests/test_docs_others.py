"""Every other guide: see test_docs.py. Two files for two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import PAGES, follow


@pytest.mark.parametrize("page", PAGES[1::2], ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore")
def test_a_page_runs_from_top_to_bottom(
    page: Path, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reader)
    follow(page, reader)

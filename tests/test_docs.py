"""README and every second guide; test_docs_others.py has the rest, for another process."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import PAGES, ROOT, follow


@pytest.mark.parametrize("page", PAGES[::2], ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore")
def test_a_page_runs_from_top_to_bottom(
    page: Path, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reader)
    follow(page, reader)


def test_every_guide_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"docs/{page.name}" in text, f"README.md does not name docs/{page.name}"

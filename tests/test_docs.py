"""README and guides are run as they stand, on the models of a tiny quickstart.

Fenced blocks: ``python`` ones of a file run together, ``sh`` ones line by line. One that cannot run
here stands behind `<!-- not run: reason -->`; ``make`` and ``git`` lines are the reader's.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
READERS = ("make", "git", "cd", "pip")


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [code for skipped, kind, code in found if kind == language and not skipped]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as after `make quickstart`, with models that know next to nothing."""
    from tercet.jobs.quickstart import Settings, quickstart

    folder = tmp_path_factory.mktemp("reader")
    tiny = Settings(
        seconds=6, vocab_size=500, width=32, layers=2, row=64, date_pairs=300, characters=60_000
    )
    quickstart(folder / "runs" / "quickstart", tiny, quiet=True)
    (folder / "notes.txt").write_text("Nothing is lost. Everything is written down.\n" * 50)
    return folder


def run(command: list[str], place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{shlex.join(command)[:500]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, place: Path) -> None:
    code = "\n".join(blocks(page, "python"))
    if code:
        run([sys.executable, "-W", "ignore", "-c", code], place)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_run(page: Path, place: Path) -> None:
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words or words[0] in READERS:
                continue
            assert words[0] == "tercet", f"{page.name}: what is {line!r}?"
            run([sys.executable, "-m", *words], place)


def test_every_guide_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"docs/{page.name}" in text, f"README.md does not name docs/{page.name}"

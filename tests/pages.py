"""What runs README and guides as they stand, on the models of a tiny quickstart.

The fenced blocks of a page run in order: ``python`` ones share their names, ``sh`` ones go line by
line, and one whose first line names a .yaml or .py file is written there. One that cannot run here
stands behind `<!-- not run: reason -->`; ``make`` and ``git`` lines are the reader's.

The README's commands are processes, as they are the reader's. Those of the guides run in the test's
own: a hundred times two and a half seconds to load torch were minutes.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from tercet import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
READERS = ("make", "git", "cd", "pip")
COMMANDS = {"tercet": ["tercet"], "torchrun": ["torch.distributed.run"]}  # the same, as modules


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of what runs, in order."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(kind, code) for skipped, kind, code in found if not skipped]


def run(line: str, place: Path, *, process: bool) -> None:
    words = shlex.split(line, comments=True)
    if not words or words[0] in READERS:
        return
    assert words[0] in COMMANDS, f"what is {line!r}?"
    if words[0] == "tercet" and not process:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            code = cli.run(words[1:])
        assert code == 0, f"{line[:500]}\n{said.getvalue()}"
        return
    command = [sys.executable, "-m", *COMMANDS[words[0]], *words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{line[:500]}\n{done.stdout}\n{done.stderr}"


def follow(page: Path, place: Path) -> None:
    """All blocks of a page, in the folder that is the current one."""
    names: dict[str, object] = {"__name__": "__main__"}
    for language, code in blocks(page):
        if named := re.match(r"# (\S+\.(?:yaml|py))\n", code):
            Path(named[1]).write_text(code, encoding="utf-8")
        elif language == "python":
            exec(compile(code, page.name, "exec"), names)
        elif language == "sh":
            for line in code.replace("\\\n", " ").splitlines():
                run(line, place, process=page.name == "README.md")

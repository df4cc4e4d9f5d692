"""What the functions and classes of Python's own library are for, read off their source without
running it: a question that is answered by a docstring's first sentence."""

from __future__ import annotations

import ast
import importlib.util
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tercet.errors import InputError
from tercet.text.passages import sentences

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
KIND = "define"
WORDINGS = ("What does {} do?", "Say in one sentence what {} is for.", "Define {}.")
SHORTEST, LONGEST = 3, 20  # words of the sentence that answers
ALL = 45  # words of a docstring that are shown, at the most
PLAIN = re.compile(r"[\x20-\x7e]+")


def defined(modules: Sequence[str], seed: int = 0) -> Iterator[dict[str, Any]]:
    """A row for each documented name of some modules; of the same sentence the first."""
    known: set[str] = set()
    for module in modules:
        for name, text in documented(module):
            first, shown = _first(text)
            if first is None or first in known:
                continue
            known.add(first)
            asked = random.Random(f"{seed} {name}").choice(WORDINGS).format(name)
            yield {"instruction": asked, "input": f"{name}: {shown}", "output": first, "kind": KIND}


def documented(module: str) -> Iterator[tuple[str, str]]:
    """Public names of a module, or of all modules of a package but its tests, with docstrings."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise InputError(f"module {module!r} has no source in this Python; leave it out")
    origin = Path(spec.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    for path in files:
        if "test" not in path.as_posix().removeprefix(origin.parent.as_posix()):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            yield from _named(tree, module)


def _named(node: ast.AST, path: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Documented) and not child.name.startswith("_"):
            name = f"{path}.{child.name}"
            if text := ast.get_docstring(child):
                yield name, text
            if isinstance(child, ast.ClassDef):
                yield from _named(child, name)


def _first(text: str) -> tuple[str | None, str]:
    """The first sentence of a docstring, and as many of its sentences as are shown."""
    found = [" ".join(part.split()) for part in sentences(text.partition(">>>")[0])]
    first, shown, many = next(iter(found), ""), [], 0
    for part in found:
        many += len(part.split())
        if (shown and many > ALL) or not PLAIN.fullmatch(part):
            break
        shown.append(part)
    fits = SHORTEST <= len(first.split()) <= LONGEST and first.endswith(".") and bool(shown)
    return (first if fits else None), " ".join(shown)

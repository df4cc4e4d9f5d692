"""The quickstart's text: what every Python carries. Documents, a split, and written-out dates.

Documents are the language documentation (``pydoc_data.topics``) and one document per file of the
standard library: its docstrings, each below the line that it explains. Files are parsed, never
imported; folders named ``test`` or ``tests`` are left out. The same Python gives the same text.
"""

from __future__ import annotations

import ast
import hashlib
import random
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
HELD_OUT_SHARE = 20  # one document in twenty
LONG = 60  # a paragraph of this many characters that occurred before is a copy, not a coincidence


@dataclass(frozen=True)
class Document:
    """``name`` is ``topic:<key>`` or ``library:<path>``."""

    name: str
    text: str

    @property
    def held_out(self) -> bool:
        """A pure function of the name: the split does not move with the Python version.

        (The third byte of the digest, because the first puts half of tkinter's manual here.)
        """
        return hashlib.sha256(self.name.encode()).digest()[2] % HELD_OUT_SHARE == 0


def topics() -> dict[str, str]:
    """Topic key to text, as ``help("topic")`` shows it."""
    from pydoc_data.topics import topics

    return {key: topics[key].strip() for key in sorted(topics)}


def title(topic: str) -> str:
    """The first line of a topic's text, without its mark-up."""
    return topic.strip().split("\n", 1)[0].strip("* ")


def documents() -> list[Document]:
    """All the text, each long paragraph once, in a fixed order."""
    seen: set[str] = set()
    found = []
    for document in _all_documents():
        kept = [p for p in document.text.split("\n\n") if _is_new(p, seen)]
        text = "\n\n".join(kept).strip()
        if len(text) >= LONG:
            found.append(Document(document.name, text))
    return found


def _is_new(paragraph: str, seen: set[str]) -> bool:
    body = " ".join(paragraph.split())
    if len(body) < LONG:
        return True
    if body in seen:
        return False
    seen.add(body)
    return True


def _all_documents() -> Iterator[Document]:
    for key, text in topics().items():
        yield Document(f"topic:{key}", text)
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        parts = path.relative_to(root).parts
        if not SKIPPED_FOLDERS.intersection(parts):
            yield Document(f"library:{'/'.join(parts)}", "\n\n".join(_docstrings(path)))


def _docstrings(path: Path) -> Iterator[str]:
    """Each docstring of a file below the ``class`` or ``def`` line that it explains."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files have invalid escapes
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # templates and broken links: nothing to read
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        if text and len(text) >= LONG // 2:
            yield f"{_heading(node)}{text.strip()}"


def _heading(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    if isinstance(node, ast.Module):
        return ""
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}:\n"
    given = node.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return f"def {node.name}({', '.join(names)}):\n"


# written-out dates and numbers ------------------------------------------------------------------

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINAL = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_MONTHS = (
    "January February March April May June July August September October November December"
).split()
_FIRST_DAY, _LAST_DAY = date(1800, 1, 1), date(2099, 12, 31)


def number_words(number: int) -> str:
    """4012 -> "four thousand and twelve"; 0 to 999,999."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")
    if number < 1000:
        hundreds, rest = divmod(number, 100)
        return f"{_ONES[hundreds]} hundred" + (f" and {number_words(rest)}" if rest else "")
    thousands, rest = divmod(number, 1000)
    joint = " and " if 0 < rest < 100 else " "
    return f"{number_words(thousands)} thousand" + (f"{joint}{number_words(rest)}" if rest else "")


def ordinal_words(number: int) -> str:
    """23 -> "twenty-third"; 1 to 99."""
    stem, dash, last = number_words(number).rpartition("-")
    if last.endswith("ty"):
        return f"{stem}{dash}{last[:-1]}ieth"
    return f"{stem}{dash}{_ORDINAL.get(last, last + 'th')}"


def year_words(year: int) -> str:
    """1984 -> "nineteen eighty-four", 1905 -> "nineteen oh five", 2007 as the number."""
    century, rest = divmod(year, 100)
    if century == 20 and rest < 10:
        return number_words(year)
    if rest == 0:
        return f"{number_words(century)} hundred"
    return f"{number_words(century)} {'oh ' if rest < 10 else ''}{number_words(rest)}"


def date_words(day: date, form: int) -> str:
    """One of three ways to write a date out in English."""
    nth, month, year = ordinal_words(day.day), _MONTHS[day.month - 1], year_words(day.year)
    return (
        f"the {nth} of {month}, {year}",
        f"{month} the {nth}, {year}",
        f"{nth} {month} {year}",
    )[form]


def dates_and_numbers(count: int, seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """``count`` training pairs (words, ISO form), and twenty dates of which none is among them.

    Three pairs in four are dates. A day is held out whole: no other way of writing it is trained
    on.
    """
    draw = random.Random(seed)
    days = [_FIRST_DAY + timedelta(n) for n in range((_LAST_DAY - _FIRST_DAY).days + 1)]
    draw.shuffle(days)
    unseen, days = days[:20], days[20:]
    pairs = []
    for _ in range(count):
        if draw.random() < 0.25:
            number = int(10 ** draw.uniform(0, 4))
            pairs.append((number_words(number), str(number)))
        else:
            day = draw.choice(days)
            pairs.append((date_words(day, draw.randrange(3)), day.isoformat()))
    return pairs, [(date_words(day, draw.randrange(3)), day.isoformat()) for day in unseen]

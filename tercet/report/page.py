"""A page: title, key figures, sections, in one file that needs no other and no network."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from tercet.files import written
from tercet.report.markup import Html, inline, join, tag
from tercet.report.pieces import anchor

# The page may run what it carries and load nothing: even a slip in escaping could not call home.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath stroke-width='2.6' stroke-linecap='round' stroke='%230072b2' d='M3 3.5h10'/%3E"
    "%3Cpath stroke-width='2.6' stroke-linecap='round' stroke='%23d55e00' d='M3 8h7'/%3E"
    "%3Cpath stroke-width='2.6' stroke-linecap='round' stroke='%23009e73' d='M3 12.5h8.5'/%3E"
    "%3C/svg%3E"
)


class Page:
    """A page under construction; `str(page)` is its HTML, `write` puts it into a file.

    >>> page = Page("Quickstart", lead="Three models on real text.")
    >>> page.section("Loss", line_plot([Series("decoder", steps, losses)], title="Training"))
    >>> page.write("runs/quickstart/report.html")

    title: also the window's. kicker: a small line above it (the command, the date).
    lead: a sentence or two in larger type. Strings are escaped; `code` between backticks.
    """

    def __init__(self, title: str, *, lead: str = "", kicker: str = "") -> None:
        self.title, self.lead, self.kicker = title, lead, kicker
        self._top: list[Html] = []
        self._sections: list[tuple[str, str, Html]] = []

    def add(self, *children: Html | str) -> None:
        """Pieces above the first section (key figures, say); strings are paragraphs."""
        self._top.extend(map(_piece, children))

    def section(self, title: str, *children: Html | str) -> None:
        """A section; its title joins the contents at the top. Strings are paragraphs."""
        name, taken = anchor(title), {known for known, _, _ in self._sections}
        unique = next(
            n for i in range(1, 10_000) if (n := f"{name}-{i}" if i > 1 else name) not in taken
        )
        self._sections.append((unique, title, join(*map(_piece, children))))

    def __str__(self) -> str:
        return "<!doctype html>\n" + tag("html", head(self.title), self._body(), lang="en") + "\n"

    def _body(self) -> Html:
        links = [tag("a", inline(t), href=f"#{name}") for name, t, _ in self._sections]
        header = tag(
            "header",
            _mark(),
            tag("p", inline(self.kicker), class_="kicker") if self.kicker else None,
            tag("h1", inline(self.title)),
            tag("p", inline(self.lead), class_="lead") if self.lead else None,
            tag("nav", *links, aria_label="Contents") if len(links) > 1 else None,
        )
        sections = [
            tag("section", tag("h2", inline(title)), body, id=name, aria_label=title)
            for name, title, body in self._sections
        ]
        footer = tag("footer", "Written by Tercet. This file needs no network and no other file.")
        script = tag("script", Html(asset("plots.js") + asset("attention.js")))
        return tag("body", header, tag("main", *self._top, *sections), footer, script)

    def write(self, path: str | Path) -> Path:
        """Writes the page beside `path` and renames it there, so an older page survives a failure.

        Missing folders are made. An `InputError` says what could not be written and why.
        """
        return write_page(self, path)


def write_page(page: object, path: str | Path) -> Path:
    """`str(page)` as a file, whole or not at all."""
    path = Path(path)
    with written(path) as beside:
        beside.write_text(str(page), encoding="utf-8", newline="\n")
    return path


def _piece(child: Html | str) -> Html:
    return child if isinstance(child, Html) else tag("p", inline(child))


def head(title: str, *styles: str) -> Html:
    """The head of every page of ours. styles: style sheets of this room beside the common one."""
    sheets = "".join(asset(name) for name in ("page.css", *styles))
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("link", rel="icon", href=_ICON),
        tag("title", title),
        tag("style", Html(sheets)),
    )


def _mark() -> Html:
    """Three lines that make one verse."""
    lines = [("3 4H23", 1), ("3 11H17", 2), ("3 18H20", 3)]
    strokes = [tag("path", d=f"M{d}", style=f"stroke:var(--series-{i})") for d, i in lines]
    return tag("svg", *strokes, class_="verse", viewBox="0 0 26 22", aria_hidden="true")


@cache
def asset(name: str) -> str:
    """The text of a file of this room."""
    return files("tercet.report").joinpath(name).read_text(encoding="utf-8")

"""What an experiment found, as files for a document: pictures, their table, and a page of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.files import written
from tercet.jobs.reproduce.table import Row, shown
from tercet.report import Page, Panel, Series, in_stretches, line_plot, picture, side_by_side, table
from tercet.train.log import rows

if TYPE_CHECKING:
    from tercet.jobs.train.run import Run

POINTS = 100  # of a long curve


def draw(
    folder: Path,
    title: str,
    pictures: Mapping[str, Sequence[Panel]],
    found: Sequence[Row],
    *,
    names: tuple[str, str] = ("ours", "theirs"),
) -> None:
    """figures/NAME.svg of each picture, figures/README.md with the rows below them, report.html.

    ``names``: what stands in the two columns of figures.
    """
    for name, panels in pictures.items():
        with written(folder / "figures" / f"{name}.svg") as draft:
            draft.write_text(str(picture(panels)), encoding="utf-8")
    header = ["", *names, ""]
    cells = [[row.measure, *map(shown, (row.ours, row.theirs)), row.note] for row in found]
    with written(folder / "figures" / "README.md") as draft:
        images = [f"![{_alt(panels)}]({name}.svg)" for name, panels in pictures.items()]
        lines = [f"# {title}", "", *images, "", *_markdown(header, cells)]
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
    page = Page(title, kicker="tercet reproduce")
    page.section("What was measured", table(header, cells, align="lrrl"))
    for panels in pictures.values():
        plots = [line_plot(one.series, title=one.title, x=one.x, y=one.y) for one in panels]
        page.section(panels[0].title, side_by_side(*plots) if len(plots) > 1 else plots[0])
    page.write(folder / "report.html")


def _alt(panels: Sequence[Panel]) -> str:
    return "; ".join(panel.title for panel in panels)


def _markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    for line in (header, ["---", "---:", "---:", "---"], *cells):
        yield f"| {' | '.join(line)} |"


def losses(run: Run, name: str, per_step: str = "seconds") -> Series:
    """The training loss of a run over its seconds, its tokens or its steps, in short stretches."""
    steps = list(rows(run.folder / "log.jsonl", "step"))
    curve = Series(name, [row[per_step] for row in steps], [float(row["loss"]) for row in steps])
    return in_stretches(curve, len(steps) // POINTS)


def evaluations(run: Run, name: str, *, each: float = 1.0) -> Series:
    """The validation loss of a run over its tokens, times what ``each`` costs."""
    tokens = {row["step"]: row["tokens"] for row in rows(run.folder / "log.jsonl", "step")}
    found = list(rows(run.folder / "log.jsonl", "evaluation"))
    x = [each * tokens[row["step"]] for row in found]
    return Series(name, x, [float(row["loss"]) for row in found], points=True)

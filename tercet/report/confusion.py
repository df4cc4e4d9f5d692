"""A confusion matrix as a table of numbers: a row for each true label, a column for each said."""

from __future__ import annotations

from collections.abc import Sequence

from tercet.errors import InputError
from tercet.report.markup import Html, number, tag

DEEPEST = 45  # per cent of colour in a cell that holds its whole row: the ink stays readable
UPRIGHT = 8  # labels: from here on their names stand upright over the columns


def confusion_matrix(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    """counts[i][j]: rows whose true label is names[i] and of which names[j] was said.

    Cells are coloured by their share of the row, on a square-root scale, so that rare mistakes are
    seen; at the margins stand the rows of each label, the share of them that was found, and the
    share of what was said that is right.
    """
    if len(counts) != len(names) or any(len(row) != len(names) for row in counts):
        shape = f"{len(counts)} × {sorted({len(row) for row in counts})}"
        raise InputError(f"{shape} counts for {len(names)} labels; give a square of them")
    dense = len(names) > UPRIGHT
    span = str(len(names))
    above = tag(
        "tr",
        tag("th", tag("span", "true ↓", aria_hidden="true"), class_="axis", rowspan="2"),
        tag("th", "said", colspan=span, scope="colgroup", class_="said"),
        tag("th", "rows", rowspan="2", scope="col", class_="number"),
        tag("th", "found", rowspan="2", scope="col", class_="number"),
    )
    heads = [tag("th", tag("span", name, title=name), scope="col") for name in names]
    body = [_row(i, name, row) for i, (name, row) in enumerate(zip(names, counts))]
    said = [sum(column) for column in zip(*counts)]
    right = [_share(counts[i][i], said[i]) for i in range(len(names))]
    foot = [
        tag("tr", tag("th", "said", scope="row"), *map(_sum, said), _sum(sum(said)), tag("td")),
        tag("tr", tag("th", "of it right", scope="row"), *right, tag("td"), _all(counts)),
    ]
    inner = tag(
        "table",
        tag("thead", above, tag("tr", *heads)),
        tag("tbody", *body),
        tag("tfoot", *foot),
    )
    return tag(
        "div",
        inner,
        class_="scroll confusion dense" if dense else "scroll confusion",
        tabindex="0",
        role="group",
        aria_label="Confusion matrix",
    )


def _row(place: int, name: str, row: Sequence[int]) -> Html:
    total = sum(row)
    cells = [_cell(count, total, right=i == place) for i, count in enumerate(row)]
    head = tag("th", tag("span", name, title=name), scope="row")
    return tag("tr", head, *cells, _sum(total), _share(row[place], total))


def _cell(count: int, total: int, *, right: bool) -> Html:
    if not count:
        return tag("td", "0", class_="none")
    tint = DEEPEST * (count / total) ** 0.5
    kind = "right" if right else "wrong"
    return tag("td", number(count), class_=kind, style=f"--tint:{tint:.1f}%")


def _sum(count: int) -> Html:
    return tag("td", number(count), class_="sum")


def _share(part: int, whole: int) -> Html:
    return tag("td", f"{100 * part / whole:.1f}\u00a0%" if whole else "–", class_="sum")


def _all(counts: Sequence[Sequence[int]]) -> Html:
    return _share(sum(row[i] for i, row in enumerate(counts)), sum(map(sum, counts)))

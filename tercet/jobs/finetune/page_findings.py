"""What findings.json holds, as sections of a page. Each says what was looked at and how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tercet.report import Fact, Html, confusion_matrix, fold, quote, table

SQUARE = 24  # labels: of more the most confused pairs are shown
PAIRS = 20
FIRST = 10  # of a list; the rest is folded
TRUSTED = 0.8  # of the labels: a judge of label errors that agrees with fewer errs more than people
Section = tuple[Any, ...]  # the title, then its pieces


def found_facts(found: dict[str, Any]) -> list[Fact]:
    """What else is to be known at once."""
    facts = []
    if (errors := found.get("label_errors")) and errors.get("agrees", 0.0) >= TRUSTED:
        facts.append(
            Fact(errors["n"], "likely label errors", f"in {errors['rows']:,} training rows")
        )
    if twins := found.get("duplicates"):
        n = twins["same"] + twins["near"]
        note = f"of {twins['of']:,}: so many stand in {twins['known']} too"
        facts.append(Fact(n, f"{twins['split']} texts on both sides", note))
    return facts


def sections(found: dict[str, Any], result: dict[str, Any]) -> Iterator[Section]:
    """Those that the task has findings for."""
    if "confusion" in found:
        yield _confusion(found, result)
    if "mistakes" in found:
        yield _mistakes(found)
    if "label_errors" in found:
        yield _label_errors(found["label_errors"])
    if "duplicates" in found:
        yield _duplicates(found["duplicates"])
    if "cut" in found:
        yield _cut(found["cut"])


def _confusion(found: dict[str, Any], result: dict[str, Any]) -> Section:
    counts = {(true, said): n for true, said, n in found["confusion"]}
    names = list(dict.fromkeys([*result["data"]["labels"], *(true for true, _ in counts)]))
    of = f"{sum(counts.values()):,} {_rows_of(found['split'], result)}"
    if len(names) <= SQUARE:
        grid = [[counts.get((true, said), 0) for said in names] for true in names]
        about = f"A row for each true label, a column for what was said of the {of}."
        return "What it confuses", about, confusion_matrix(names, grid)
    of_label: Counter[str] = Counter()
    for (true, _), n in counts.items():
        of_label[true] += n
    wrong = {pair: n for pair, n in counts.items() if pair[0] != pair[1]}
    pairs = sorted(wrong, key=lambda pair: -wrong[pair])[:PAIRS]
    lines = [
        [true, said, wrong[true, said], f"{100 * wrong[true, said] / of_label[true]:.0f}\u00a0%"]
        for true, said in pairs
    ]
    about = (
        f"{len(names):,} labels: of the {len(wrong):,} pairs that were confused in the {of}, the "
        f"{len(pairs)} commonest."
    )
    if not pairs:
        return "What it confuses", f"Nothing: all of the {of} are right."
    return (
        "What it confuses",
        about,
        table(["true", "said", "rows", "of the true"], lines, align="llrr"),
    )


def _rows_of(split: str, result: dict[str, Any]) -> str:
    several = f" of {result['best']}" if len(result["runs"]) > 1 else ""
    what = "words" if result["task"] == "tag" else "rows"
    return f"{split} {what}{several}"


def _mistakes(found: dict[str, Any]) -> Section:
    mistakes, split = found["mistakes"], found["split"]
    if not mistakes["n"]:
        return "The surest mistakes", f"None among the {mistakes['of']:,} {split} rows."
    lines = [
        [_quote(row), row["label"], row["said"], f"{100 * row['probability']:.1f}\u00a0%"]
        for row in mistakes["shown"]
    ]
    about = (
        f"{mistakes['n']:,} of {mistakes['of']:,} {split} rows are wrong. These are the ones that "
        "the model was surest of: hard cases, and labels that may be wrong themselves."
    )
    header = ["text", "true", "said", "probability"]
    return "The surest mistakes", about, *_list(header, lines, "lllr")


def _label_errors(errors: dict[str, Any]) -> Section:
    title = "Likely label errors"
    if "skipped" in errors:
        return title, f"Not looked for: {errors['skipped']}."
    drawn = "" if errors["rows"] == errors["of"] else f" of {errors['of']:,}"
    about = (
        f"{errors['n']:,} of the {errors['rows']:,}{drawn} training rows that were judged have a "
        "label that is likely wrong, by confident learning (Northcutt et al. 2021) on out-of-fold "
        f"probabilities of {errors['by']}. What these think likeliest is the label of "
        f"{100 * errors['agrees']:.1f}\u00a0% of the rows"
        + ("." if errors["agrees"] >= TRUSTED else ": a weak judge, who mostly errs himself.")
    )
    if not errors["n"]:
        return title, about
    lines = [
        [
            _quote(row),
            row["label"],
            row["likely"],
            f"{100 * row['own']:.1f}\u00a0%",
            f"{100 * row['probability']:.1f}\u00a0%",
        ]
        for row in errors["shown"]
    ]
    header = ["text", "label", "likelier", "its own", "the likelier’s"]
    more = "Look at them one by one, the surest first; the list is no proof."
    return title, f"{about} {more}", *_list(header, lines, "lllrr")


def _duplicates(twins: dict[str, Any]) -> Section:
    title, split, known = "Texts on both sides", twins["split"], twins["known"]
    alike = f"similarity of five-character strings {twins['similarity']:g} or more"
    if not twins["same"] + twins["near"]:
        return title, f"None of the {twins['of']:,} {split} texts stands in {known} too ({alike})."
    about = (
        f"Of {twins['of']:,} {split} texts {twins['same']:,} stand in {known} too, but for case, "
        f"spaces and punctuation, and {twins['near']:,} nearly so ({alike}). On them memory is "
        "measured, not understanding."
    )
    lines = [
        [
            _quote(row),
            row["label"],
            _quote(row["other"]),
            row["other"]["label"],
            "same" if row["same"] else f"{row['similarity']:.2f}",
        ]
        for row in twins["shown"]
    ]
    header = [f"{split} text", "label", f"in {known}", "label", "similarity"]
    return title, about, *_list(header, lines, "llllr")


def _cut(cut: dict[str, Any]) -> Section:
    title = "Texts that were cut"
    if not any(cut["n"].values()):
        return title, f"None: all texts fit into the {cut['limit']:,} tokens of the context."
    counts = ", ".join(f"{n:,} {split}" for split, n in cut["n"].items() if n)
    about = (
        f"{counts} texts have more tokens than the {cut['limit']:,} that the model reads. What is "
        "kept of them is `data.overflow`. The longest:"
    )
    lines = [[_quote(row), row["split"], row["label"], row["tokens"]] for row in cut["shown"]]
    return title, about, *_list(["text", "split", "label", "tokens"], lines, "lllr", first=5)


def _list(header: list[str], lines: list[list[Any]], align: str, first: int = FIRST) -> list[Html]:
    """The first lines, the others behind a line that opens them."""
    pieces = [table(header, lines[:first], align=align)]
    if rest := lines[first:]:
        pieces.append(fold(f"{len(rest)} more", table(header, rest, align=align)))
    return pieces


def _quote(row: dict[str, Any]) -> Html:
    """A text, or both of a pair, and where it stands."""
    texts = [row["text"]] if isinstance(row["text"], str) else row["text"]
    return quote(*texts, note=row["where"])

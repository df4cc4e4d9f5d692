"""The verb `classify`: what a fine-tuned head says of texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.jobs.flags import Model, in_groups, one_line, print_json, say, unset
from tercet.text.read import STDIN, lines

if TYPE_CHECKING:
    from tercet.answers import Label, Labels, Value


TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Texts:
    """Texts on the command line, or from a file."""

    texts: Annotated[
        Positional[tuple[str, ...]], arg(metavar="TEXT...", help_behavior_hint="")
    ] = ()
    """one text or several; - reads one from standard input"""
    file: Annotated[str | None, unset("FILE")] = None
    """a file with a text a line instead, pairs with a tab between; - for standard input; or a table
    with a header (.csv, .tsv, .jsonl, .parquet), whose columns are found as tercet finetune does"""
    text: Annotated[str | None, unset("COLUMN")] = None
    """of a table: the column of the text, if its name does not say so"""
    pair: Annotated[str | None, unset("COLUMN")] = None
    """of a table: the column of a second text, where two belong together"""

    def read(self, *, pairs: bool) -> list[Any]:
        kind = Path((self.file or "").removesuffix(".gz")).suffix
        named = {part: name for part in ("text", "pair") if (name := getattr(self, part))}
        if kind in TABLES and not pairs:
            return self._rows(named)
        if named:
            part, name = next(iter(named.items()))
            raise InputError(f"--{part} {name} is a column of a table: --file FILE{TABLES[0]}, say")
        return self._lines(pairs=pairs)

    def _rows(self, named: dict[str, str]) -> list[Any]:
        from tercet.jobs.finetune.classify import PARTS
        from tercet.jobs.finetune.rows import read_table

        if self.texts:
            raise InputError("give a TEXT or --file FILE, not both")
        table = read_table(
            [str(self.file)], [part for part in PARTS if part.name != "label"], named
        )
        say(table.sentence)
        both = [[row[part] for part in table.columns] for _, row in table.rows]
        return [tuple(one) if len(one) > 1 else one[0] for one in both]

    def _lines(self, *, pairs: bool) -> list[Any]:
        if bool(self.texts) == (self.file is not None):
            said = "both" if self.texts else "neither"
            raise InputError(f"give a TEXT or --file FILE, not {said}; - stands for standard input")
        if self.file is None:
            found: list[Any] = [
                "\n".join(lines(STDIN)) if text == STDIN else text for text in self.texts
            ]
            if not pairs:
                return found
            if len(found) % 2:
                raise InputError(f"--pairs wants an even number of texts, not {len(found)}")
            return list(zip(found[::2], found[1::2]))
        found = list(lines(self.file))
        if not found:
            raise InputError(f"{self.file}: is empty; give a file with a text a line")
        return [_pair(line, i, self.file) for i, line in enumerate(found, 1)] if pairs else found


def run(
    model: Model,
    texts: Texts,
    *,
    pairs: bool = False,
    overflow: Annotated[
        Literal["error", "keep-start", "keep-end", "middle-out"] | None, unset("POLICY")
    ] = None,
    json: bool = False,
) -> None:
    """The label of each text, with its probability; or its labels, or its number.

      tercet classify runs/classify/model "How far is it from Denver to Aspen?"
      tercet classify runs/classify/model --file questions.csv --json

    Args:
        pairs: two texts belong together: each two given here, or a line's, with a tab between
        overflow: what is kept of a text beyond the context: error, keep-start, keep-end or
            middle-out; without it what the model has learned, else the start
        json: an object a text, with the probability of every label
    """
    network = model.load("classify")
    listed = texts.read(pairs=pairs)
    answer = lambda group: network.classify(group, overflow=overflow)  # noqa: E731
    for text, found in in_groups(listed, answer):
        if json:
            print_json({"text": text, **asdict(found)})
        else:
            shown = text if isinstance(text, str) else " | ".join(text)
            print(f"{_said(found)}  {one_line(shown)}")


def _said(found: Label | Labels | Value) -> str:
    probabilities = getattr(found, "probabilities", {})
    names = getattr(found, "labels", [str(found)])
    each = [f"{probabilities[name]:7.1%}  {name}" for name in names if name in probabilities]
    return ", ".join(each) if probabilities else str(found)


def _pair(line: str, number: int, file: str) -> tuple[str, str]:
    first, tab, second = line.partition("\t")
    if not tab:
        raise InputError(f"{file}, line {number}: has no tab between two texts of a pair")
    return first, second

"""The verb `classify`: what a fine-tuned head says of texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from tercet.errors import InputError
from tercet.jobs.flags import Model, in_groups, one_line, print_json, unset
from tercet.text.read import STDIN, lines

if TYPE_CHECKING:
    from tercet.answers import Label, Labels, Value


@dataclass(frozen=True)
class Texts:
    """Texts on the command line, or from a file."""

    texts: Annotated[
        Positional[tuple[str, ...]], arg(metavar="TEXT...", help_behavior_hint="")
    ] = ()
    """one text or several; - reads one from standard input"""
    file: Annotated[str | None, unset("FILE")] = None
    """a file with a text a line instead, pairs with a tab between; - for standard input"""

    def read(self, *, pairs: bool) -> list[Any]:
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

"""The arguments that several verbs share, and how texts come in and results go out.

Loads no torch until a model is asked for, so that every verb's --help is quick.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from tyro.conf import Positional, UseAppendAction, arg

from tercet.errors import InputError
from tercet.text.read import STDIN, lines

if TYPE_CHECKING:
    from tercet.answers import Generation
    from tercet.generate import Sampling
    from tercet.language_model import LanguageModel

T = TypeVar("T")


def unset(metavar: str) -> Any:
    """A flag whose default is "not given"."""
    return arg(metavar=metavar, help_behavior_hint="")


@dataclass(frozen=True)
class Named:
    """Which model."""

    model: Annotated[Positional[str], arg(metavar="MODEL", help_behavior_hint="")]
    """a folder, or a model of the Hugging Face hub: owner/name"""
    allow_pickle: bool = False
    """read *.bin weights where there are no others; only from an owner whom you trust"""
    context: Annotated[int | None, unset("N")] = None
    """read texts of N tokens, beyond the model's own context: rotary positions are stretched"""

    def named(self) -> str:
        if not self.model.strip():
            raise InputError(
                f"MODEL {self.model!r} is empty; name a folder, or a model of the hub as owner/name"
            )
        return self.model


@dataclass(frozen=True)
class Model(Named):
    """Which model, and how exactly it computes."""

    precision: Literal["float32", "bfloat16", "int8", "int4"] = "float32"
    """fewer bits are faster: bfloat16 loses next to nothing, int8 little, int4 more"""

    def load(self, verb: str) -> LanguageModel:
        """The model, for a verb. Raises InputError where its family or heads cannot do that."""
        from tercet.language_model import load

        model = load(
            self.named(),
            precision=self.precision,
            allow_pickle=self.allow_pickle,
            context=self.context,
        )
        return able(model, verb)


METHODS = {"attend": "attention"}  # where a verb has another name than its method


def verbs(model: LanguageModel) -> list[str]:
    """What a model can do, as the command calls it."""
    names = {method: verb for verb, method in METHODS.items()}
    return [names.get(method, method) for method in model.can if not method.endswith("stream")]


def able(model: LanguageModel, verb: str) -> LanguageModel:
    if METHODS.get(verb, verb) not in model.can:
        raise InputError(
            f"this model ({model.described}) cannot {verb}; it can {', '.join(verbs(model))}"
        )
    return model


@dataclass(frozen=True)
class Text:
    """One text on the command line, or many from a file."""

    text: Annotated[Positional[str | None], unset("TEXT")] = None
    """the text; - reads it from standard input"""
    file: Annotated[str | None, unset("FILE")] = None
    """a file with a text a line instead; - for standard input"""

    def read(self) -> str | list[str]:
        """A string for one text, a list for a file's lines."""
        if (self.text is None) == (self.file is None):
            said = "neither" if self.text is None else "both"
            raise InputError(f"give a TEXT or --file FILE, not {said}; - stands for standard input")
        if self.file is not None:
            return _some(list(lines(self.file)), self.file)
        assert self.text is not None
        return "\n".join(lines(STDIN)) if self.text == STDIN else self.text

    def one(self) -> str:
        """For verbs that show a single text."""
        texts = self.read()
        if isinstance(texts, list) and len(texts) > 1:
            raise InputError(f"{self.file}: holds {len(texts)} lines; this verb takes one text")
        return texts if isinstance(texts, str) else texts[0]


@dataclass(frozen=True)
class Files:
    """Many texts: files with a text a line."""

    files: Annotated[
        Positional[tuple[str, ...]], arg(metavar="FILE...", help_behavior_hint="")
    ] = ()
    """files with a text a line; - for standard input"""
    text: Annotated[str | None, unset("TEXT")] = None
    """one text, given here, instead of files"""

    def read(self) -> str | list[str]:
        """A string for --text, a list for files. Raises InputError for an empty line, by number."""
        if bool(self.files) == (self.text is not None):
            said = "both" if self.files else "neither"
            raise InputError(f"give a FILE or --text TEXT, not {said}; - stands for standard input")
        if self.text is not None:
            return self.text
        texts = []
        for name in self.files:
            for number, line in enumerate(lines(name), 1):
                if not line.strip():
                    raise InputError(f"{name}, line {number}: is empty; take the line out")
                texts.append(line)
        return _some(texts, ", ".join(self.files))


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen."""

    temperature: Annotated[float, arg(metavar="X")] = 0.0
    """0 takes the likeliest token each time; higher is more adventurous"""
    top_k: Annotated[int | None, unset("K")] = None
    """choose among the K likeliest tokens only"""
    top_p: Annotated[float | None, unset("P")] = None
    """choose among the fewest tokens that hold this share of the probability"""
    min_p: Annotated[float | None, unset("P")] = None
    """leave out tokens less likely than this share of the likeliest"""
    repetition_penalty: Annotated[float, arg(metavar="X")] = 1.0
    """above 1: what prompt or text hold already becomes less likely"""
    presence_penalty: Annotated[float, arg(metavar="X")] = 0.0
    """above 0: what the text holds already becomes less likely"""
    bias: Annotated[UseAppendAction[tuple[str, ...]], unset("ID=X")] = ()
    """add X to the logit of a token, as 262=-inf to forbid it; may be given again and again"""
    seed: Annotated[int, arg(metavar="N")] = 0
    """another seed, another text; the same seed, the same text"""

    def sampling(self) -> Sampling:
        from tercet.generate import Sampling

        return Sampling(
            self.temperature,
            self.top_k,
            self.top_p,
            self.min_p,
            self.repetition_penalty,
            self.presence_penalty,
            dict(map(_biased, self.bias)),
        )


def _biased(said: str) -> tuple[int, float]:
    token, _, value = said.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        raise InputError(
            f"--bias {said!r} is not ID=X, a token's number and what is added, as 262=-2.5"
        ) from None


def _some(texts: list[str], name: str) -> list[str]:
    if not texts:
        raise InputError(f"{name}: is empty; give a file with a text a line")
    return texts


def print_json(value: dict[str, Any]) -> None:
    """One object a line. What is no number (the perplexity of a single token) becomes null."""
    print(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def one_line(text: str) -> str:
    r"""A text that holds line breaks as a line: \n for each, so that lines still count texts."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def visible(name: str, width: int) -> str:
    r"""A name out of somebody's file, for a cell of a table at a terminal: what does not print is
    spelled (\x1b), and beyond the width it is cut."""
    parts = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    spelled = "".join(parts)
    return spelled if len(spelled) <= width else f"{spelled[: width - 1]}…"


# A terminal takes them for commands; a picture of each (of those beyond ASCII there is none).
PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
PICTURES |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def shown(text: str) -> str:
    """What a model wrote, as it is in a file or a pipe; without commands at a terminal."""
    return text.translate(PICTURES) if sys.stdout.isatty() else text


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells under one another."""
    widths = [max(map(len, column)) + 2 for column in zip(*lines, strict=True)]
    padded = (map(str.ljust, line, widths) for line in lines)
    return "\n".join("".join(line).rstrip() for line in padded)


def say(sentence: str) -> None:
    """To the user, beside the results."""
    print(f"tercet: {sentence}", file=sys.stderr)


GROUP = 32  # texts written together and printed before the next: what a Ctrl-C may cost


def in_groups(
    texts: list[str], answer: Callable[[list[str]], list[T]], *, together: bool = False
) -> Iterator[tuple[str, T]]:
    """Each text with its answer, in order, as soon as its group is answered; `together`: all at
    once."""
    size = len(texts) if together else GROUP
    for start in range(0, len(texts), size):
        group = texts[start : start + size]
        yield from zip(group, answer(group), strict=True)
        sys.stdout.flush()


def failed(number: int, answer: Generation) -> bool:
    """Whether a text of a list could not be run; says why."""
    if answer.finish == "error":
        say(f"text {number}: {answer.error}")
    return answer.finish == "error"

"""The verb `chat`: a conversation with a model, typed, piped, or loaded from a file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Literal

from tyro.conf import UseAppendAction, arg

from tercet.errors import InputError
from tercet.jobs.flags import Choice, Model, say, unset
from tercet.jobs.use.chat_session import Session
from tercet.text.read import STDIN, lines

PROMPT, GOES_ON = "> ", ". "
QUOTES = '"""'
LEAVING = "Ctrl-D or /quit leaves, /help says what else there is"


def run(
    model: Model,
    choice: Choice,
    *,
    system: Annotated[str | None, unset("TEXT")] = None,
    load: Annotated[str | None, unset("FILE")] = None,
    file: Annotated[str | None, unset("FILE")] = None,
    max_new_tokens: Annotated[int | None, unset("N")] = None,
    stop: Annotated[UseAppendAction[tuple[str, ...]], unset("TEXT")] = (),
    overflow: Annotated[
        Literal["error", "keep-end", "middle-out", "slide"], arg(metavar="POLICY")
    ] = "keep-end",
    json: bool = False,
) -> int:
    """Talks with a decoder: a line is a question, and the answer is written as it comes.

    A line that ends with a backslash goes on in the next; several lines stand between two \"\"\".
    Ctrl-C stops an answer, Ctrl-D leaves, /help names the commands. Of a file or a pipe each line
    is a question.

      tercet chat runs/quickstart/decoder --temperature 0.8 --max-new-tokens 40

    Args:
        system: what the model is told before the conversation
        load: go on with a conversation that was saved with /save
        file: a question a line, from a file; - for standard input
        max_new_tokens: stop an answer after so many tokens; without it, at the edge of the context
        stop: a string that ends an answer and is left out of it; may be given again and again
        overflow: of a conversation beyond the context: error refuses it, keep-end leaves the oldest
            turns out, middle-out those of the middle, slide the oldest also during an answer
        json: a JSON object a turn, with the numbers of what was read and what was left out
    """
    sampling = choice.sampling()
    network = model.load("chat")

    from tercet.generate.texts import Request
    from tercet.language_model.conversing import Conversing

    request = Request(max_new_tokens, sampling, tuple(stop), choice.seed, overflow)
    conversing = Conversing(network.writer, keep=True)
    conversing.check(request)
    session = Session(conversing, request, json=json)
    if load is not None:
        session.load(load)
    if system is not None:
        session.tell(system)
    if conversing.about:
        say(conversing.about)
    if file is None and sys.stdin.isatty():
        _typed(session)
        return 0
    return 0 if all([*_answered(session, file or STDIN)]) else 2


def _typed(session: Session) -> None:
    """A conversation with somebody at a keyboard."""
    with suppress(ImportError):
        import readline as readline  # arrows and history in input()
    say(LEAVING)
    while not session.left:
        try:
            question = _joined(_line)
            if question is None:
                print(file=sys.stderr)
                return
            session.turn(question)
        except InputError as error:  # a line that is no text
            say(str(error))
        except KeyboardInterrupt:  # none that stopped an answer
            print(file=sys.stderr)
            say(LEAVING)


def _answered(session: Session, file: str) -> Iterator[bool]:
    """Whether each line of a file could be answered. Ctrl-C ends the program here, as elsewhere."""
    given = lines(file)
    while not session.left and (question := _joined(lambda _: next(given, None))) is not None:
        done = session.turn(question)
        if session.interrupted:
            raise KeyboardInterrupt
        yield done


def _line(prompt: str) -> str | None:
    """A typed line, None at the end of the input. The prompt is no part of the output."""
    shown = sys.stdout.isatty()
    if not shown:
        print(prompt, end="", file=sys.stderr, flush=True)
    try:
        return input(prompt if shown else "")
    except EOFError:
        return None
    except UnicodeDecodeError as error:
        raise InputError(f"the line is no text ({error}); type it anew") from error


def _joined(line: Callable[[str], str | None]) -> str | None:
    """A message of one line or several, None where nothing is left."""
    said = line(PROMPT)
    if said is None:
        return None
    if said.lstrip().startswith(QUOTES):
        return _quoted(said.lstrip().removeprefix(QUOTES), line)
    parts = []
    while said is not None and said.endswith("\\"):
        parts.append(said[:-1])
        said = line(GOES_ON)
    return "\n".join([*parts, *([] if said is None else [said])])


def _quoted(said: str | None, line: Callable[[str], str | None]) -> str:
    """The lines up to the next quotes, or to the end of the input."""
    parts = []
    while said is not None:
        before, found, after = said.partition(QUOTES)
        if found:
            parts.append(before + after)
            break
        parts.append(said)
        said = line(GOES_ON)
    return "\n".join(parts).strip("\n")

"""A conversation under way: what was said, the commands that change it, and answers as they come.

Knows nothing of keyboards and pipes.
"""

from __future__ import annotations

import gzip
import json as json_files
import os
import sys
import warnings
from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tercet.answers import CutWarning
from tercet.errors import InputError
from tercet.files import written
from tercet.jobs.flags import print_json, say, shown
from tercet.text.messages import Message, conversation
from tercet.text.read import lines
from tercet.text.turns import Sight, Turns, counted

if TYPE_CHECKING:
    from tercet.generate.texts import Request
    from tercet.language_model.conversing import Conversing, Reply

COMMANDS = {
    "/system": ("TEXT", "tell the model something before the conversation; without TEXT, nothing"),
    "/context": ("", "how much of the model's context is used, and what is left out next"),
    "/undo": ("", "take the last question and its answer back"),
    "/reset": ("", "begin anew; the system message stays"),
    "/save": ("FILE", "write the conversation to a file"),
    "/load": ("FILE", "go on with a conversation from a file"),
    "/help": ("", "this list"),
    "/quit": ("", "leave; so does Ctrl-D"),
}
MORE = """\
  A line that ends with a backslash goes on in the next; several lines stand between two \"\"\".
  A message that begins with a slash: write two. Ctrl-C stops an answer; what was written stays."""


class Session:
    """json: an object a turn in the place of text. left: /quit was said. interrupted: the last
    answer was, by Ctrl-C."""

    def __init__(self, conversing: Conversing, request: Request, *, json: bool = False) -> None:
        self.conversing, self.request, self.json = conversing, request, json
        self.system: list[Message] = []
        self.said: list[Message] = []  # questions and answers, in turn
        self.left = self.interrupted = False

    @property
    def messages(self) -> list[Message]:
        return [*self.system, *self.said]

    def turn(self, text: str) -> bool:
        """A message or a command; whether it could be done, else why not is said."""
        self.interrupted = False
        if not text.strip():
            return True
        try:
            if text.startswith("/") and not text.startswith("//"):
                self.command(text)
            else:
                self.ask(text.removeprefix("/") if text.startswith("//") else text)
        except InputError as error:
            if self.json:
                print_json({"question": text, "error": str(error)})
            say(str(error))
            return False
        return True

    # questions ----------------------------------------------------------------------------------

    def ask(self, question: str) -> None:
        """Answers, and keeps question and answer, also one that Ctrl-C stopped."""
        asked = Message("user", question)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CutWarning)  # said here, before the answer
            reply = self._answer([*self.messages, asked])
        if reply is None:
            return
        if reply.text.strip():
            self.said += [asked, Message("assistant", reply.text)]
        self._tell_of(reply, question)

    def _answer(self, messages: list[Message]) -> Reply | None:
        """What was answered, None where Ctrl-C came before a first word could."""
        replying = None
        try:
            replying = self.conversing.stream(messages, self.request)
            if not self.json and str(replying.sight):
                say(str(replying.sight))
            for piece in replying:
                if not self.json:
                    print(shown(piece), end="", flush=True)
        except KeyboardInterrupt:
            self.interrupted = True
            if replying is None:
                say("stopped; the question is taken back")
                return None
            replying.close()
        return replying.reply

    def _tell_of(self, reply: Reply, question: str) -> None:
        if self.json:
            done = {"question": question, "answer": reply.text, "finish": reply.finish}
            more = {"answer_tokens": len(reply.ids), "notice": reply.notice}
            print_json({**done, **more, **reply.numbers})
            return
        print(flush=True)
        for said in (reply.slides, self._ending(reply)):
            if said:
                say(said)

    def _ending(self, reply: Reply) -> str:
        if not reply.text.strip():
            return "nothing was answered; the question is taken back"
        if reply.finish == "interrupted":
            return "stopped; what was written stays in the conversation"
        if reply.finish != "length":
            return ""
        if len(reply.ids) == self.request.max_new_tokens:
            return f"the answer was cut at {counted(len(reply.ids), 'token')} (--max-new-tokens)"
        return f"the answer was cut at the edge of the context of {reply.sight.context:,} tokens"

    # commands -----------------------------------------------------------------------------------

    def command(self, text: str) -> None:
        name, *more = text.split(maxsplit=1)
        rest = "".join(more).strip()
        if name not in COMMANDS:
            near = get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
            raise InputError(
                f"there is no command {name}; {hint}; // begins a message with a slash"
            )
        takes = COMMANDS[name][0]
        if rest and not takes:
            raise InputError(f"{name} takes nothing behind it, not {rest!r}; leave it out")
        if takes == "FILE":
            if not rest:
                raise InputError(f"{name} needs the name of a file, as in {name} talk.json")
            {"/save": self.save, "/load": self.load}[name](os.path.expanduser(rest))
            return
        {
            "/system": lambda: say(self.tell(rest)),
            "/context": self.context,
            "/undo": self.undo,
            "/reset": self.reset,
            "/help": _help,
            "/quit": self.quit,
        }[name]()

    def tell(self, text: str) -> str:
        """The system message from now on, none for a blank text; and what there is now."""
        told = [Message("system", text)] if text.strip() else []
        conversation([*told, Message("user", "?")], answered=False, name="the system message")
        self.system = told
        return "the system message is set" if self.system else "there is no system message now"

    def undo(self) -> None:
        if not self.said:
            raise InputError("there is nothing to take back yet")
        question, _ = self.said[-2:]
        del self.said[-2:]
        say(f"taken back: {_short(question.content)}")

    def reset(self) -> None:
        say(f"{counted(len(self.said) // 2, 'turn')} forgotten")
        self.said = []

    def quit(self) -> None:
        self.left = True

    def context(self) -> None:
        """What is used, what is left, what goes next."""
        numbers = self.numbers()
        if self.json:
            print_json({"command": "/context", **numbers})
            return
        said = (
            f"{counted(numbers['turns'], 'turn')}, {numbers['read_tokens']:,} tokens used of "
            f"{numbers['context']:,}; {numbers['room']:,} are kept for the answer, "
            f"{numbers['left']:,} are left for the next question"
        )
        if numbers["dropped_turns"]:
            gone = counted(numbers["dropped_turns"], "turn")
            said += f"; {gone} ({numbers['dropped_tokens']:,} tokens) left out already"
        if following := numbers.get("next"):
            said += f"; next to go: {_short(following['question'])}, {following['tokens']:,} tokens"
        if numbers["read_tokens"] > numbers["context"] - numbers["room"]:
            refused = self.request.overflow == "error"
            goes = "is refused" if refused else "takes the place of what was said"
            said += f"; the next question {goes}"
        say(said)

    def numbers(self) -> dict[str, Any]:
        """Of the conversation as it stands. left: tokens for the next question beside an answer.
        next: the turn that goes when more is needed, and the tokens that this frees."""
        conversing, policy = self.conversing, self.request.overflow
        context, room = conversing.context, conversing.room(self.request)
        if not self.said:
            return {**Sight([], 0, 0, 0, room, context, policy).numbers, "left": context - room}
        turns = Turns(conversing.template, self.messages, answered=True)
        sight = turns.look(context, room, policy)
        left = max(0, context - room - len(sight.ids))
        numbers = {**sight.numbers, "turns": sight.turns + 1, "left": left}
        if policy != "error" and sight.turns > sight.dropped:
            question = turns.next(sight.dropped, policy)[0].content
            freed = len(sight.ids) - len(turns.ids(sight.dropped + 1, policy))
            numbers["next"] = {"question": question, "tokens": freed}
        return numbers

    def save(self, path: str) -> None:
        """The messages in one format, which `tercet data show` and training read as well."""
        if not self.said:
            raise InputError("there is no conversation to save yet; ask something first")
        row = {"messages": [asdict(message) for message in self.messages]}
        text = json_files.dumps(row, ensure_ascii=False) + "\n"
        with written(path) as beside:
            packed = beside.suffix.lower() == ".gz"
            beside.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        say(f"{counted(len(self.said) // 2, 'turn')} saved in {path}")

    def load(self, path: str) -> None:
        """What `save` wrote, or a list of messages, in the place of the conversation."""
        text = "\n".join(lines(path))
        try:
            found = json_files.loads(text)
        except (json_files.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path}: not JSON ({error}); load what /save wrote") from error
        inner = found.get("messages", found) if isinstance(found, dict) else found
        read = conversation(inner, answered=True, name=path)
        begin = 1 if read[0].role == "system" else 0
        self.system, self.said = read[:begin], read[begin:]
        say(f"{counted(len(self.said) // 2, 'turn')} loaded from {path}")


def _help() -> None:
    names = {name: f"{name} {takes}".strip() for name, (takes, _) in COMMANDS.items()}
    width = max(map(len, names.values())) + 2
    for name, (_, meaning) in COMMANDS.items():
        print(f"  {names[name]:{width}}{meaning}", file=sys.stderr)
    print(MORE, file=sys.stderr)


def _short(text: str) -> str:
    """The beginning of a message, in a line."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else f"{text[:39]}…")

"""The verb `chat`: the same numbers in Python, from a pipe and in a session; commands, Ctrl-C."""

from __future__ import annotations

import gzip
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from talkers import CONTEXT, Messages, talk, talk_of, talker

import tercet
from tercet import cli
from tercet.data.conversations import conversations
from tercet.errors import InputError
from tercet.generate.grammar import Grammar
from tercet.generate.texts import Request
from tercet.jobs.use.chat import LEAVING, _joined
from tercet.jobs.use.chat_session import COMMANDS, Session
from tercet.language_model.conversing import Conversing
from tercet.text.messages import conversation
from tercet.text.turns import KEEPING

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
STORIES = DATA.parent / "weights" / "stories260K"
NEW = 40
LIMIT = CONTEXT - NEW
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model() -> tercet.LanguageModel:
    return talker()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("talker")
    model.save(place)
    return place


@pytest.fixture
def run(folder, monkeypatch, capsys) -> Run:
    """The verb with lines from a pipe."""

    def chat(said: str | bytes, *args: str) -> tuple[int, str, str]:
        given = said.encode() if isinstance(said, str) else said
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        code = cli.run(["chat", str(folder), *args])
        out, err = capsys.readouterr()
        return code, out, err

    return chat


def objects(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def saved(messages: Messages, path: Path) -> str:
    path.write_text(json.dumps({"messages": messages}))
    return str(path)


# the same numbers everywhere ----------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["error", *KEEPING])
@pytest.mark.parametrize("tokens", [LIMIT - 1, LIMIT, LIMIT + 1, 100 * LIMIT])
def test_the_numbers_are_the_same_in_every_place(policy, tokens, model, run, tmp_path, capsys):
    template = tercet.ChatTemplate.of(model.tokenizer)
    messages = talk_of(template, tokens)
    turns = len(messages) // 2 - 1
    *before, question = messages
    asked = question["content"]
    how = {"max_new_tokens": NEW, "overflow": policy}
    flags = ("--max-new-tokens", str(NEW), "--overflow", policy)
    load = saved(before, tmp_path / "talk.json")

    session = Session(Conversing(model.writer), Request(NEW, overflow=policy))
    session.load(load)
    capsys.readouterr()
    done = session.turn(asked)
    shown, said = capsys.readouterr()
    code, out, err = run(f"{asked}\n", "--load", load, "--json", *flags)
    (row,) = objects(out)

    if policy == "error" and tokens > LIMIT:
        with pytest.raises(InputError, match=f"{tokens:,} tokens, and with 40 for") as caught:
            model.chat(messages, **how)
        refused = str(caught.value)
        assert (code, row["error"], done) == (2, refused, False)
        assert said == f"tercet: {refused}\n" and said in err and not shown
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", tercet.CutWarning)
        reply = model.chat(messages, **how)
    assert [str(one.message) for one in told] == [reply.notice] * bool(reply.notice)
    assert bool(reply.notice) == (tokens > LIMIT)
    assert (code, done, row["answer"], shown) == (0, True, reply.text, f"{reply.text}\n")
    assert row["notice"] == reply.notice and reply.numbers.items() <= row.items()
    assert (f"tercet: {reply.notice}\n" in said) == bool(reply.notice)
    assert row["tokens"] == tokens == row["read_tokens"] + row["dropped_tokens"]
    assert row["read_tokens"] + NEW <= CONTEXT and row["turns"] == turns
    if tokens > LIMIT:
        assert 0 < row["dropped_turns"] < turns
        assert f"{row['dropped_turns']:,} of {turns:,} earlier turns" in reply.notice
        assert f"{row['dropped_tokens']:,} of {tokens:,} tokens" in reply.notice


def test_context_says_what_is_used_and_what_goes_next(model, capsys):
    template = tercet.ChatTemplate.of(model.tokenizer)
    session = Session(Conversing(model.writer), Request(NEW, overflow="keep-end"))
    assert session.turn("/context")
    assert f"0 turns, 0 tokens used of {CONTEXT}; 40 are kept" in capsys.readouterr().err
    messages = talk(4)[1:-1]
    session.said = list(conversation(messages, answered=True))
    whole, later = (len(template.compile(some).ids) for some in (messages, messages[2:]))
    assert session.turn("/context")
    assert capsys.readouterr().err == (
        f"tercet: 4 turns, {whole} tokens used of {CONTEXT}; 40 are kept for the answer, "
        f"{LIMIT - whole} are left for the next question; next to go: 'Who sat 0?', "
        f"{whole - later} tokens\n"
    )
    session.said = session.said * 3
    assert session.turn("/context")
    numbers = session.numbers()
    assert numbers["dropped_turns"] and f"; {numbers['dropped_turns']} turns (" in (
        capsys.readouterr().err
    )
    assert numbers["tokens"] == numbers["read_tokens"] + numbers["dropped_tokens"]
    assert numbers["read_tokens"] <= LIMIT and numbers["turns"] == 12
    session.said = list(conversation(talk(1, "z" * 200)[3:] + messages[1:2], answered=True))
    assert session.turn("/context")
    said = "0 are left for the next question; the next question takes the place of what was said"
    assert said in capsys.readouterr().err


# lines and commands -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message", "rest"),
    [
        (["one", "two"], "one", 1),
        (["one\\", "two\\", "three", "four"], "one\ntwo\nthree", 1),
        (["one\\"], "one", 0),
        (['"""', "one", "", "two\\", '"""', "three"], "one\n\ntwo\\", 1),
        (['"""one', 'two""" more'], "one\ntwo more", 0),
        (['"""one"""', "two"], "one", 1),
        (['"""one', "two"], "one\ntwo", 0),
        ([], None, 0),
    ],
)
def test_messages_of_several_lines(lines, message, rest):
    given = iter(lines)
    assert _joined(lambda prompt: next(given, None)) == message
    assert len(list(given)) == rest


def test_a_pipe_is_a_line_a_turn(run, model, tmp_path):
    code, out, err = run("Who sat?\n\nThe\\\ncat\n//x\n", "--json", "--max-new-tokens", "5")
    first, second, third = objects(out)
    assert code == 0 and ">" not in err
    assert (first["turns"], second["turns"], third["turns"]) == (0, 1, 2)
    assert second["question"] == "The\ncat" and third["question"] == "/x"
    answer = model.chat([{"role": "user", "content": "Who sat?"}], max_new_tokens=5)
    assert (first["answer"], first["finish"]) == (answer.text, "length")
    (tmp_path / "lines.txt").write_text("Who sat?\n")
    code, out, err = run("no", "--file", str(tmp_path / "lines.txt"), "--max-new-tokens", "5")
    assert (code, out) == (0, f"{answer.text}\n")
    assert err == "tercet: the answer was cut at 5 tokens (--max-new-tokens)\n"


def test_a_conversation_is_changed_saved_and_loaded(run, model, folder, tmp_path):
    path = tmp_path / "talks" / "one.jsonl"
    said = f"/system\\\nBe short.\nWho sat?\nAnd then?\n/undo\nThe dog?\n/save {path}\n/quit\nno\n"
    code, out, err = run(said, "--json", "--max-new-tokens", "6")
    assert code == 0 and len(objects(out)) == 3, err
    first, _, third = objects(out)
    messages = json.loads(path.read_text())["messages"]
    expected = ["Be short.", "Who sat?", first["answer"], "The dog?", third["answer"]]
    assert [one["content"] for one in messages] == expected
    assert [one["role"] for one in messages[:3]] == ["system", "user", "assistant"]
    assert third["turns"] == 1 and "taken back: 'And then?'" in err
    assert "2 turns saved in" in err and [p.name for p in path.parent.iterdir()] == [path.name]

    (row,) = conversations(str(path)).conversations  # it can be learned from
    assert [one.content for one in row.messages] == expected
    asked = ("--load", str(path), "--json", "--max-new-tokens", "6")
    code, out, _ = run("Why?\n/reset\nWhy?\n", *asked)
    again, anew = objects(out)
    assert (again["turns"], anew["turns"]) == (2, 0)
    wanted = model.chat([*messages, {"role": "user", "content": "Why?"}], max_new_tokens=6)
    assert again["answer"] == wanted.text
    system = [messages[0], {"role": "user", "content": "Why?"}]
    assert anew["answer"] == model.chat(system, max_new_tokens=6).text
    bare = saved(messages, tmp_path / "bare.json")
    Path(bare).write_text(json.dumps(messages))
    code, out, _ = run("/system\nWhy?\n", "--load", bare, "--json", "--max-new-tokens", "6")
    assert objects(out)[0]["tokens"] < again["tokens"] and code == 0


def test_a_packed_name_is_packed(model, tmp_path, capsys):
    path = tmp_path / "talk.jsonl.gz"
    session = Session(Conversing(model.writer), Request(2))
    session.said = list(conversation(talk(1)[1:3], answered=True))
    before = session.messages
    assert session.turn(f"/save {path}")
    with gzip.open(path, "rt") as file:
        assert len(json.loads(file.read())["messages"]) == 2
    session.turn("/reset")
    assert session.turn(f"/load {path}") and session.messages == before


def test_an_answer_gives_a_terminal_no_commands(model, monkeypatch, capsys):
    answer = "red\x1b[31m\t\n\x7f\x85\r"
    spelled = Grammar.regex(re.escape(answer))
    session = Session(Conversing(model.writer), Request(20, grammar=spelled))
    assert session.turn("Who?") and session.said[-1].content == answer
    assert capsys.readouterr().out == f"{answer}\n"  # a pipe has it as it is
    master, slave = pty.openpty()
    settings = termios.tcgetattr(slave)
    settings[1] &= ~termios.OPOST  # as it is printed
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    with open(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        assert session.turn("Who?")
        terminal.flush()
        wanted, said = "red␛[31m\t\n␡\ufffd␍\n".encode(), b""
        while len(said) < len(wanted) and select.select([master], [], [], 5)[0]:
            said += os.read(master, 100)  # of a busy machine's terminal a part at a time
        assert said == wanted
    os.close(master)


def test_help_names_every_command(run):
    code, out, err = run("/help\n")
    assert code == 0 and out == "" and all(f"  {name}" in err for name in COMMANDS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/sav x", "there is no command /sav; did you mean /save?"),
        ("/Undo", "there is no command /Undo; did you mean /undo?"),
        ("/", "there is no command /; there are /system, /context"),
        ("/undo", "there is nothing to take back yet"),
        ("/undo 3", "/undo takes nothing behind it, not '3'"),
        ("/save", "/save needs the name of a file, as in /save talk.json"),
        ("/save talk.json", "there is no conversation to save yet"),
        ("/load nowhere.json", "nowhere.json: no such file"),
        ("z" * 200, "the question alone has"),
        ("z\\\n" * 200, "the question alone has"),
    ],
)
def test_a_bad_line_is_said_and_the_rest_goes_on(line, said, run):
    code, out, err = run(f"{line}\nWho?\n", "--json", "--max-new-tokens", "2")
    bad, good = objects(out)
    assert code == 2 and said in bad["error"] and f"tercet: {bad['error']}\n" in err
    assert good["turns"] == 0 and good["question"] == "Who?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no JSON", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "expected a list of messages, got dict"),
        ('{"messages": []}', "holds no message"),
        ('[{"role": "user", "content": "a"}]', "has no answer, it ends with user"),
        ('[{"role": "assistant", "content": "a"}]', "message 1: assistant at the beginning"),
        ('[{"role": "bot", "content": "a"}]', "message 1: unknown role 'bot'"),
        ('[{"role": "user", "content": "a \\ud83d"}]', "message 1: the content of user has half"),
    ],
)
def test_a_file_that_is_no_conversation_changes_nothing(text, said, model, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(text)
    session = Session(Conversing(model.writer), Request(2))
    session.turn("Who sat?")
    before = session.messages
    with pytest.raises(InputError, match="bad.json.*" + said.replace(".", r"\.")):
        session.load(str(path))
    assert session.messages == before != []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--overflow", "slide"), "state max_new_tokens"),
        (("--max-new-tokens", "0"), "max_new_tokens 0 must be"),
        (("--temperature", "-1"), "temperature -1"),
        (("--load", "nowhere.json"), "nowhere.json: no such file"),
        (("--stop", ""), "an empty stop string"),
    ],
)
def test_bad_flags_are_a_line(args, said, run):
    code, out, err = run("Who?\n", *args)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


def test_what_is_no_text_is_named(run):
    code, _, err = run(b"Who?\n\xff\n", "--max-new-tokens", "2")
    assert code == 2 and "standard input, line 2: byte 0xff" in err


def test_a_model_of_another_family_is_refused(tmp_path, monkeypatch, capsys):
    from test_language_model import model_for

    model_for("encoder").save(tmp_path)
    assert cli.run(["chat", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "this model (encoder; heads: masked) cannot chat; it can embed, fill" in err


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"no folder {STORIES}")
def test_a_real_model_without_a_template(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Once\nAnd then?\n" * 6)))
    args = ["--json", "--max-new-tokens", "60", "--overflow", "slide", "--temperature", "0.8"]
    assert cli.run(["chat", str(STORIES), *args]) == 0
    out, err = capsys.readouterr()
    rows = objects(out)
    assert err.count("ChatML is taken") == 1 and err.count("\n") == 1
    assert len(rows) == 12 and rows[-1]["dropped_turns"] > 0
    for row in rows:
        assert row["read_tokens"] + row["room"] <= row["context"] == 512
        assert row["tokens"] == row["read_tokens"] + row["dropped_tokens"]


@pytest.mark.parametrize("name", [".", "/", "a\0b"])
def test_a_name_that_no_file_can_have_costs_no_conversation(name, model, capsys):
    session = Session(Conversing(model.writer), Request(2))
    session.said = list(conversation(talk(1)[1:3], answered=True))
    before = session.messages
    assert not session.turn(f"/save {name}") and not session.turn(f"/load {name}")
    assert session.messages == before
    assert capsys.readouterr().err.count("tercet: ") == 2


def test_what_is_half_a_character_is_never_in_the_conversation(model, tmp_path, capsys):
    """As it comes from a terminal of another encoding: the conversation could not be saved."""
    session = Session(Conversing(model.writer), Request(2))
    assert not session.turn("caf\udce9") and not session.turn("/system caf\udce9")
    assert session.messages == [] and "half a surrogate pair" in capsys.readouterr().err
    assert session.turn("Who?") and session.turn(f"/save {tmp_path / 'talk.json'}")


def test_a_typed_line_that_is_no_text_is_said(folder, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    terminal = Terminal(str(folder), "--max-new-tokens", "2")
    terminal.until(terminal.process.stderr, b"> ")
    os.write(terminal.master, b"caf\xe9\n")
    terminal.until(terminal.process.stderr, b"the line is no text")
    terminal.type("Who?\n/quit\n")
    assert terminal.end()[0] and terminal.process.returncode == 0


# Ctrl-C -------------------------------------------------------------------------------------------


class Terminal:
    """The verb at a terminal, for a reader at the other end of it."""

    def __init__(self, *args: str) -> None:
        self.master, slave = pty.openpty()
        settings = termios.tcgetattr(slave)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tercet", "chat", *args],
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            bufsize=0,
        )
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, stream: Any, wanted: bytes, seconds: float = 60) -> bytes:
        """What comes, up to `wanted`."""
        got, end = b"", time.monotonic() + seconds
        while wanted not in got:
            assert time.monotonic() < end, got
            more = os.read(stream.fileno(), 1)
            assert more, got
            got += more
        return got

    def end(self) -> tuple[bytes, bytes]:
        try:
            return self.process.communicate(timeout=60)
        finally:
            os.close(self.master)


@pytest.fixture
def endless(folder, model, tmp_path) -> Iterator[Path]:
    """A model that never ends an answer."""
    place = tmp_path / "endless"
    model.save(place)
    never = {"suppress_tokens": sorted(model.tokenizer.special_ids)}
    (place / "generation_config.json").write_text(json.dumps(never))
    yield place


ENDLESS = ("--temperature", "1", "--overflow", "slide", "--max-new-tokens", "1000000")


def test_control_c_stops_the_answer_and_not_the_program(endless, tmp_path):
    terminal = Terminal(str(endless), *ENDLESS)
    process = terminal.process
    terminal.until(process.stderr, b"> ")
    terminal.type("Who sat?\n")
    assert process.stdout
    shown = os.read(process.stdout.fileno(), 1)
    process.send_signal(signal.SIGINT)
    said = terminal.until(process.stderr, b"> ")
    assert b"stopped; what was written stays" in said, said
    process.send_signal(signal.SIGINT)  # at the prompt
    assert LEAVING.encode() in terminal.until(process.stderr, b"> ")
    terminal.type(f"/save {tmp_path / 'kept.json'}\n")
    assert b"1 turn saved" in terminal.until(process.stderr, b"> ")
    terminal.type("\x04")
    out, err = terminal.end()
    assert process.returncode == 0 and b"Traceback" not in err
    question, answer = json.loads((tmp_path / "kept.json").read_text())["messages"]
    assert question["content"] == "Who sat?"
    assert (shown + out).decode() == answer["content"] + "\n"


def test_control_c_ends_a_pipe(endless):
    running = subprocess.Popen(
        [sys.executable, "-m", "tercet", "chat", str(endless), *ENDLESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert running.stdin and running.stdout
    running.stdin.write(b"Who sat?\nAnd then?\n")
    running.stdin.flush()
    assert running.stdout.read(1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130 and err.decode().endswith("\ntercet: stopped\n"), err
    assert b"Traceback" not in err and out.count(b"\n") < 1_000

"""`tercet evaluate instructions`, and the experiment that shows what following them takes."""

from __future__ import annotations

import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
from small_decoders import save_rows
from small_tables import TEXTS
from small_talks import talker

import tercet
from tercet import cli
from tercet.errors import InputError
from tercet.evaluate.instructions import answers, prompts
from tercet.evaluate.results import read
from tercet.evaluate.significance import mean
from tercet.jobs.reproduce import entries
from tercet.jobs.reproduce.instruct import instruct
from tercet.jobs.reproduce.table import Row

MOST = 12
QUESTIONS = ["red house", "one two three", "over the river", "new road", "the tree", "old"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instructions")
    talker(folder / "talker")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """The command in this process: (exit code, stdout, stderr)."""

    def call(*args: Any) -> tuple[int, str, str]:
        code = cli.run([str(arg) for arg in args])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def told_by_chat(folder: Path) -> list[Any]:
    """The model's own replies, of which it is then asked whether they are what was wanted."""
    model = tercet.load(folder / "talker")
    asked = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [model.chat(messages, max_new_tokens=MOST) for messages in asked]


def test_what_is_said_is_what_chat_answers(place: Path, run, tmp_path: Path) -> None:
    replies = told_by_chat(place)
    texts = [reply.text.strip() for reply in replies]
    wanted = [text if i % 2 else f"{text} no" for i, text in enumerate(texts)]
    rows = [
        {"instruction": question, "output": answer, "kind": ("even", "odd")[i % 2]}
        for i, (question, answer) in enumerate(zip(QUESTIONS, wanted))
    ]
    data = save_rows(tmp_path / "rows.jsonl", rows)
    obeyed = [float(bool(text) and text == answer) for text, answer in zip(texts, wanted)]
    ended = [float(reply.finish == "stop") for reply in replies]
    out = tmp_path / "new" / "kept.json"
    verb = ("evaluate", "instructions", place / "talker", data, "--max-new-tokens", MOST)
    code, said, err = run(*verb, "--json", "--out", out)
    told = json.loads(said)
    assert (code, err, told["rows"], told["cut"]) == (0, "", 6, 0)
    assert sum(obeyed) >= 2  # the model says something
    for metric, column in (("obeyed", obeyed), ("ended", ended)):
        figure, one = mean(column), told["figures"][metric]
        assert (one["value"], one["standard_error"]) == (figure.value, figure.error)
    assert told["groups"]["even"]["obeyed"]["value"] == 0
    assert told["groups"]["odd"]["obeyed"]["value"] == mean(obeyed[1::2]).value
    kept = read(out)
    assert kept.values == {"obeyed": obeyed, "ended": ended}
    assert json.loads(out.read_text())["answers"] == texts

    code, said, _ = run(*verb)
    assert code == 0 and f"obeyed      {mean(obeyed)}" in said
    assert (
        f"\n  odd        3  {mean(obeyed[1::2])}" in said
        and told["groups"]["odd"]["obeyed"]["n"] == 3
    )
    code, said, _ = run("compare", out, out)
    assert code == 0 and "no difference shown" in said
    code, _, err = run(*verb[:-1], MOST - 1, "--out", tmp_path / "cut.json", "--quiet")
    code, _, err = run("compare", out, tmp_path / "cut.json")
    assert code == 2 and "'instructions to 12 tokens' and 'instructions to 11 tokens'" in err
    code, said, _ = run(*verb, "--limit", 1, "--json")
    assert json.loads(said)["rows"] == 1
    assert json.loads(said)["figures"]["obeyed"]["standard_error"] is None
    code, _, err = run(*verb, "--out", data)
    assert code == 2 and f"{data} is what is read, and would be lost" in err


def test_prompts_come_in_every_form(tmp_path: Path) -> None:
    check = {"most_words": 3}
    rows = [
        {"prompt": "Be short.", "check": check},
        {"instruction": "Be short.", "input": "", "check": check},
        {"question": "Be short.", "check": check, "kind": "brief"},
        {"messages": [{"role": "user", "content": "Be short."}], "check": check},
        {"instruction": "Be short.", "input": "", "output": "Yes.", "check": check},
    ]
    found = prompts(save_rows(tmp_path / "rows.jsonl", rows))
    assert [[message.content for message in one.messages] for one in found] == [["Be short."]] * 5
    assert [one.check for one in found] == [check] * 5 and len({one.key for one in found}) == 1
    assert [one.kind for one in found] == ["", "", "brief", "", ""]
    (below,) = prompts(
        save_rows(tmp_path / "one.jsonl", [{"instruction": "A", "input": "b", "check": check}])
    )
    assert below.messages[0].content == "A\n\nb"

    # what stands beside a question is asked too, and an answer that is there is not needed
    message = {"role": "user", "content": "Be short."}
    rows = [
        {"prompt": [message], "check": check},
        {"conversations": [{"from": "human", "value": "Be short."}], "check": check},
        {"prompt": "Be short.", "response": "", "check": check},
        {"prompt": "Be short.", "chosen": "Yes.", "rejected": "Yes, yes.", "check": check},
        {"question": "Be short.", "response": "No.", "check": {**check, "equals": None}},
    ]
    found = prompts(save_rows(tmp_path / "open.jsonl", rows))
    assert [[message.content for message in one.messages] for one in found] == [["Be short."]] * 5
    assert len({one.key for one in found}) == 1
    beside = {"system": "You are a tree.", "context": "a larch", "check": check}
    for answered in ({}, {"response": "No."}):
        row = {"instruction": "What are you?", **beside, **answered}
        (one,) = prompts(save_rows(tmp_path / "one.jsonl", [row]))
        assert [(message.role, message.content) for message in one.messages] == [
            ("system", "You are a tree."),
            ("user", "What are you?\n\na larch"),
        ]

    talk = [{"role": r, "content": r} for r in ("system", "user", "assistant")]
    (answered,) = prompts(save_rows(tmp_path / "talk.jsonl", [{"messages": talk}]))
    assert answered.check == {"equals": "assistant"} and answered.messages[-1].role == "user"
    (tmp_path / "t.csv").write_text('prompt,check\nSay b.,"{""equals"": ""b""}"\n')
    assert prompts(str(tmp_path / "t.csv"))[0].check == {"equals": "b"}
    (tmp_path / "t.csv").write_text(
        'prompt,response,check\nSay b.,,"{""contains"": ""b""}"\nSay c.,c,\n'
    )
    assert [one.check for one in prompts(str(tmp_path / "t.csv"))] == [
        {"contains": "b"},
        {"equals": "c"},
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "Why?"}, "row 2|line 2.*no answer to compare with; give one, or a check"),
        ({"text": "Why?", "check": {"json": True}}, "none asks; call one prompt"),
        ({"prompt": "Why?", "check": {"nothing": 1}}, "check 'nothing' is unknown"),
        ({"prompt": "Why?", "check": "{"}, "is not JSON"),
        ({"prompt": " ", "check": {"json": True}}, "the content of user is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "no answer to compare with"),
        ({"prompt": 3, "check": {"json": True}}, "int 3, not a list of messages"),
        ({"instruction": "a", "input": {"b": 1}, "check": {"json": True}}, "'input' is dict"),
        ({"messages": "[{}]", "check": {"json": True}}, "has no answer"),
        ({"prompt": "a", "check": {"equals": "\ud800"}}, "the check has half a surrogate pair"),
        (
            {"prompt": "a", "check": {"json": True}, "kind": "\ud800"},
            "the kind has half",
        ),
        ({"prompt": "a", "check": {"json": True}, "kind": ["b"]}, "kind is list"),
    ],
)
def test_bad_rows_are_refused_with_their_line(
    row: dict[str, Any], said: str, tmp_path: Path
) -> None:
    good = {"prompt": "Say a.", "check": {"equals": "a"}}
    path = save_rows(tmp_path / "rows.jsonl", [good, row])
    with pytest.raises(InputError, match=said) as caught:
        prompts(path)
    assert str(caught.value).startswith(f"{path}, line 2")


def test_what_cannot_be_asked_is_said_in_a_line(place: Path, run, tmp_path: Path) -> None:
    data = save_rows(tmp_path / "long.jsonl", [{"prompt": "red " * 200, "check": {"json": True}}])
    code, _, err = run("evaluate", "instructions", place / "talker", data)
    assert code == 2 and f"{data}, line 1" in err and err.count("\n") == 1
    short = {"prompt": "red", "check": {"json": True}}
    asked = prompts(save_rows(tmp_path / "both.jsonl", [short, {**short, "prompt": "red " * 200}]))
    answered: list[int] = []
    with pytest.raises(InputError, match="both.jsonl, line 2"):
        model = tercet.load(place / "talker")
        answers(model, asked, max_new_tokens=8, watch=lambda done, total: answered.append(done))
    assert not answered  # nothing is lost to what could be known before
    with pytest.raises(InputError, match="^max_new_tokens 0 must"):
        answers(model, asked[:1], max_new_tokens=0)
    (tmp_path / "none.jsonl").write_text("")
    code, _, err = run("evaluate", "instructions", place / "talker", tmp_path / "none.jsonl")
    assert code == 2 and "holds no rows" in err


def test_kinds_of_strangers_are_cells_of_a_table(place: Path, run, tmp_path: Path) -> None:
    kinds = ["\x1b[31mred\nhouse", "k" * 39 + "ab", "k" * 39 + "cd", 3]
    rows = [{"prompt": "red", "check": {"json": True}, "kind": kind} for kind in kinds]
    data = save_rows(tmp_path / "rows.jsonl", rows)
    verb = ("evaluate", "instructions", place / "talker", data, "--max-new-tokens", 2)
    code, said, _ = run(*verb)
    cells = [line[2:42].strip() for line in said.splitlines()[1:5]]
    assert cells == ["\\x1b[31mred\\nhouse", *["k" * 39 + "…"] * 2, "3"] and code == 0
    _, said, _ = run(*verb, "--json")
    assert list(json.loads(said)["groups"]) == [str(kind) for kind in kinds]


def test_turns_that_did_not_fit_are_counted(place: Path, run, tmp_path: Path) -> None:
    talk: list[dict[str, str]] = []
    for number in range(20):
        talk.append({"role": "user", "content": f"red house {number}"})
        talk.append({"role": "assistant", "content": "the old tree"})
    talk.append({"role": "user", "content": "old"})
    data = save_rows(tmp_path / "talk.jsonl", [{"messages": talk, "check": {"least_words": 1}}])
    verb = ("evaluate", "instructions", place / "talker", data, "--max-new-tokens", 8, "--quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, said, _ = run(*verb, "--json")
    told = json.loads(said)
    assert code == 0 and told["cut"] == 1 and told["tokens_lost"] > 0
    _, _, err = run(*verb)
    assert f"{told['tokens_lost']:,} tokens" in err


# the experiment -----------------------------------------------------------------------------------

BASE = """
model:
  preset: tercet-tiny-decoder
  change: {d_model: 32, d_ff: 48, n_heads: 2, decoder_layers: 2, context_length: 128}
tokenizer: {kind: bpe, vocab_size: 330}
data: {files: ["FOLDER/texts.txt"], validation: 0.2, split: line}
objective: {length: 32}
batch: {tokens: 300}
train: {steps: 4}
evaluate: {every: 4}
"""


def small_entry(folder: Path) -> dict[str, Any]:
    """The shipped experiment with other files, and steps of milliseconds."""
    draw = list(range(24))
    text = [f"The river {i} sees an old house. One road takes over the tree." for i in draw]
    (folder / "texts.txt").write_text("\n".join([*TEXTS, *text]) + "\n")
    talks = [
        {"instruction": f"What is tree {i}?", "response": "It is a tree. It is red. So it is."}
        for i in draw
    ]
    data = save_rows(folder / "talks.jsonl", talks)
    (folder / "base.yaml").write_text(BASE.replace("FOLDER", str(folder)))
    entry = copy.deepcopy(entries()["instruct"])
    entry["base"] = {"folder": str(folder / "base"), "recipe": str(folder / "base.yaml")}
    rules = {"how": "rules", "file": str(folder / "texts.txt"), "each": 3}
    parts = {"": [0, 16], "-validation": [16, 20]}
    entry["tables"] = {
        "held-out": [{**rules, "seed": 1, "each": 1}],
        "open": [{"how": "open", "file": data, "rows": [20, 24]}],
        **{f"rules{name}": [rules] for name in parts},
        "short": [{**rules, "kinds": ["last word", "next word"]}],
        **{
            f"talks{n}": [{"how": "talks", "file": data, "words": 50, "rows": r}]
            for n, r in parts.items()
        },
        **{f"pairs{n}": [{"how": "shorter", "file": data, "rows": r}] for n, r in parts.items()},
    }
    entry["max_new_tokens"] = {"asked": 6, "open": 8}
    for stage in entry["stages"].values():
        stage["train"]["steps"] = 4
        stage["batch"]["tokens"] = 400
        stage["objective"]["length"] = 96
    return entry


def named(rows: list[Row], begin: str) -> list[Row]:
    found = [row for row in rows if row.measure.strip().startswith(begin)]
    assert found, [row.measure for row in rows]
    return found


def test_the_worked_example_end_to_end(tmp_path: Path) -> None:
    entry, out = small_entry(tmp_path), tmp_path / "out"
    rows = instruct(entry, out, True)
    assert [row.measure.rpartition(": ")[2] for row in named(rows, "prompts obeyed")] == [
        *("base", "tuned", "aligned")
    ]
    assert len(named(rows, "turns ended")) == len(named(rows, "answered in one sentence")) == 3
    (kind,) = named(rows, "repeat")
    assert "1 prompts" in kind.note
    (perplexity,) = named(rows, "perplexity")
    assert perplexity.ours == pytest.approx(perplexity.theirs, rel=1e-5)
    (logged,) = [
        json.loads(line)["perplexity"]
        for line in (out / "tuned" / "log.jsonl").read_text().splitlines()
        if '"evaluation"' in line and json.loads(line)["step"] == 4
    ]
    assert perplexity.ours == pytest.approx(logged, rel=1e-5) and math.isfinite(logged)

    files = [out / f"{name}-{table}.json" for name in ("base", "tuned", "aligned")
             for table in ("asked", "open")]  # fmt: skip
    logs = [out / name / "log.jsonl" for name in ("begun", "tuned", "aligned")]
    before = [path.read_bytes() for path in [*files, *logs]], [p.stat().st_mtime for p in files]
    files[0].unlink()  # stopped, say, while it was asked: the rest stands
    again = instruct(entry, out, True)
    assert [row.plain() for row in again] == [row.plain() for row in rows]
    assert [path.read_bytes() for path in [*files, *logs]] == before[0]
    assert [p.stat().st_mtime for p in files][1:] == before[1][1:]
    entry["tables"]["talks"][0]["rows"] = [0, 12]  # another table: what learned from it is no more
    with pytest.raises(InputError, match=r"begun was begun with other contents of data\.talks"):
        instruct(entry, out, True)

"""Readers of conversations, what is refused before anything is learned, and `data show --model`."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path

import pytest
from chat_templates import FAMILIES
from small_tables import model_folder

from tercet import cli
from tercet.data.compiled import Counts, check, compiled
from tercet.data.conversations import Conversation, Preference, conversations
from tercet.errors import InputError
from tercet.jobs.data.conversations import _coloured
from tercet.text import Special, train_tokenizer
from tercet.text.chat import ChatTemplate, Compiled
from tercet.text.messages import Message

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("TERCET_DATA", ROOT.parent / "shared" / "data"))


def written(folder: Path, *rows: object, name: str = "rows.jsonl") -> str:
    path = folder / name
    text = json.dumps(rows) if ".json" in name and ".jsonl" not in name else ""
    text = text or "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return str(path)


def said(row: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in row.messages]


TWO = [("user", "a"), ("assistant", "b")]
MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SPOKEN = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


@pytest.mark.parametrize(
    ("form", "row", "expected"),
    [
        ("alpaca", {"instruction": "a", "input": "", "output": "b"}, TWO),
        (
            "alpaca",
            {"instruction": "a", "input": "x", "output": "b", "system": "s"},
            [("system", "s"), ("user", "a\n\nx"), ("assistant", "b")],
        ),
        ("dolly", {"instruction": "a", "response": "b", "category": "qa"}, TWO),
        (
            "dolly",
            {"instruction": "a", "context": "x\n", "response": "b"},
            [("user", "a\n\nx"), ("assistant", "b")],
        ),
        ("sharegpt", {"id": 1, "conversations": SPOKEN}, TWO),
        ("sharegpt", {"conversations": SPOKEN, "system": "s"}, [("system", "s"), *TWO]),
        ("messages", {"messages": MESSAGES}, TWO),
        ("messages", {"messages": MESSAGES, "tools": None}, TWO),
        ("prompt", {"prompt": "a", "response": "b"}, TWO),
        ("prompt", {"prompt": "a", "completion": "b"}, TWO),
        ("cards", {"question": "a", "answer": "b"}, TWO),
        ("self-instruct", {"instruction": "a", "instances": [{"input": "", "output": "b"}]}, TWO),
    ],
)
def test_the_form_is_known_by_its_columns(form, row, expected, tmp_path):
    read = conversations(written(tmp_path, row))
    assert read.form.name == form and [said(one) for one in read.conversations] == [expected]
    assert str(read).startswith(f"1 conversations, read as {form} (")
    assert read.rows[0].where == f"{tmp_path}/rows.jsonl, line 1" + (
        ", instance 1" if form == "self-instruct" else ""
    )
    named = conversations(written(tmp_path, row, name="rows.json.gz"), form=form)
    assert [said(one) for one in named.conversations] == [expected]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {
            "prompt": MESSAGES[:1],
            "chosen": MESSAGES[1:],
            "rejected": MESSAGES[1] | {"content": "c"},
        },
        {"chosen": MESSAGES, "rejected": [MESSAGES[0], MESSAGES[1] | {"content": "c"}]},
        {
            "prompt": "a",
            "chosen": MESSAGES,
            "rejected": [MESSAGES[0], {"from": "gpt", "value": "c"}],
        },
        {
            "conversations": SPOKEN[:1],
            "chosen": SPOKEN[1],
            "rejected": {"from": "gpt", "value": "c"},
        },
    ],
)
def test_pairs_of_answers_in_all_their_spellings(row, tmp_path):
    read = conversations(written(tmp_path, row))
    one = read.preferences[0]
    assert one.prompt == (Message("user", "a"),)
    assert (one.chosen.content, one.rejected.content) == ("b", "c")
    assert [row.where[-8:] for row in read.conversations] == [", chosen", "rejected"]
    assert said(read.conversations[0]) == TWO


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "a"}, "line 2: has columns text, not those of messages"),
        ({"messages": MESSAGES[:1]}, "line 2: has no answer, it ends with user"),
        ({"messages": MESSAGES[::-1]}, "line 2, message 1: assistant at the beginning"),
        (
            {"messages": [{"role": "robot", "content": "a"}]},
            "line 2, message 1: unknown role 'robot'",
        ),
        ({"messages": "a"}, "line 2: has no answer"),
        ({"messages": 3}, "line 2: int 3, not a list of messages"),
        (
            {"messages": [MESSAGES[0], {"role": "assistant", "content": ""}]},
            "line 2, message 2: the",
        ),
        ("{", "line 2: not JSON"),
    ],
)
def test_damaged_rows_are_named(row, expected, tmp_path):
    with pytest.raises(InputError, match=r"rows\.jsonl, ") as caught:
        conversations(written(tmp_path, {"messages": MESSAGES}, row))
    assert expected in str(caught.value)


def test_what_no_form_fits_and_what_is_no_choice(tmp_path):
    with pytest.raises(
        InputError, match="line 1: columns q are those of no known form: preference"
    ):
        conversations(written(tmp_path, {"q": "a"}))
    with pytest.raises(
        InputError, match="no form 'alpacca' of conversations; did you mean 'alpaca'"
    ):
        conversations(written(tmp_path, {"q": "a"}), form="alpacca")
    with pytest.raises(InputError, match="columns q, not those of alpaca"):
        conversations(written(tmp_path, {"q": "a"}), form="alpaca")
    with pytest.raises(InputError, match="chosen and rejected are the same, 'b'"):
        conversations(written(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "b\n"}))
    with pytest.raises(InputError, match="line 1, rejected: begins otherwise than its prompt"):
        other = [MESSAGES[0] | {"content": "x"}, MESSAGES[1] | {"content": "c"}]
        conversations(written(tmp_path, {"chosen": MESSAGES, "rejected": other}))
    with pytest.raises(InputError, match="holds a dict, not a list of rows"):
        Path(tmp_path / "one.json").write_text("{}")
        conversations(tmp_path / "one.json")
    with pytest.raises(InputError, match="holds no conversation"):
        conversations(written(tmp_path, name="none.jsonl"))


@pytest.mark.parametrize(
    ("name", "form", "count"),
    [
        ("alpaca-1k", "alpaca", 999),
        ("dolly-6400-nocontext", "dolly", 6400),
        ("dolly-hhrlhf-small", "prompt", 1000),
        ("dpo-300", "preference", 300),
        ("self-instruct", "self-instruct", 427),
        ("flashcards", "cards", 21),
    ],
)
def test_real_files(name, form, count):
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not there; set TERCET_DATA")
    read = conversations(DATA / name)
    assert (read.form.name, len(read.rows)) == (form, count)
    assert all(isinstance(row, Preference) == (form == "preference") for row in read.rows)


# what is learned ----------------------------------------------------------------------------------

ENDS = Special({"bos": "<s>", "eos": "</s>", "unk": "<unk>"}, extra=("<|eot_id|>",))
TOKENIZER = train_tokenizer(["the cat sat on the mat"], vocab_size=300, special=ENDS)
ROW = Conversation(tuple(Message(**one) for one in MESSAGES), "rows.jsonl, line 4")
EACH = "{% for m in messages %}"
MARKED = "{% generation %}{{ m.content }}{% endgeneration %}"
HEADED = "{% generation %}<s>it<|eot_id|>{{ m.content }}{% endgeneration %}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            EACH + "{% if m.role == 'system' %}" + MARKED + "{% endif %}{% endfor %}",
            "nothing of it",
        ),
        (EACH + MARKED + "</s>{% endfor %}", "no special token would be learned at the end"),
        (EACH + HEADED + "</s>{% endfor %}", "no special token would be learned at the end"),
        ("<s>{{ bos_token }}" + EACH + "{{ m.content }}</s>{% endfor %}", "begins with <s> twice"),
    ],
)
def test_what_would_be_learned_wrongly_without_a_word_is_refused(source, expected):
    with pytest.raises(InputError, match=r"^rows\.jsonl, line 4: ") as caught:
        list(compiled([ROW], ChatTemplate(source, TOKENIZER)))
    assert expected in str(caught.value)


def test_good_conversations_pass_and_are_counted():
    template = ChatTemplate(FAMILIES["llama3"].unmarked, TOKENIZER)
    rows = list(compiled([ROW, ROW], template))
    check(rows[0], template)
    counts = Counts.of(rows, context=10)
    assert counts == Counts(2, 2, 2 * len(rows[0].ids), 4, len(rows[0].ids), 2, 10)
    assert Counts.of([Compiled([1, 2, 3], [True, False, True])], None).turns == 2
    share = 100 * 4 / counts.tokens
    assert str(counts) == (
        f"2 conversations, 2 turns; 4 of {counts.tokens} tokens learned ({share:.0f} %); longest "
        f"{counts.longest}; 2 beyond the context of 10"
    )


# the verb -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A decoder's folder, with a template of its own."""
    folder = model_folder(tmp_path_factory.mktemp("model"), "tercet-tiny-decoder")
    TOKENIZER.with_special((), chat_template=FAMILIES["llama3"].unmarked).save(folder)
    return folder


def test_show_prints_what_is_learned(model, tmp_path, capsys):
    file = written(
        tmp_path, *[{"instruction": f"Who sat {i}?", "output": "a cat"} for i in range(5)]
    )
    assert cli.run(["data", "show", file, "--model", str(model), "--rows", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.count("assistant<|end_header_id|>\n\n⟦a cat<|eot_id|>⟧") == 2
    assert "5 conversations, 5 turns; " in out and "Who sat 1?" in out and "sat 2?" not in out
    assert "read as alpaca (instruction, output)" in err
    assert "does not say what is learned" in err


def test_show_colours_what_is_learned(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = written(tmp_path, {"prompt": "Who?", "response": "a cat"})
    assert cli.run(["data", "show", file, "--model", str(model)]) == 0
    out = capsys.readouterr().out
    assert "\x1b[1;32ma cat<|eot_id|>\x1b[0m" in out and "⟦" not in out


def test_what_is_shown_of_many_turns_takes_no_square_of_them():
    """Each stretch used to decode all before it again: of a thousand turns, minutes."""
    turns = [Message("user", "the cat"), Message("assistant", "the mat é")] * 600
    template = ChatTemplate(FAMILIES["llama3"].unmarked, TOKENIZER)
    one = template.compile(turns)
    begun = time.process_time()
    shown = _coloured(one, TOKENIZER, marks=True).plain
    assert time.process_time() - begun < 10
    assert shown.count("⟦the mat é<|eot_id|>⟧") == 600
    assert shown.replace("⟦", "").replace("⟧", "") == TOKENIZER.decode(one.ids, skip_special=False)


def test_show_gives_ids_tokens_and_mask(model, tmp_path, capsys):
    file = written(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c"})
    assert cli.run(["data", "show", file, "--model", str(model), "--json"]) == 0
    chosen, rejected, counts = map(json.loads, capsys.readouterr().out.splitlines())
    template = ChatTemplate.of(
        TOKENIZER.with_special((), chat_template=FAMILIES["llama3"].unmarked)
    )
    ids, mask = template.compile(MESSAGES)
    assert (chosen["ids"], chosen["mask"]) == (ids, mask)
    assert chosen["tokens"] == TOKENIZER.pieces(ids) and rejected["ids"] != ids
    assert counts["template"] == template.hash and counts["form"] == "preference"
    assert counts["conversations"] == counts["turns"] == 2


def test_show_says_what_is_wrong(model, tmp_path, capsys):
    file = written(tmp_path, {"messages": MESSAGES[:1]})
    assert cli.run(["data", "show", file, "--model", str(model)]) == 2
    assert "line 1: has no answer, it ends with user" in capsys.readouterr().err
    assert cli.run(["data", "show", file, "--model", str(model), "--rows", "-1"]) == 2
    assert cli.run(["data", "show", file, "--model", str(tmp_path / "none")]) == 2
    capsys.readouterr()
    assert cli.run(["data", "show", file]) == 2
    assert "is a file; to see conversations name a model, --model M" in capsys.readouterr().err

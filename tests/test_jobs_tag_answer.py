"""The verbs `tag` and `answer` on small models, as the command runs them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tercet import cli
from tercet.config import TransformerConfig
from tercet.hf import Extras
from tercet.language_model import LanguageModel, load
from tercet.model import build
from tercet.text import train_tokenizer

TEXT = "Ada Lovelace met Mr. Babbage in London. She didn't know the naïve café."


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    tokenizer = train_tokenizer([TEXT] * 3, kind="wordpiece", vocab_size=200, special="encoder")
    found = {}
    for head, labels in {"tagger": ("O", "B-person", "I-person"), "span": ()}.items():
        config = TransformerConfig(
            vocab_size=tokenizer.vocab_size,
            context_length=64,
            d_model=16,
            d_ff=32,
            n_heads=2,
            encoder_layers=1,
            token_types=2,
            heads=(head,),
            n_labels=len(labels) or 2,
        )
        folder = tmp_path_factory.mktemp("models") / head
        LanguageModel(build(config, 1), tokenizer, Extras(labels=labels)).save(folder)
        found[head] = str(folder)
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    def command(*args: str) -> tuple[int, str, str]:
        code = cli.run(args)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def test_tag_prints_what_the_method_finds(folders, run) -> None:
    found = load(folders["tagger"]).tag(TEXT)
    code, out, _ = run("tag", folders["tagger"], TEXT)
    lines = out.splitlines()
    assert code == 0 and len(lines) == len(found) + 1
    for line, tag in zip(lines, found):
        assert line.split()[1:3] == [tag.tag, f"{tag.start}-{tag.end}"] and line.endswith(tag.text)
    code, out, _ = run("tag", folders["tagger"], "the  café .", "--words", "--json")
    (row,) = map(json.loads, out.splitlines())
    assert [tag["text"] for tag in row["tags"]] == ["the", "café", "."]
    assert {"tag", "start", "end", "probability"} <= set(row["tags"][0])


def test_tag_reads_a_file_and_says_which_line_is_empty(folders, run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{TEXT}\n \nMr. Babbage\n", encoding="utf-8")
    code, out, err = run("tag", folders["tagger"], "--file", str(tmp_path / "a.txt"), "--json")
    assert code == 2 and err == "tercet: text 2: is empty\n"
    assert [json.loads(line)["text"] for line in out.splitlines()] == [TEXT, "Mr. Babbage"]


def test_answer_prints_what_the_method_finds(folders, run, tmp_path: Path, monkeypatch) -> None:
    best = load(folders["span"]).answer("Who?", TEXT, n_best=3)
    question = ("answer", folders["span"], "--question", "Who?")
    code, out, _ = run(*question, "--context", TEXT, "--n-best", "3")
    assert code == 0 and [line.split()[1] for line in out.splitlines()] == [
        f"{answer.start}-{answer.end}" for answer in best
    ]
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    _, out, _ = run(*question, "--file", str(tmp_path / "a.txt"), "--json")
    (answer,) = json.loads(out)["answers"]
    assert (answer["text"], answer["start"]) == (best[0].text, best[0].start)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert run(*question, "--file", "-")[1].rstrip().endswith(best[0].text)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["answer", "span", "--question", "Who?"], "give --context TEXT or --file FILE, not neith"),
        (["answer", "span", "--question", "", "--context", TEXT], "the question is empty"),
        (["answer", "span", "--question", "a", "--context", ""], "the context of the question is"),
        (["answer", "tagger", "--question", "a", "--context", "b"], "cannot answer; it can"),
        (["tag", "span", TEXT], "cannot tag; it can"),
        (["tag", "tagger"], "give a TEXT or --file FILE, not neither"),
        (["tag", "tagger", "  "], "text 1 is empty"),
    ],
)
def test_mistakes_are_a_line(args: list[str], said: str, folders, run) -> None:
    code, out, err = run(args[0], folders[args[1]], *args[2:])
    assert code == 2 and not out
    assert said in err and err.count("\n") == 1

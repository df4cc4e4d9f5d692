"""What a step read, from the run's folder: its very texts, where they lie, and what was masked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import train_small

from tercet import cli
from tercet.jobs.train.run import Run

SOURCES = """{{
one: {{files: [{folder}/texts.txt], split: line, validation: 0.2, weight: 3}},
two: {{files: [{folder}/more.txt], split: line, validation: 0.2}}}}"""
ENCODER = (
    "model.preset=tercet-tiny-encoder",
    "model.change={d_model: 32, d_ff: 64, n_heads: 2, encoder_layers: 1, context_length: 32}",
    "tokenizer={kind: wordpiece, vocab_size: 200}",
    "objective={kind: masked, length: 24, whole_words: true}",
    "evaluate.prompts=[]",
    "train.steps=2",
)


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]):
    """The verb: its exit code, what it prints, what it says beside that."""

    def call(verb: str, *args: object) -> tuple[int, str, str]:
        code = cli.run(["data", verb, *map(str, args)])
        out, beside = capsys.readouterr()
        return code, out, beside

    return call


def test_a_step_is_shown_as_it_was_read(tmp_path: Path, show):
    """Two sources: every text of the step, in order, below the file and document it came from."""
    lines = [f"Another {i} altogether.\n" for i in range(40)]
    (tmp_path / "more.txt").write_text("".join(lines))
    data = SOURCES.format(folder=tmp_path).replace("\n", " ")
    folder = train_small(tmp_path, f"data={data}", "train.steps=4")
    code, out, _ = show("show", folder, "--step", 2, "--json")
    read = [json.loads(line) for line in out.splitlines()]
    run = Run.open(folder)
    samples = run.stream().samples(2)
    assert code == 0 and [row["key"] for row in read] == [list(s.key) for s in samples]
    files = {"one": (tmp_path / "texts.txt").read_text(), "two": "".join(lines)}
    for row in read:
        name, number = row["origin"].split(", document ")
        source = "two" if name.endswith("more.txt") else "one"
        document = files[source].splitlines()[int(number) - 1]
        assert row["text"].replace("<|endoftext|>", "") in document and row["text"]
        assert row["from"] == 0 or document.index(row["text"]) == row["from"] - 1  # bytes
    assert {row["origin"].split(",")[0][-8:] for row in read} == {"exts.txt", "more.txt"}
    code, out, _ = show("show", folder, "--step", 2)
    assert out.count("== ") == len(read) and read[0]["text"] in out
    assert f"{read[0]['origin']}, from its token {read[0]['from']} on" in out
    assert show("show", folder)[1].startswith(f"{folder / 'data'}: text")


def test_what_a_run_masks(tmp_path: Path, show, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tercet.jobs.data.masks.COUNTED", 20_000)
    folder = train_small(tmp_path, *ENCODER)
    code, _, beside = show("masks", folder)
    assert code == 0 and f"{folder / 'masks.html'}: open it" in beside
    page = (folder / "masks.html").read_text(encoding="utf-8")
    assert "texts.txt, document" in page
    code, _, beside = show("masks", folder, "--rate", "0.3")
    assert code == 2 and f"try others on {folder / 'data'}" in beside
    code, out, _ = show("show", folder, "--step", 0)
    assert "nothing is lost" in out.lower()


def test_what_cannot_be_shown(tmp_path: Path, show):
    folder = train_small(tmp_path, "train.steps=1")
    code, _, beside = show("show", folder / "data", "--step", 1)
    assert code == 2 and "give a run folder" in beside
    code, _, beside = show("show", folder, "--step", 1, "--document", 2)
    assert code == 2 and "without --document" in beside
    code, _, beside = show("masks", folder)
    assert code == 2 and "next-token, masks nothing" in beside

"""`tercet evaluate perplexity`: the figures of the measures, and what stands beside them."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
import torch

import tercet
from tercet import cli
from tercet.config import TransformerConfig
from tercet.evaluate.perplexity import cost_by_position, held_out, loss
from tercet.model import build
from tercet.text import train_tokenizer
from tercet.train import progress

OWN, LONGER = 64, 128
TEXTS = ["the cat sat on the mat while the dog slept " * 9, "a mat the dog sat on\n" * 4]
VERB = ("evaluate", "perplexity")


def saved(path: Path, family: str) -> str:
    special = "encoder" if family == "encoder" else "decoder"
    tokenizer = train_tokenizer(TEXTS, kind="characters", special=special)
    layers = {"encoder_layers" if family == "encoder" else "decoder_layers": 2}
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        context_length=OWN,
        d_model=64,
        d_ff=64,
        n_heads=4,
        positions="rotary",
        norm="rms",
        init_std=0.5,  # so that few bits and stretched positions make a difference
        heads=("masked",) if family == "encoder" else ("language",),
        **layers,
    )
    tercet.LanguageModel(build(config, seed=0), tokenizer).save(path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("decoder"), "decoder")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    place = tmp_path_factory.mktemp("texts")
    (place / "one.txt").write_text(TEXTS[0])
    with gzip.open(place / "two.txt.gz", "wt") as packed:
        packed.write(TEXTS[1])
    return str(place / "one.txt"), str(place / "two.txt.gz")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """The command in this process: (exit code, stdout, stderr)."""

    def call(*args: str) -> tuple[int, str, str]:
        code = cli.run([*VERB, *args])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_the_figures_are_those_of_the_measures(folder: str, files, run):
    model = tercet.load(folder)
    held = held_out(model.tokenizer, TEXTS)
    nats = loss(model.network, held.tokens, OWN, documents=held.documents)
    n_bytes = sum(map(len, TEXTS))
    code, out, err = run(folder, *files, "--json")
    told = json.loads(out)
    assert code == 0 and err == ""
    assert told["perplexity"] == pytest.approx(math.exp(nats))
    assert told["nats_per_token"] == pytest.approx(nats)
    assert (told["tokens"], told["bytes"], told["context"]) == (held.n_targets, n_bytes, OWN)
    bits = nats * held.n_targets / math.log(2) / n_bytes
    assert told["bits_per_byte"] == pytest.approx(bits)
    assert told["references"] == [] and "by_position" not in told

    code, out, _ = run(folder, *files)
    assert code == 0 and out.splitlines() == [
        f"perplexity    {math.exp(nats):,.2f}",
        f"nats a token  {nats:.4f}",
        f"bits a byte   {bits:.4f}",
        f"{held.n_targets:,} tokens, {n_bytes:,} bytes; windows of 64 tokens slide by half",
    ]


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
def test_beside_few_bits_stands_what_was_lost(precision: str, folder: str, files, run):
    plain = json.loads(run(folder, *files, "--json")[1])["perplexity"]
    how = (folder, *files, "--precision", precision)
    told = json.loads(run(*how, "--json")[1])
    (reference,) = told["references"]
    assert (told["name"], reference["name"]) == (precision, "float32")
    assert reference["perplexity"] == pytest.approx(plain, rel=1e-6)
    assert told["perplexity"] != pytest.approx(plain, rel=1e-6)
    change = f"{100 * (told['perplexity'] / plain - 1):+.1f} %"
    first = run(*how)[1].splitlines()[0]
    assert first == f"perplexity    {told['perplexity']:,.2f}, float32 {plain:,.2f}: {change}"


def test_by_position_beside_the_own_context(folder: str, files, run):
    """The own context slides over the same tokens."""
    code, out, err = run(folder, *files, "--context", "128", "--by-position", "--json")
    told = json.loads(out)
    assert code == 0 and (told["context"], told["name"]) == (LONGER, "float32"), err
    rows = {(row["first"], row["last"]): row for row in told["by_position"]}
    assert [*rows] == [(1, 31), (32, 63), (64, 128)]
    n_windows = len(TEXTS[0]) // LONGER  # the second text is shorter than a window
    assert [row["tokens"] for row in rows.values()] == [n * n_windows for n in (31, 32, 65)]

    model, longer = tercet.load(folder), tercet.load(folder, context=LONGER)
    held = held_out(model.tokenizer, TEXTS)
    (beside,) = told["references"]
    assert (beside["name"], beside["context"]) == ("context 64", OWN)
    for network, length, found in (
        (longer.network, LONGER, rows),
        (model.network, OWN, {(row["first"], row["last"]): row for row in beside["by_position"]}),
    ):
        wanted = cost_by_position(
            network, held.tokens, length, documents=held.documents, piece=LONGER
        )
        assert {place: row["nats_per_token"] for place, row in found.items()} == pytest.approx(
            {place: cost.loss for place, cost in wanted.items()}
        )

    lines = run(folder, *files, "--context", "128", "--by-position")[1].splitlines()
    assert ", context 64 " in lines[0] and lines[5].split() == [
        *("tokens", "before", "tokens", "perplexity", "context", "64")
    ]
    for line, ((first, last), ours), theirs in zip(
        lines[6:], rows.items(), beside["by_position"], strict=True
    ):
        assert theirs["tokens"] == ours["tokens"] and theirs["perplexity"] != ours["perplexity"]
        change = 100 * (ours["perplexity"] / theirs["perplexity"] - 1)
        assert line.split() == [
            *(f"{first}-{last}", str(ours["tokens"]), f"{ours['perplexity']:,.2f}"),
            *(f"{theirs['perplexity']:,.2f}", f"{change:+.1f}", "%"),
        ]


def test_both_changes_have_a_reference_each(folder: str, files, run):
    asked = ("--precision", "int8", "--context", "128")
    told = json.loads(run(folder, *files, *asked, "--json")[1])
    float32, own = told["references"]
    only = json.loads(run(folder, *files, "--context", "128", "--json")[1])
    assert float32["name"] == "float32"
    assert float32["perplexity"] == pytest.approx(only["perplexity"], rel=1e-6)
    only = json.loads(run(folder, *files, "--precision", "int8", "--json")[1])
    assert own["name"] == "context 64"
    assert own["perplexity"] == pytest.approx(only["perplexity"], rel=1e-6)
    first = run(folder, *files, *asked)[1].splitlines()[0]
    assert ", float32 " in first and ", context 64 " in first


def test_progress_is_said_unless_quiet(folder: str, files, run, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr("tercet.kernels.processor.features", frozenset)  # nor that it is slow here
    monkeypatch.setattr("tercet.kernels.processor._torch_multiplies_bfloat16", lambda: True)
    args = (folder, *files, "--precision", "bfloat16", "--by-position")
    code, out, err = run(*args)
    assert code == 0 and {line.partition(":")[0].strip() for line in err.splitlines()} == {
        *("bfloat16", "bfloat16 by position", "float32", "float32 by position")
    }
    assert run(*args, "--quiet") == (0, out, "")


@pytest.mark.parametrize("kind", ["empty", "missing", "none", "short", "context", "latin"])
def test_a_mistake_is_one_line(kind: str, folder: str, files, run, tmp_path: Path):
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin1"))
    args, said = {
        "empty": ((files[0], str(tmp_path / "empty.txt")), "empty.txt: is empty"),
        "missing": (("no-such-file",), "no-such-file: no such file"),
        "none": ((), "no text to measure; name a FILE"),
        "short": (
            (files[1], "--context", "128", "--by-position"),
            "the longest text has 84 tokens, and a window by position 128",
        ),
        "context": ((files[0], "--context", "63"), "context 63 is shorter"),
        "latin": ((str(tmp_path / "latin.txt"),), "latin.txt, line 1: byte 0xe9"),
    }[kind]
    code, out, err = run(folder, *args)
    assert code == 2 and out == "" and err.startswith("tercet: ") and said in err, err
    assert err.count("\n") == 1


def test_an_encoder_is_told_what_measures_it(tmp_path: Path, files, run):
    code, out, err = run(saved(tmp_path, "encoder"), *files)
    assert code == 2 and out == "" and "pseudo_bits_per_byte" in err and "(encoder)" in err


def test_a_recurrent_decoder_is_measured_too(tmp_path: Path, files, run):
    tokenizer = train_tokenizer(TEXTS, kind="characters", special="decoder")
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size,
        context_length=OWN,
        d_model=8,
        d_ff=8,
        n_heads=1,
        decoder_layers=1,
        mixer="lstm",
        positions="none",
    )
    tercet.LanguageModel(build(config, seed=0), tokenizer).save(tmp_path)
    told = json.loads(run(str(tmp_path), *files, "--by-position", "--json")[1])
    assert len(told["by_position"]) == 2 and torch.tensor(told["perplexity"]).isfinite()

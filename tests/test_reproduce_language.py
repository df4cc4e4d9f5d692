"""The experiments with language models, end to end at sizes of seconds, and their parts."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import pytest
import torch
from test_jobs_train import recipe_of

from tercet.data import Tokens
from tercet.evaluate.ngram import NGram
from tercet.jobs import recipe as recipes
from tercet.jobs.reproduce import entries
from tercet.jobs.reproduce.copying import ORDERS, Copies, reach
from tercet.jobs.reproduce.growth import growth
from tercet.jobs.reproduce.held_out import HeldOut, trained_ngram
from tercet.jobs.reproduce.language import language_model
from tercet.jobs.reproduce.recurrent import recurrent
from tercet.jobs.reproduce.table import Row
from tercet.jobs.reproduce.twin import beside_table, size, twin
from tercet.model import build
from tercet.presets import preset
from tercet.report import Axis, Panel, Series, picture
from tercet.text import train_tokenizer

KINDS = ("language-model", "growth", "recurrent")


def small_recipe(folder: Path, *changes: str) -> str:
    """A recipe file of a tiny decoder with its texts beside it."""
    whole = recipes.load(str(recipe_of(folder, "next-token")), changes)
    path = folder / "small.yaml"
    path.write_text(recipes.text(whole))
    return str(path)


def named(rows: list[Row], begin: str) -> list[Row]:
    found = [row for row in rows if row.measure.startswith(begin)]
    assert found, [row.measure for row in rows]
    return found


def pictures(folder: Path) -> list[str]:
    """Names of the pictures, all of them whole and named in the document beside them."""
    found = sorted((folder / "figures").glob("*.svg"))
    told = (folder / "figures" / "README.md").read_text()
    for path in found:
        assert xml.fromstring(path.read_text()).tag.endswith("svg") and f"]({path.name})" in told
    assert (folder / "report.html").exists()
    return [path.stem for path in found]


def test_a_language_model_beside_its_twin_and_an_ngram(tmp_path: Path):
    recipe = small_recipe(tmp_path, "train.budget=0.8s")
    entry: dict[str, Any] = {
        "recipe": recipe,
        "lstm": {"share": 0.4, "tries": [["train.learning_rate=1e-7"], ["train.spike=0"]]},
        "order": 3,
        "contexts": [4, 8, 16],
        "texts": {"a text": {"file": str(tmp_path / "texts.txt")}},
    }
    rows = language_model(entry, tmp_path / "out", True)
    lstm, ngram = named(rows, "bits per byte")
    assert lstm.ours == ngram.ours and 0 < lstm.ours < 4 and 0 < lstm.theirs < 6
    assert 0 < ngram.theirs < 3  # it has counted most of this text
    contexts = named(rows, "perplexity, ")
    assert len(contexts) == 3 and all(row.ours > 1 and row.theirs > 1 for row in contexts)
    falls = contexts[0].ours > contexts[1].ours > contexts[2].ours
    assert named(rows, "perplexity falls")[0].ours == ("yes" if falls else "no")
    assert "rate of 0.01;" in named(rows, "training")[0].note  # the other twin learned nothing
    assert pictures(tmp_path / "out") == ["context", "learning"]
    logs = [tmp_path / "out" / name / "log.jsonl" for name in ("transformer", "lstm")]
    before = [path.read_text() for path in logs]
    assert [row.ours for row in language_model(entry, tmp_path / "out", True)] == [
        row.ours for row in rows
    ]
    assert [path.read_text() for path in logs] == before  # nothing was trained again


def test_growth_prepares_once_and_gives_every_size_the_same_tokens(tmp_path: Path):
    recipe = small_recipe(tmp_path, "train.steps=12", "evaluate.every=4")
    sizes = {"1 k": {"d_model": 16, "d_ff": 16}, "9 k": {"d_model": 48, "d_ff": 32}}
    entry = {
        "recipe": recipe,
        "sizes": sizes,
        "text": {"file": str(tmp_path / "texts.txt")},
    }
    rows = growth(entry, tmp_path / "out", True)
    found = named(rows, "nats a token")
    assert len(found) == 2 and all(0 < row.ours < 7 for row in found)
    assert rows[-1].ours == ("yes" if found[1].ours < found[0].ours else "no")
    first, second = (
        json.loads((tmp_path / "out" / name / "result.json").read_text()) for name in ("1k", "9k")
    )
    assert first["tokens"] == second["tokens"]
    times = {(tmp_path / "out" / n / "data" / "manifest.json").stat().st_size for n in ("1k", "9k")}
    assert len(times) == 1 and pictures(tmp_path / "out") == ["growth"]


def test_attention_against_recurrence(tmp_path: Path):
    recipe = small_recipe(tmp_path, "train.budget=0.4s", "objective.packing=rows")
    entry = {
        "recipe": recipe,
        "lengths": [8, 32],
        "lstm": ["train.learning_rate=1e-2"],
        "speed_steps": 2,
        "text": {"file": str(tmp_path / "texts.txt")},
        "copying": {
            "preset": "tercet-tiny-decoder",
            "change": {"decoder_layers": 1, "d_model": 16, "d_ff": 16, "n_heads": 1},
            "symbols": 8,
            "distances": [2, 4],
            "tokens": 64,
            "seconds": 0.2,
            "rates": [0.003, 0.01],
            "lstm_std": 0.3,
        },
    }
    rows = recurrent(entry, tmp_path / "out", True)
    assert all(row.ours > 100 and row.theirs > 100 for row in named(rows, "training tokens/s"))
    assert all(0 < row.ours < 6 and 0 < row.theirs < 6 for row in named(rows, "bits per byte"))
    copied = named(rows, "tokens copied exactly")
    assert len(copied) == 2 and all(0 <= share <= 1 for r in copied for share in (r.ours, r.theirs))
    assert rows[-1].ours in (0, 2, 4) and pictures(tmp_path / "out") == ["recurrent"]
    speed = tmp_path / "out" / "speed.json"
    kept = json.loads(speed.read_text())
    kept["8"][1]["tokens_per_second"] = 123.0  # measured once: what stands there is taken
    speed.write_text(json.dumps(kept))
    assert recurrent(entry, tmp_path / "out", True)[0].theirs == 123.0


@pytest.mark.parametrize("name", [name for name, e in entries().items() if e["kind"] in KINDS])
def test_the_shipped_recipes_of_these_experiments_are_whole(name: str):
    entry = entries()[name]
    recipe = recipes.load(entry["recipe"])
    base = preset(recipe.model.preset or "").replace(
        vocab_size=recipe.tokenizer.vocab_size, **recipe.model.change
    )
    assert recipe.objective.length <= base.context_length
    for stated, change in entry.get("sizes", {}).items():
        wanted = float(stated.removesuffix(" M")) * 1e6
        assert beside_table(base.replace(**change)) == pytest.approx(wanted, rel=0.15)
    for length in entry.get("lengths", ()):
        assert recipe.batch.tokens % length == 0 and length <= base.context_length


# parts -------------------------------------------------------------------------------------------


def test_a_twin_has_as_many_parameters():
    config = preset("tercet-tiny-decoder")
    other = config.replace(**twin(config))
    sizes = [sum(p.numel() for p in build(one, None).parameters()) for one in (config, other)]
    assert sizes == [size(config), size(other)] and sizes[1] == pytest.approx(sizes[0], rel=0.01)
    assert beside_table(config) == sizes[0] - config.vocab_size * config.d_model


def test_a_network_and_an_ngram_score_the_same_tokens(tmp_path: Path):
    """Both that know nothing pay log2(V) a token, whatever the text."""
    text = "<<<A title>>>\nOne line, and another: ünïcödé.\n" * 3
    (tmp_path / "text.txt").write_text(text)
    tokenizer = train_tokenizer([text], kind="bytes", special="decoder")
    entry = {"file": str(tmp_path / "text.txt"), "split": "<<<(.*)>>>"}
    held_out = HeldOut.read(entry, tokenizer)
    assert held_out.n_bytes == held_out.n_tokens  # a token a byte, titles left out
    assert "title" not in tokenizer.decode(held_out.stream.tolist())
    config = preset("tercet-tiny-decoder").replace(vocab_size=tokenizer.vocab_size)
    network = build(config.replace(decoder_layers=1, d_model=8, d_ff=8, n_heads=1), 0)
    with torch.no_grad():
        network.tokens.weight.zero_()
    wanted = math.log(tokenizer.vocab_size)
    assert held_out.nats(network, 16) == pytest.approx(wanted, rel=1e-5)
    assert held_out.bits_per_byte(wanted) == pytest.approx(wanted / math.log(2))
    ngram = NGram(held_out.stream.numpy(), tokenizer.vocab_size, order=2)
    seen = ngram.log_probabilities(held_out.stream.numpy())
    assert len(seen) == held_out.n_tokens and held_out.ngram_nats(ngram) == pytest.approx(
        -seen.mean()
    )


@pytest.mark.parametrize("order", ORDERS)
def test_a_copy_stands_so_many_tokens_behind_what_it_copies(order: str):
    copies = Copies(20, (2, 5, 9), 100, order)
    for step in range(12):
        (batch,) = copies(step)
        k = copies.distance(step)
        assert set(batch.layout.lengths) == {2 * k + 1} and batch.n_tokens <= 100
        assert batch.select is not None and batch.n_targets == k * batch.layout.n_sequences
        said = batch.tokens[batch.select - k]  # at the row before the first copy stands the mark
        torch.testing.assert_close(batch.targets, said)
        rows = batch.targets.view(-1, k)
        assert all(len(set(row.tolist())) == k for row in rows)  # each symbol once
        assert not torch.equal(copies.batch(k, "test").tokens, batch.tokens)
        assert torch.equal(copies(step)[0].tokens, batch.tokens)
    seen = [copies.distance(step) for step in range(12)]
    assert seen == ([2, 5, 9] * 4 if order == ORDERS[0] else [2, 5, 2, 9] * 3)


def test_how_far_copying_reaches():
    assert reach({8: 1.0, 16: 0.95, 32: 0.2, 64: 0.99}) == 16
    assert reach({8: 0.1}) == 0 and reach({16: 1.0, 8: 1.0}) == 16


def test_a_picture_holds_every_curve_and_escapes_its_words():
    curve = Series("a < b", [1, 10, 100], [1.0, math.nan, 3.0], points=True)
    panel = Panel("One & two", [curve, Series("c", [], [])], Axis("x", log=True), Axis("y"))
    tree = xml.fromstring(str(picture([panel, panel])))
    words = [node.text for node in tree.iter() if node.tag.endswith("text")]
    assert words.count("One & two") == 2 and "a < b" in words and "100" in words
    lines = [node.get("d", "") for node in tree.iter() if node.get("stroke-width") == "2"]
    assert len(lines) == 2 and "nan" not in "".join(lines)


def test_tokens_of_a_corpus_are_all_that_an_ngram_sees():
    class Folder:
        tokenizer = type("T", (), {"vocab_size": 9})()
        sources = {
            name: type("S", (), {"train": Tokens.of(texts, 0)})()
            for name, texts in {"a": [[1, 2], [3]], "b": [[4, 5, 6]]}.items()
        }

    _, n_tokens = trained_ngram(Folder(), 2)  # type: ignore[arg-type]
    assert n_tokens == 6 + 5

"""The tasks embed, rank and seq2seq: what they read, learn, save and refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tercet
from tercet import cli
from tercet.data.related import Related
from tercet.errors import InputError
from tercet.hf import EmbeddingSettings, Extras
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune.embed import embed
from tercet.jobs.finetune.mining import (
    Mining,
    dense_order,
    judged_rows,
    reranked,
    with_negatives,
)
from tercet.jobs.finetune.rank import rank
from tercet.jobs.finetune.related import PARTS, rows_of
from tercet.jobs.finetune.rows import read_table
from tercet.jobs.finetune.seq2seq import seq2seq
from tercet.jobs.finetune.settings import Data, Embed, FinetuneRecipe, Rank, Seq2Seq, Tuning
from tercet.language_model import LanguageModel
from tercet.model import build
from tercet.presets import preset
from tercet.text import Tokenizer, train_tokenizer
from tercet.train import Optimizer, Recipe, fit

ANIMALS = ("cat", "dog", "cow", "hen", "fox", "owl", "bee", "ant", "rat", "pig", "ram", "eel")
DOES = ("eats", "sees", "likes", "hears")
TONGUE = {str(word): f"{word[::-1]}o" for word in (*ANIMALS, *DOES)}
SENTENCES = [f"the {a} {does} the {b}" for a in ANIMALS for does in DOES for b in ANIMALS if a != b]
OTHERS = [" ".join(TONGUE.get(word, word) for word in one.split()) for one in SENTENCES]
SMALL = {"d_model": 32, "d_ff": 64, "n_heads": 4, "context_length": 48}
said: list[str] = []


def written(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(SENTENCES + OTHERS, vocab_size=300, special="encoder")


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LanguageModel:
    told = {"vocab_size": tokenizer.vocab_size, "pad_id": tokenizer.pad_id, "encoder_layers": 1}
    return LanguageModel(build(preset("bert-tiny").replace(**SMALL, **told), seed=1), tokenizer)


@pytest.fixture(scope="module")
def translator() -> LanguageModel:
    tokenizer = train_tokenizer(SENTENCES + OTHERS, vocab_size=300, special="encoder-decoder")
    eos, start = tokenizer.eos_id, tokenizer.pad_id
    assert eos is not None and start is not None
    told = {"vocab_size": tokenizer.vocab_size, "pad_id": tokenizer.pad_id, "eos_ids": (eos,)}
    told |= {"encoder_layers": 1, "decoder_layers": 1, "start_id": start}
    config = preset("tercet-tiny-encoder-decoder").replace(**SMALL, **told)
    return LanguageModel(build(config, seed=1), tokenizer)


def recipe(task: str, *train: str, validation: list[str] | float = 0.1, **more) -> FinetuneRecipe:
    keys = ("rows", "dropout", "micro_tokens", "freeze")
    tuning = Tuning(**{key: more.pop(key) for key in keys if key in more})
    columns = more.pop("columns", {})
    data = Data(list(train), validation, test=more.pop("test", []), columns=columns)
    return FinetuneRecipe("no folder", task, data, train=tuning, **more)


def learned(task, splits, steps: int, rate: float = 5e-3):
    """(network, scores before, scores after) of so many steps, as the frame would take them."""
    network = task.network(0)
    before = task.scores(network.eval(), splits.validation)
    fit(
        network,
        task.stream(splits.train, 0),
        task.objective(splits.train),
        Recipe(rate, steps=steps, spike=0.0),
        Optimizer(network, weight_decay=0.01, betas=(0.9, 0.999)),
    )
    return network, before, task.scores(network.eval(), splits.validation)


def table(path: Path, lines: list[str]):
    return read_table([written(path, *lines)], PARTS, {})


# rows ---------------------------------------------------------------------------------------------


def test_rows_of_tables(tmp_path: Path):
    lines = ["query\tanswer\tnegative", "a\tb\tc", "d\te\t", "\tf\tg", "a\tb\tc"]
    heard: list[str] = []
    found = rows_of(table(tmp_path / "a.tsv", lines), "train", heard.append)
    assert found == [Related(("a", "b", "c")), Related(("d", "e"))]
    assert heard == ["train: 1 empty rows are left out", "train: 1 repeated rows are left out"]
    found = rows_of(table(tmp_path / "a.tsv", lines), "test")  # which is measured as it is
    assert found == [Related(("a", "b", "c")), Related(("d", "e")), Related(("a", "b", "c"))]
    lines = ["score,sentence1,sentence2", "2.5,a,b", "1,c,d"]
    assert rows_of(table(tmp_path / "b.csv", lines), "b.csv") == [
        Related(("a", "b"), 2.5),
        Related(("c", "d"), 1.0),
    ]
    found = rows_of(table(tmp_path / "c.csv", ["text", "a", "b"]), "c.csv")
    assert found == [Related(("a", "a")), Related(("b", "b"))]


def test_columns_that_are_not_used_are_said(model: LanguageModel, tmp_path: Path):
    def heard_of(*lines: str) -> str:
        heard: list[str] = []
        name = written(tmp_path / "a.csv", *lines)
        task, _ = embed(recipe("embed", name), model, heard.append)
        assert list(task.facts["columns"]) == used
        return heard[0]

    used = ["text"]
    rows = [f"{one},yes" for one in SENTENCES[:40]]
    assert heard_of("text,label", *rows) == (
        "train: text from column 'text' (by their names): texts alone (SimCSE); "
        "column 'label' is not used"
    )
    used = ["text", "pair", "label"]
    rows = [f"{SENTENCES[i]},{OTHERS[i]},{OTHERS[i + 1]},{i % 2}" for i in range(8)]
    found = heard_of("query,answer,negative,score", *rows)
    assert "pair from column 'answer', label from column 'score' (by their names)" in found
    assert found.endswith(": pairs with scores; column 'negative' is not used")
    used = ["text", "pair", "negative"]
    found = heard_of("query,answer,negative", *(row[:-2] for row in rows))
    assert found.endswith("(by their names): pairs with negatives")


@pytest.mark.parametrize(
    "lines, message",
    [
        (["one,two", "a,b"], "which column is the text"),
        (["query,answer,third", "a,,c", ",b,c"], "every row has an empty text"),
        (
            ["query,answer,score", "a,b,nan", "c,d,1"],
            "row 1: 'score' is 'nan', not a finite number",
        ),
        (["query,answer,score", "a,b,1", "c,d,1.0"], "every score in column 'score' is 1"),
    ],
)
def test_rows_that_cannot_be_learned_from(tmp_path: Path, lines: list[str], message: str):
    with pytest.raises(InputError, match=message):
        rows_of(table(tmp_path / "a.csv", lines), "a.csv")


def test_mined_negatives_stand_behind_the_pair(model: LanguageModel):
    rows = [Related(pair) for pair in zip(SENTENCES[:40], OTHERS[:40])]
    found = with_negatives(model, rows, Mining(2, 10, 0.0), passages=OTHERS[40:60], seed=3)
    assert [row.texts[:2] for row in found] == [row.texts for row in rows]
    assert any(len(row.texts) == 4 for row in found)
    for row in found:
        assert set(row.texts[2:]) <= set(OTHERS[:60]) - {row.texts[1]}
    assert with_negatives(model, rows, Mining(0, 10, 0.0), seed=3) == rows


# embed --------------------------------------------------------------------------------------------


def pairs_file(path: Path) -> str:
    lines = [f"{one}\t{other}" for one, other in zip(SENTENCES, OTHERS)]
    return written(path, "anchor\tpositive", *lines)


def cut(splits, count: int = 60):
    """The splits with every eighth row for validation, as far as ``count``."""
    rows = list(splits.train)
    out = rows[::8][:count]
    return replace(splits, train=[row for row in rows if row not in out], validation=out)


def test_embedding_learns_from_pairs_and_is_saved(model: LanguageModel, tmp_path: Path):
    from sentence_transformers import SentenceTransformer

    wanted = recipe("embed", pairs_file(tmp_path / "a.tsv"), rows=128, micro_tokens=600)
    task, splits = embed(wanted, model, said.append)
    splits = cut(splits)
    network, before, after = learned(task, splits, 60)
    assert task.metrics[0] == "ndcg" and after.n == 60
    assert after.figures["ndcg"] > before.figures["ndcg"] + 0.2
    tuned = LanguageModel(network, model.tokenizer, task.finish(network, splits.validation).extras)
    tuned.save(tmp_path / "model")
    texts = SENTENCES[:5] + OTHERS[:5]
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(texts)
    assert np.allclose(theirs, tuned.embed(texts), atol=1e-5)
    again = tercet.load(tmp_path / "model")
    assert np.array_equal(again.embed(texts), tuned.embed(texts)) and "fill" not in again.can


def test_embedding_with_hard_negatives(model: LanguageModel, tmp_path: Path):
    wanted = recipe("embed", pairs_file(tmp_path / "a.tsv"), embed=Embed(negatives=2, margin=0.0))
    heard: list[str] = []
    task, splits = embed(wanted, model, heard.append)
    (batch,) = task.stream(splits.train, 0)(0)
    assert max(batch.groups) == 4 and any("hard negatives beside 528 pairs" in s for s in heard)
    (again,) = task.stream(splits.train, 0)(0)
    assert (again.tokens == batch.tokens).all()


def test_embedding_learns_from_scores(model: LanguageModel, tmp_path: Path):
    """Alike are sentences with the same verb, however many animals they share."""
    lines = []
    for i, one in enumerate(SENTENCES[:400]):
        other = SENTENCES[(7 * i) % 400]
        lines.append(f"{one},{other},{int(one.split()[2] == other.split()[2])}")
    name = written(tmp_path / "a.csv", "sentence1,sentence2,score", *lines)
    task, splits = embed(recipe("embed", name), model, said.append)
    assert task.metrics == ("spearman",)
    _, before, after = learned(task, cut(splits), 40)
    assert after.figures["spearman"] > before.figures["spearman"] + 0.1


def test_embedding_learns_from_texts_alone(model: LanguageModel, tmp_path: Path):
    name = written(tmp_path / "a.csv", "text", *SENTENCES)
    lines = written(tmp_path / "a.txt", *SENTENCES, "")
    task, splits = embed(recipe("embed", name, rows=64), model, said.append)
    assert splits == embed(recipe("embed", lines), model, said.append)[1]
    assert task.metrics == ("uniformity",)
    _, before, after = learned(task, cut(splits), 20)
    assert after.figures["uniformity"] > before.figures["uniformity"] + 0.1
    with pytest.raises(InputError, match="dropout 0 with texts alone"):
        embed(recipe("embed", name, dropout=0.0), model, said.append)
    few = written(tmp_path / "b.csv", "text", *SENTENCES[:12])
    with pytest.raises(InputError, match="of texts alone .* there would be 1: give more rows"):
        embed(recipe("embed", few), model, said.append)
    with pytest.raises(InputError, match="train.freeze 2: .* nothing would learn"):
        embed(recipe("embed", name, freeze=2), model, said.append)


def test_embedding_from_a_retrieval_folder(model: LanguageModel, tmp_path: Path):
    place = retrieval_folder(tmp_path)
    task, splits = embed(recipe("embed", str(place)), model, said.append)
    assert len(splits.train) == 150 and len(splits.test) == 50 and not splits.validation
    scores = task.scores(task.network(0).eval(), splits.test)
    assert scores.n == 50 and "among 400 texts" in scores.sentence
    with (place / "corpus.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "empty", "text": ""}) + "\n")
    task, _ = embed(recipe("embed", str(place)), model, said.append)
    assert said[-1].endswith("1 documents without a text are left out")
    assert "among 400 texts" in task.scores(task.network(0).eval(), splits.test).sentence
    with pytest.raises(InputError, match="a retrieval folder with its own splits"):
        embed(recipe("embed", str(place), test=["a.csv"]), model, said.append)


def test_scores_have_no_hard_negatives(model: LanguageModel, tmp_path: Path):
    name = written(tmp_path / "a.csv", "anchor,positive,score", "a,b,1", "c,d,0")
    with pytest.raises(InputError, match=r"embed.negatives 1 are for pairs without scores"):
        embed(recipe("embed", name, embed=Embed(negatives=1)), model, said.append)


# rank ---------------------------------------------------------------------------------------------


def retrieval_folder(place: Path) -> Path:
    """Each sentence is answered by itself with an owl behind it, and not by itself with a bee."""
    texts = [f"{one} {behind}" for one in SENTENCES[:200] for behind in ("owl", "bee")]
    rows = [json.dumps({"_id": f"d{i}", "text": text}) for i, text in enumerate(texts)]
    written(place / "corpus.jsonl", *rows)
    rows = [json.dumps({"_id": f"q{i}", "text": text}) for i, text in enumerate(SENTENCES[:200])]
    written(place / "queries.jsonl", *rows)
    order = np.random.default_rng(0).permutation(200).tolist()
    for name, part in (("train", order[:150]), ("test", order[150:])):
        lines = [f"q{i}\td{2 * i}\t1" for i in part]
        written(place / f"qrels_{name}.tsv", "query-id\tcorpus-id\tscore", *lines)
    return place


def test_a_cross_encoder_learns_to_order_what_vectors_found(model: LanguageModel, tmp_path: Path):
    from sentence_transformers import CrossEncoder

    wanted = recipe("rank", str(retrieval_folder(tmp_path)), rank=Rank(depth=20), dropout=0.0)
    task, splits = rank(wanted, model, said.append)
    splits = cut(splits, 18)
    network, before, after = learned(task, splits, 40)
    assert after.figures["ndcg"] > max(before.figures["ndcg"], after.figures["dense_ndcg"]) + 0.05
    assert after.figures["dense_ndcg"] == before.figures["dense_ndcg"]
    tuned = LanguageModel(network, model.tokenizer, task.finish(network, splits.validation).extras)
    tuned.save(tmp_path / "model")
    found = tercet.load(tmp_path / "model").rank(SENTENCES[0], OTHERS[:20])
    theirs = CrossEncoder(str(tmp_path / "model"), device="cpu")
    scores = theirs.predict([(SENTENCES[0], text) for text in OTHERS[:20]])
    for one in found:
        assert one.score == pytest.approx(scores[one.index], abs=1e-5)


def test_the_order_is_measured_as_it_is(model: LanguageModel, tmp_path: Path):
    """The dense order, by hand."""
    rows = [Related(pair) for pair in zip(SENTENCES[:12], OTHERS[:12])]
    queries, documents, judged = judged_rows([*rows, Related((SENTENCES[0], OTHERS[5]))])
    assert judged["0"] == {"0": 1, "5": 1} and len(queries) == len(documents) == 12
    order = dense_order(model, queries, documents, depth=4)
    vectors = model.embed([*queries.values(), *documents.values()])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    best = np.argsort(-(unit[:12] @ unit[12:].T), axis=1)[:, :4]
    assert [order[str(i)] for i in range(12)] == [[str(j) for j in row] for row in best]


@pytest.mark.parametrize("queries", [2, 512])
def test_the_head_orders_each_ranking_by_itself(
    model: LanguageModel, tmp_path: Path, queries: int, monkeypatch: pytest.MonkeyPatch
):
    """However many rankings are read together, as `tercet rank` orders one."""
    monkeypatch.setattr("tercet.jobs.finetune.mining.QUERIES", queries)
    wanted = recipe("rank", str(retrieval_folder(tmp_path)), rank=Rank(depth=20), dropout=0.0)
    network = rank(wanted, model, said.append)[0].network(0).eval()
    ranker = LanguageModel(network, model.tokenizer, model.extras)
    asked = {str(i): one for i, one in enumerate(SENTENCES[:5])}
    documents = {str(i): one for i, one in enumerate(OTHERS[:30])}
    rankings = {i: [str(int(i) * 2 + j) for j in range(5 + int(i))] for i in asked}
    found = reranked(ranker, asked, documents, rankings)
    for i, ranking in rankings.items():
        texts = [documents[name] for name in ranking]
        assert found[i] == [ranking[one.index] for one in ranker.rank(asked[i], texts)]


def test_a_cross_encoder_learns_from_scores(model: LanguageModel, tmp_path: Path):
    lines = []
    for i, one in enumerate(SENTENCES[:300]):
        other = SENTENCES[i] if i % 3 else SENTENCES[(7 * i + 1) % 500]
        lines.append(f"{one},{other},{int(one == other)}")
    name = written(tmp_path / "a.csv", "query,passage,score", *lines)
    task, splits = rank(recipe("rank", name, dropout=0.0), model, said.append)
    assert task.metrics == ("spearman",)
    splits = cut(splits)
    (batch,) = task.stream(splits.train, 0)(0)
    assert set(batch.groups) == {1} and batch.labels is not None
    found = task.scores(task.network(0).eval(), splits.validation).figures["spearman"]
    assert -1 < found < 1
    alike = [row for row in splits.validation if row.score == 1]
    assert task.scores(task.network(0).eval(), alike).figures == {"spearman": 0.0}


def test_what_cannot_be_ranked(model: LanguageModel, translator: LanguageModel, tmp_path: Path):
    name = written(tmp_path / "a.csv", "query,passage,score", "a,b,5", "c,d,0")
    with pytest.raises(InputError, match="the score 5 of 'a' is not from 0 to 1"):
        rank(recipe("rank", name), model, said.append)
    with pytest.raises(InputError, match="of the encoder-decoder family"):
        rank(recipe("rank", name), translator, said.append)
    name = written(tmp_path / "b.csv", "text", "a", "b")
    with pytest.raises(InputError, match="texts alone have no order"):
        rank(recipe("rank", name), model, said.append)
    name = written(tmp_path / "c.csv", "query,passage", "the cat,the dog", "the fox,the dog")
    task, splits = rank(recipe("rank", name), model, said.append)
    with pytest.raises(InputError, match="no pair has a negative that is far enough"):
        task.stream(splits.train, 0)


# seq2seq ------------------------------------------------------------------------------------------


def test_text_to_text(translator: LanguageModel, tmp_path: Path):
    lines = [f"{one}\t{other}" for one, other in zip(SENTENCES, OTHERS)]
    name = written(tmp_path / "a.tsv", "source\ttarget", *lines, "\tnothing")
    heard: list[str] = []
    wanted = recipe("seq2seq", name, seq2seq=Seq2Seq(beams=2, written=8, max_new_tokens=12))
    task, splits = seq2seq(wanted, translator, heard.append)
    assert any("1 rows with an empty side are left out" in one for one in heard)
    twice = written(tmp_path / "b.tsv", "source\ttarget", *lines, lines[0])
    seq2seq(recipe("seq2seq", twice, test=[name]), translator, heard.append)
    assert "train: 1 rows come twice or more often" in heard
    assert "test: 528 of 528 sources stand in train too" in heard
    splits = cut(splits)
    (batch,) = task.stream(splits.train, 0)(0)
    assert batch.source is not None and batch.source_layout is not None
    source, target = splits.train[batch.keys[0][1]].source, splits.train[batch.keys[0][1]].target
    assert batch.source_layout.split(batch.source)[0].tolist() == translator.writer.ids(source)
    assert translator.tokenizer.decode(batch.layout.split(batch.targets)[0].tolist()) == target
    network, before, after = learned(task, splits, 40, rate=1e-2)
    assert after.figures["log_probability"] > before.figures["log_probability"] + 1
    assert after.figures["chrf"] > before.figures["chrf"]
    assert "(of the first 8)" in after.sentence
    LanguageModel(network, translator.tokenizer, translator.extras).save(tmp_path / "model")
    assert str(tercet.load(tmp_path / "model").translate(SENTENCES[0], max_new_tokens=12))


def test_pairs_beyond_the_context_count_in_no_split(translator: LanguageModel, tmp_path: Path):
    head, many = "source\ttarget", " ".join(SENTENCES[:12])
    some = [f"{one}\t{other}" for one, other in zip(SENTENCES[:18], OTHERS[:18])]
    train = written(tmp_path / "train.tsv", head, *some[:10], f"{many}\tone")
    clean = written(tmp_path / "clean.tsv", head, *some[10:])
    held = written(tmp_path / "held.tsv", head, f"{many}\tone", *some[10:], f"one\t{many}")
    heard: list[str] = []
    how = Seq2Seq(beams=1, max_new_tokens=6)
    wanted = recipe("seq2seq", train, validation=[held], test=[held], seq2seq=how)
    task, splits = seq2seq(wanted, translator, heard.append)
    assert "train: 1 of 11 pairs are beyond the context of 48 tokens and left out" in heard
    for name in ("validation", "test"):
        assert f"{name}: 2 of 10 pairs are beyond the context of 48 tokens and left out" in heard
    assert [len(rows) for rows in (splits.train, splits.validation, splits.test)] == [10, 8, 8]
    assert task.facts["validation"] == 8
    assert task.facts["beyond_context"] == {"train": 1, "validation": 2, "test": 2}
    other, plain = seq2seq(recipe("seq2seq", train, test=[clean], seq2seq=how), translator, print)
    network = task.network(0).eval()
    found = task.scores(network, splits.validation)
    assert found == other.scores(network, plain.test) and found.n == 8
    long = written(tmp_path / "long.tsv", head, f"{many}\tone")
    with pytest.raises(InputError, match="test: every pair is beyond the context of 48 tokens; "):
        seq2seq(recipe("seq2seq", train, test=[long]), translator, said.append)
    with pytest.raises(InputError, match="max_new_tokens 48 .* context of 48; give at most 47"):
        seq2seq(
            recipe("seq2seq", train, seq2seq=Seq2Seq(max_new_tokens=48)), translator, said.append
        )


def test_text_to_text_is_for_encoder_decoders(model: LanguageModel, tmp_path: Path):
    name = written(tmp_path / "a.csv", "source,target", "a,b", "c,d")
    with pytest.raises(InputError, match="of the encoder family; text to text is for"):
        seq2seq(recipe("seq2seq", name), model, said.append)
    with pytest.raises(
        InputError,
        match="columns.text is no part of these examples; write --set data.columns.source=a or "
        "--set data.columns.target=a",
    ):
        seq2seq(recipe("seq2seq", name, columns={"text": "a"}), model, said.append)


def test_a_column_without_a_name_goes_by_its_number():
    tree: dict[str, Any] = {"model": "m", "task": "seq2seq", "data": {"train": ["a.tsv"]}}
    for change in ("data.columns.source=1", "data.columns.target=2"):
        recipes.change_key(tree, change)
    assert recipes.built(FinetuneRecipe, tree, "test").data.columns == {
        "source": "1",
        "target": "2",
    }
    recipes.change_key(tree, "data.columns.target=[2]")
    with pytest.raises(InputError, match=r"data.columns.target \[2\] must be a word"):
        recipes.built(FinetuneRecipe, tree, "test")


# through the frame --------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["embed", "rank", "seq2seq"])
def test_the_verb_trains_measures_and_saves(
    task: str,
    model: LanguageModel,
    translator: LanguageModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    base = translator if task == "seq2seq" else model
    short = EmbeddingSettings(pool="mean", max_length=20)
    LanguageModel(base.network, base.tokenizer, Extras(embedding=short)).save(tmp_path / "base")
    parts = "source\ttarget" if task == "seq2seq" else "query\tanswer"
    lines = [f"{one}\t{other}" for one, other in zip(SENTENCES, OTHERS)]
    files = [
        written(tmp_path / f"{name}.tsv", parts, *part)
        for name, part in (
            ("train", lines[::4]),
            ("validation", lines[1::40]),
            ("test", lines[2::40]),
        )
    ]
    settings = {
        "embed": ["embed.negatives=1", "train.micro_tokens=200"],
        "rank": ["rank.negatives=2", "rank.depth=10"],
        "seq2seq": ["seq2seq.written=4", "seq2seq.beams=2", "seq2seq.max_new_tokens=8"],
    }[task]
    settings += ["train.epochs=2", "train.rows=40"]
    folder = tmp_path / "run"
    args = ["finetune", str(tmp_path / "base"), files[0], "--task", task, "--folder", str(folder)]
    args += ["--validation", files[1], "--test", files[2], "--json"]
    for one in settings:
        args += ["--set", one]
    assert cli.run(args) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["data"]["train"] == len(lines[::4]) and result["test"]["n"]
    assert (folder / "model" / "README.md").read_text("utf-8").startswith("---")
    tuned = tercet.load(folder / "model")
    assert {"embed": "embed", "rank": "rank", "seq2seq": "translate"}[task] in tuned.can
    assert tuned.limit == 20  # what was learned with
    assert cli.run([*args, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["test"] == result["test"]


@pytest.mark.parametrize("task", ["embed", "rank"])
def test_scores_tell_what_pairs_have_taught(
    task: str, model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The test rows have a figure that no epoch was chosen by."""
    model.save(tmp_path / "base")
    lines = [f"{one}\t{other}" for one, other in zip(SENTENCES, OTHERS)]
    scored = [f"{line}\t{i % 5 / 4}" for i, line in enumerate(lines[2::20])]
    pairs = written(tmp_path / "pairs.tsv", "query\tanswer", *lines[::16])
    test = written(tmp_path / "scored.tsv", "text1\ttext2\tscore", *scored)
    folder = tmp_path / "run"
    args = ["finetune", str(tmp_path / "base"), pairs, "--task", task, "--folder", str(folder)]
    args += ["--test", test, "--seeds", "2", "--curve", "10", "--quiet"]
    args += ["--set", "train.epochs=1", "--set", "curve.steps=1"]
    assert cli.run(args) == 0
    said = capsys.readouterr().out
    assert "validation: ndcg " in said and "test: spearman " in said and "test spearman" in said
    assert json.loads((folder / "result.json").read_text())["metric"] == "ndcg"
    assert cli.run(["report", str(folder)]) == 0
    assert "test spearman" in (folder / "report.html").read_text("utf-8")

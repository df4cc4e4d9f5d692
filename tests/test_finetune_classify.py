"""The task classify: kinds of labels, pairs, families, the same folder in `transformers`, and what
is refused or said."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from small_tables import label_of, model_folder, sentences, table

from tercet.answers import CutWarning
from tercet.config import TransformerConfig
from tercet.data import Stream
from tercet.data.labelled import Labelled, LabelledTexts
from tercet.errors import InputError
from tercet.evaluate.classification import calibration_error
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune import finetune, kinds
from tercet.jobs.finetune.classify import classify, with_classifier
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.language_model import LanguageModel, load
from tercet.model import build
from tercet.represent.classify import Read, logits, read
from tercet.text import CutReport
from tercet.train import Classification, Regression, SeveralLabels

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"TERCET_DATA: no folder {DATA}")
FAST = ("train.learning_rate=1e-2", "train.epochs=3", "train.rows=16", "train.dropout=0.0")
ENCODER = TransformerConfig(
    vocab_size=40, context_length=32, d_model=16, d_ff=32, n_heads=2, encoder_layers=1,
    heads=("masked",), pool="mean",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classify")
    model_folder(folder / "model")
    return folder


def recipe(model: Path, train: Path, *changes: str, **data: Any) -> FinetuneRecipe:
    tree: dict[str, Any] = {"model": str(model), "task": "classify"}
    tree["data"] = {"train": [str(train)], **data}
    for change in (*FAST, *changes):
        recipes.change_key(tree, change)
    return recipes.built(FinetuneRecipe, tree, "test")


def said_of(place: Path, text: str, *changes: str, name: str = "rows.jsonl", **data: Any) -> str:
    """All that the task says of a file with this text."""
    (place / name).write_text(text)
    heard: list[str] = []
    classify(
        recipe(place / "model", place / name, *changes, **data), load(place / "model"), heard.append
    )
    return "; ".join(heard)


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


GOOD = [{"text": text, "label": label_of(text)} for text in sentences(24, 5)]


# kinds of labels ---------------------------------------------------------------------------------


def colours(text: str) -> list[str]:
    return [word for word in ("red", "blue", "tree") if word in text.split()]


def test_several_labels_at_once(place: Path, tmp_path: Path):
    train = table(tmp_path / "train.jsonl", 300, 1, colours, "labels")
    wanted = recipe(place / "model", train, "train.epochs=8", "train.learning_rate=1e-2")
    result = finetune(wanted, tmp_path / "run")
    assert result["data"]["kind"] == "labels" and result["metric"] == "micro_f1"
    assert result["validation"]["mean"]["micro_f1"] > 0.9
    model = load(tmp_path / "run" / "model")
    answer = model.classify("the red house sees one tree")
    assert sorted(answer.labels) == [
        n for n in ("blue", "red", "tree") if answer.probabilities[n] >= 0.5
    ]
    assert model.extras.problem == "multi_label_classification"
    joined = lines(*({"text": t, "tags": "|".join(colours(t))} for t in sentences(24, 5)))
    for change in ("classify.separator='|'", "classify.separator=|"):
        text = said_of(place, joined, change, columns={"label": "tags"})
        assert "label from column 'tags'" in text
        wanted = recipe(place / "model", place / "rows.jsonl", change, columns={"label": "tags"})
        task, _ = classify(wanted, load(place / "model"), lambda sentence: None)
        assert task.kind.names == ("blue", "red", "tree")
    with pytest.raises(InputError, match="separator is empty; write what stands between labels"):
        said_of(place, joined, "classify.separator=''")


def test_numbers_come_back_in_their_own_units(place: Path, tmp_path: Path):
    def value(text: str) -> float:
        return 100.5 + 7 * len(text.split())

    train = table(tmp_path / "train.jsonl", 300, 1, value, "score")
    test = table(tmp_path / "test.jsonl", 60, 2, value, "score")
    for name in ("bert-tiny", "tercet-tiny-decoder"):  # with a bias in the head, and without
        folder = model_folder(tmp_path / name, name)
        wanted = recipe(
            folder, train, "train.epochs=10", "train.learning_rate=1e-2", test=[str(test)]
        )
        result = finetune(wanted, tmp_path / f"{name}-run")
        figures = result["test"]["mean"]
        assert result["data"]["kind"] == "number" and figures["spearman"] > 0.8
        model = load(tmp_path / f"{name}-run" / "model")
        texts = sentences(60, 2)
        found = np.array([answer.value for answer in model.classify(texts)])
        error = np.sqrt(np.mean((found - [value(text) for text in texts]) ** 2))
        assert error == pytest.approx(figures["error"], rel=1e-3) and error < 8
        with torch.no_grad():
            theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
                tmp_path / f"{name}-run" / "model"
            ).eval()
            ids = torch.tensor([model.tokenizer.encode(texts[0])])
            assert float(theirs(ids).logits) == pytest.approx(found[0], abs=1e-3)
        assert theirs.config.problem_type == "regression" and theirs.config.num_labels == 1


def test_pairs_are_read_with_their_types(place: Path, tmp_path: Path):
    """The label is whether both texts hold the word."""
    firsts, seconds = sentences(400, 1), sentences(402, 2)[2:]
    seconds = seconds[200:] + seconds[:200][::-1]
    rows = [
        {"sentence1": a, "sentence2": b, "label": int(label_of(a) == label_of(b))}
        for a, b in zip(firsts, seconds)
    ]
    (tmp_path / "train.jsonl").write_text(lines(*rows))
    wanted = recipe(place / "model", tmp_path / "train.jsonl", "train.epochs=1")
    model = load(place / "model")
    task, splits = classify(wanted, model, lambda sentence: None)
    ids, types = model.tokenizer.encode_pair(firsts[0], seconds[0])
    assert splits.train[0].read == Read(ids, types) and 1 in types
    (batch,) = task.stream(splits.train, 0)(0)
    assert batch.types is not None and batch.tokens.shape == batch.types.shape
    finetune(wanted, tmp_path / "run")
    tuned = load(tmp_path / "run" / "model")
    pairs = list(zip(firsts[:5], seconds[:5]))
    answers = tuned.classify(pairs)
    alone = tuned.classify(pairs[0])
    assert alone.probabilities == pytest.approx(answers[0].probabilities, abs=1e-6)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "run" / "model"
    ).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    for (first, second), answer in zip(pairs, answers):
        with torch.no_grad():
            said = theirs(**their_tokenizer(first, second, return_tensors="pt")).logits[0]
        expected = (said / tuned.extras.temperature).softmax(-1).tolist()
        assert list(answer.probabilities.values()) == pytest.approx(expected, abs=1e-5)


# the families, and `transformers` ----------------------------------------------------------------

SPELT = [
    *("bert-tiny", "roberta-base", "distilbert-base", "modernbert-base", "eurobert-210m"),
    *("tercet-tiny-encoder", "gpt1", "gpt2", "llama2-7b", "mistral-7b", "tercet-tiny-decoder"),
    *("t5-small", "bart-base"),
]


@pytest.mark.parametrize("name", SPELT)
def test_transformers_opens_the_folder_with_the_same_logits(name: str, tmp_path: Path):
    model = load(model_folder(tmp_path / "body", name))
    network = with_classifier(model.network, 3, seed=1, model_type=model.extras.model_type)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.heads.parameters():
            parameter.normal_(0, 0.3)
    from dataclasses import replace

    extras = replace(model.extras, labels=("x", "y", "z"), problem="single_label_classification")
    LanguageModel(network, model.tokenizer, extras).save(tmp_path / "tuned")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    theirs.eval()
    assert theirs.config.id2label == {0: "x", 1: "y", 2: "z"}
    assert theirs.config.problem_type == "single_label_classification"
    again = load(tmp_path / "tuned")
    texts = ["the red house", "one two old river finds the blue tree", "a"]
    ours = logits(again.network, read(again.tokenizer, texts, again.limit, "error", CutReport()))
    for text, row in zip(texts, ours):
        with torch.no_grad():
            said = theirs(torch.tensor([again.tokenizer.encode(text)])).logits[0]
        assert torch.allclose(said, row, atol=1e-5), (said, row)
    assert again.can[:2] == ("embed", "classify")
    assert {answer.label for answer in again.classify(texts)} <= {"x", "y", "z"}


@pytest.mark.parametrize("name", ["gpt2", "t5-small", "marian-base"])
def test_other_families_learn(name: str, tmp_path: Path):
    folder = model_folder(tmp_path / "model", name)
    train = table(tmp_path / "train.jsonl", 300, 1)
    test = table(tmp_path / "test.jsonl", 60, 2)
    wanted = recipe(folder, train, "train.epochs=5", "train.learning_rate=1e-2", test=[str(test)])
    assert finetune(wanted, tmp_path / "run")["test"]["mean"]["accuracy"] > 0.85
    assert load(tmp_path / "run" / "model").classify("the red house").label == "yes"


def test_another_pool_is_kept_in_our_own_spelling(place: Path, tmp_path: Path):
    train = table(tmp_path / "train.jsonl", 60, 1)
    for pool in ("mean", "last"):
        finetune(
            recipe(place / "model", train, f"classify.pool={pool}", "train.epochs=1"),
            tmp_path / pool,
        )
        model = load(tmp_path / pool / "model")
        assert model.config.pool == pool and model.config.heads == ("classifier",)
        assert model.extras.labels == ("no", "yes")
        settings = json.loads((tmp_path / pool / "model" / "config.json").read_text())
        assert settings["model_type"] == "tercet"
        assert model.extras.temperature != 1


# pieces ------------------------------------------------------------------------------------------


def test_a_step_is_cut_without_changing_it():
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(40, (n % 17 + 3,), generator=draw).tolist() for n in range(50)]
    labels = [n % 2 for n in range(50)]
    drawn = LabelledTexts(texts, labels, rows=12, seed=1)
    whole, cut = Stream(drawn, Labelled()), Stream(drawn, Labelled(), micro_tokens=40)
    seen: list[int] = []
    for step in range(25):  # six epochs
        (batch,), parts = whole(step), cut(step)
        assert batch.counts == (12,) and sum(part.counts[0] for part in parts) == 12
        assert len(parts) > 1 and torch.equal(torch.cat([p.tokens for p in parts]), batch.tokens)
        assert batch.labels is not None
        for (_, number), ids, label in zip(
            batch.keys, batch.layout.split(batch.tokens), batch.labels.tolist()
        ):
            assert ids.tolist() == texts[number] and label == labels[number]
            seen.append(number)
    assert sorted(seen) == sorted(list(range(50)) * 6)


def test_an_encoder_decoder_reads_a_text_twice():
    drawn = LabelledTexts([[5, 6, 7], [8, 9]], [0, 1], rows=2)
    batch = Labelled(start_id=1).batch(drawn.samples(0))
    assert batch.source is not None
    source = [ids.tolist() for ids in batch.layout.split(batch.source)]
    read_ = [ids.tolist() for ids in batch.layout.split(batch.tokens)]
    assert sorted(source) == [[5, 6, 7], [8, 9]] and sorted(read_) == [[1, 5, 6], [1, 8]]


def test_the_body_is_taken_over_and_the_head_is_new():
    network = build(ENCODER, seed=3)
    new = with_classifier(network, 3, pool="mean")
    assert new.config.heads == ("classifier",) and new.config.dropout == 0.1
    own = network.state_dict()
    for name, value in new.state_dict().items():
        if not name.startswith("heads.classifier"):
            assert torch.equal(value, own[name])
    pooled = with_classifier(build(ENCODER.replace(heads=("masked", "pooler"))), 2)
    assert pooled.config.heads == ("pooler", "classifier") and pooled.config.pool == "first"
    again = with_classifier(new, 3, pool="mean", seed=9)
    assert not torch.equal(again.heads.classifier.weight, new.heads.classifier.weight)  # type: ignore[union-attr]


def test_losses_equal_torch_and_weights_mean_one():
    network = with_classifier(build(ENCODER, seed=3), 3, dropout=0.0).eval()
    texts = [[4, 5, 6], [7, 8], [9], [10, 11, 3, 4]]

    def said(labels: Any) -> tuple[Any, torch.Tensor]:
        batch = Labelled().batch(LabelledTexts(texts, labels, rows=4).samples(0))
        states = network.states(batch.tokens, batch.layout)
        return batch, network.heads.classify(states, batch.layout)

    with torch.no_grad():
        batch, rows = said([0, 1, 2, 2])
        loss = torch.nn.functional.cross_entropy(rows, batch.labels, reduction="sum")
        assert torch.allclose(Classification()(network, batch), loss[None])
        weights = kinds.class_weights(torch.tensor([1.0, 1.0, 2.0]).double(), "balanced")
        assert weights == pytest.approx([4 / 3, 4 / 3, 2 / 3])
        loss = torch.nn.functional.cross_entropy(
            rows, batch.labels, torch.tensor(weights), reduction="sum"
        )
        assert torch.allclose(Classification(weights)(network, batch), loss[None])
        several = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
        batch, rows = said(several)
        assert batch.counts == (12,)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            rows, batch.labels, reduction="sum"
        )
        assert torch.allclose(SeveralLabels()(network, batch), loss[None])
        single = with_classifier(build(ENCODER, seed=3), 1, dropout=0.0).eval()
        network = single
        batch, rows = said([0.5, -1.0, 2.0, 0.0])
        loss = ((rows[:, 0] - batch.labels) ** 2).sum()
        assert torch.allclose(Regression()(network, batch), loss[None])
    effective = kinds.class_weights(torch.tensor([10.0, 1000.0]).double(), "effective")
    assert effective is not None
    assert effective[0] / effective[1] == pytest.approx((1 - 0.999**1000) / (1 - 0.999**10))
    assert (10 * effective[0] + 1000 * effective[1]) / 1010 == pytest.approx(1)


def test_temperature_gives_the_least_loss():
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(4000, 3, generator=draw)
    labels = torch.distributions.Categorical(logits=truth).sample()
    found = kinds.temperature(lambda t: torch.nn.functional.cross_entropy(3 * truth / t, labels))
    assert found == pytest.approx(3, rel=0.1)
    head = torch.nn.Linear(2, 3)
    facts = kinds.One(("a", "b", "c")).finish(head, 3 * truth, labels)
    assert facts["temperature"] == pytest.approx(found) and facts["calibration_error"] < 0.03
    assert calibration_error(np.array([0.9, 0.9]), np.array([True, False])) == pytest.approx(0.4)


def test_a_long_pair_loses_the_end_of_the_longer_text(place: Path):
    tokenizer = load(place / "model").tokenizer
    first, second = "red house " * 20, "blue tree sees"
    whole, types = tokenizer.encode_pair(first, second)
    theirs = transformers.AutoTokenizer.from_pretrained(place / "model")
    report = CutReport()
    for pair in ((first, second), (second, first), (first, first)):
        for limit in (12, 13, 20):
            (found,) = read(tokenizer, [pair], limit, "keep-start", report)
            expected = theirs(*pair, truncation="longest_first", max_length=limit)
            assert found.ids == expected["input_ids"] and found.types == expected["token_type_ids"]
    assert report.cut_texts == report.texts == 9
    with pytest.raises(InputError, match="and its pair have"):
        read(tokenizer, [(first, second)], 12, "error", report)


# what is refused, and what is said ---------------------------------------------------------------


@pytest.mark.parametrize(
    "rows, changes, said",
    [
        ([{**row, "label": "a"} for row in GOOD], (), "all 24 training rows have the label 'a'"),
        (
            GOOD,
            ("data.columns.label=lable",),
            "no column 'lable' for the label; did you mean 'label'",
        ),
        (
            [{**row, "more": 1, "label2": 2} for row in GOOD],
            ("data.columns.text=txt",),
            "did you mean 'text'",
        ),
        ([{"a": "x", "b": "y", "c": "z"}], (), "which column is the text. There are 'a', 'b', 'c'"),
        ([*GOOD, {"text": "x", "label": None}], (), r"row 25: has no label \(None\)"),
        ([*GOOD, {"text": "x", "label": math.nan}], (), r"row 25: has no label \(nan\)"),
        (
            [
                *({**row, "label": i % 2} for i, row in enumerate(GOOD)),
                {"text": "x", "label": "nan"},
            ],
            (),
            "row 25: the value 'nan' is no number",
        ),
        ([*GOOD, {"text": 5, "label": "no"}], (), "row 25: the text 5 is int, not a text"),
        (
            [{"text": t["text"], "label": i + 0.5} for i, t in enumerate(GOOD)]
            + [{"text": "x", "label": math.nan}],
            (),
            "row 25: the value nan is no number",
        ),
        ([{**row, "label": 1.5} for row in GOOD], (), "all 24 training rows have the value 1.5"),
        (
            [{**row, "label": i + 0.5} for i, row in enumerate(GOOD)],
            ("train.class_weights=balanced",),
            "'balanced' is for labels, not for numbers; leave it out",
        ),
        (
            [{**row, "label": ""} for row in GOOD],
            ("classify.kind=labels",),
            "no training row has a label",
        ),
        (
            [{**row, "label": ["red", "big"]} for row in GOOD],
            (),
            "all 24 training rows have the labels big, red; give rows with others",
        ),
        (GOOD, ("task=embed", "train.class_weights=balanced"), "for the tasks classify and tag"),
        (GOOD, ("task=embed", "data.overflow=error"), "'error' is for the task classify"),
        (GOOD, ("embed.negatives=3",), "embed: its settings are for the task embed, and classify"),
        ([{"text": " ", "label": "a"}], (), "no row has a text in column 'text'"),
        (
            [{**GOOD[i % 24], "label": f"name {i}"} for i in range(300)],
            (),
            "300 different labels in 300 rows .*: name another column$",
        ),
        (
            [{**GOOD[i % 24], "label": i} for i in range(300)],
            (),
            "name another column, or set classify.kind to number$",
        ),
    ],
)
def test_bad_rows(place: Path, rows: list[dict[str, Any]], changes: tuple[str, ...], said: str):
    with pytest.raises(InputError, match=said):
        (place / "bad.jsonl").write_text(lines(*rows))
        task, splits = classify(
            recipe(place / "model", place / "bad.jsonl", *changes),
            load(place / "model"),
            lambda sentence: None,
        )
        task.objective(splits.train)


def test_a_label_that_was_never_learned(place: Path):
    (place / "odd.jsonl").write_text(lines(GOOD[0], {"text": "the red house", "label": "yess"}))
    with pytest.raises(
        InputError,
        match=r"odd.jsonl, row 2: the label 'yess' stands in no training row.*did you mean 'yes'",
    ):
        said_of(place, lines(*GOOD), test=[str(place / "odd.jsonl")])
    (place / "odd.jsonl").write_text(lines({"text": "the red house", "label": "maybe"}))
    with pytest.raises(
        InputError, match="training row; there are 'no', 'yes'. Add training rows of it, or drop"
    ):
        said_of(place, lines(*GOOD), test=[str(place / "odd.jsonl")])


def test_what_is_odd_in_the_rows_is_said(place: Path):
    more = [GOOD[0], GOOD[0], {**GOOD[1], "label": "no"}, {"text": "  ", "label": "no"}]
    (place / "test.jsonl").write_text(lines(GOOD[3], {"text": "one tree " * 40, "label": "no"}))
    said = said_of(place, lines(*GOOD, *more), test=[str(place / "test.jsonl")])
    assert "text from column 'text', label from column 'label' (by their names)" in said
    assert "train: 1 rows without a text are left out" in said
    assert "train: 2 rows come twice or more often" in said
    assert "train: 1 texts stand there with different labels" in said
    assert "test: 1 of 2 texts stand in train too" in said
    assert "test: 50 % of texts lost" in said and "(limit 40, overflow 'keep-start')" in said
    rare = [{"text": text, "label": "no"} for text in sentences(60, 9)]
    said = said_of(place, lines(*rare, {"text": "red", "label": "yes"}))
    assert "98.4% of the training rows are 'no'" in said and "class_weights=balanced" in said


def test_thirty_thousand_labels(place: Path):
    """As many as rows: refused. Each several times: the memory is said."""
    rows = [{"text": f"the {i}", "label": f"n{i}"} for i in range(30_000)]
    with pytest.raises(
        InputError, match=r"30,000 different labels in 30,000 rows \(it would take 15 MiB"
    ):
        said_of(place, lines(*rows))
    said = said_of(place, lines(*rows, *rows))
    assert "30,000 labels take 15 MiB for the head" in said


def test_text_too_long_and_policy_error(place: Path):
    """The row is named as the file numbers it, whatever was left out before it."""
    long = {"text": "one tree " * 40, "label": "no"}
    blank = [{"text": " ", "label": "no"}] * 3
    said = (
        r"rows.jsonl, row 28: has 8\d tokens and the model takes 40; shorten the text, or set "
        "data.overflow to keep-start, keep-end or middle-out$"
    )
    with pytest.raises(InputError, match=said):
        said_of(place, lines(*GOOD, *blank, long), overflow="error")
    pairs = [{**row, "text2": "a tree"} for row in (*GOOD, *blank, long)]
    with pytest.raises(InputError, match=said):
        said_of(place, lines(*pairs), overflow="error")
    assert "train" not in said_of(place, lines(*GOOD), overflow="error")


def test_tables_without_names(place: Path):
    text = "".join(f"{row['label']}\t{row['text']}\n" for row in GOOD)
    said = said_of(place, text, name="bare.tsv", columns={"text": "2", "label": "1"})
    assert "text from column '2', label from column '1'" in said and "by their" not in said
    said = said_of(place, "topic,question\n" + "".join(f"{r['label']},{r['text']}\n" for r in GOOD),
                   name="two.csv", columns={"label": "topic"})  # fmt: skip
    assert "text from column 'question'" in said


def test_what_was_refused_before_the_first_step_leaves_nothing_behind(place: Path, tmp_path: Path):
    rows = [{**row, "label": i + 0.5} for i, row in enumerate(GOOD)]
    train = tmp_path / "rows.jsonl"
    train.write_text(lines(*rows))
    changes = ("train.epochs=1", "train.class_weights=balanced")
    with pytest.raises(InputError, match="is for labels, not for numbers; leave it out"):
        finetune(recipe(place / "model", train, *changes), tmp_path / "run")
    result = finetune(recipe(place / "model", train, changes[0]), tmp_path / "run")
    assert result["data"]["kind"] == "number"


def test_how_labels_look():
    at = lambda *values: [("row", value) for value in values]  # noqa: E731
    assert kinds.kind_of(at("1", "0"), None, None) == "label"
    assert kinds.kind_of(at("1", "0.5"), None, None) == "number"
    assert kinds.kind_of(at("1", "0.5", "nan"), None, None) == "number"
    assert kinds.kind_of(at("1", "0", math.nan), None, None) == "number"
    assert kinds.listed(math.nan, None) == kinds.listed(None, None) == []
    assert kinds.kind_of(at("a", "0.5"), None, None) == "label"
    assert kinds.kind_of(at(True, False), None, None) == "label"
    assert kinds.kind_of(at(["a"], []), None, None) == "labels"
    assert kinds.kind_of(at("a|b"), None, "|") == "labels"
    assert kinds.kind_of(at("0.5", "1"), "label", None) == "label"
    assert kinds.in_order({"10", "9", "1"}) == ("1", "9", "10")
    assert kinds.in_order({"nan", "fra", "cmn", "inf"}) == ("cmn", "fra", "inf", "nan")
    assert kinds.listed(["red", None, " "], None) == ["red"]
    assert kinds.listed([0, 2], None) == ["0", "2"] and kinds.listed(0, None) == ["0"]


def test_thousands_of_labels_at_once_take_a_byte_each():
    several = kinds.Several(tuple(f"label {i:05}" for i in range(30_000)))
    target = several.target(["label 00007", "label 29999", "label 00007"], "row 1")
    assert target == (7, 29_999)
    there = several.stacked([target, ()])
    assert there.element_size() == 1 and there.sum(1).tolist() == [2, 0]


def test_dropout_is_what_was_asked_wherever_the_model_has_some(place: Path):
    body = load(place / "model").network
    assert body.config.attention_dropout == 0.1
    for share in (0.0, 0.3):
        config = with_classifier(body, 2, dropout=share).config
        found = (config.dropout, config.head_dropout, config.attention_dropout)
        assert found == (share,) * 3 and config.activation_dropout == 0


# the method --------------------------------------------------------------------------------------


def test_the_method_and_its_refusals(place: Path, tmp_path: Path):
    body = load(place / "model")
    with pytest.raises(InputError, match="cannot classify; it can embed"):
        body.classify("the red house")
    tagger = LanguageModel(build(body.config.replace(heads=("tagger",))), body.tokenizer)
    with pytest.raises(InputError, match="heads: tagger.* cannot classify"):
        tagger.classify("the red house")
    train = table(tmp_path / "train.jsonl", 60, 1)
    finetune(recipe(place / "model", train, "train.epochs=1"), tmp_path / "run")
    model = load(tmp_path / "run" / "model")
    answers = model.classify(["the red house", "one tree"])
    assert [str(answer) for answer in answers] == [answer.label for answer in answers]
    assert model.classify("the red house").probability == pytest.approx(answers[0].probability)
    with pytest.raises(InputError, match="text 2 is empty"):
        model.classify(["a", " "])
    with pytest.raises(InputError, match="a tuple of 3; a pair has two"):
        model.classify(("a", "b", "c"))
    with pytest.raises(InputError, match="a text must be a string, not 5"):
        model.classify([5])
    with pytest.raises(InputError, match="holds no text"):
        model.classify([])
    with pytest.raises(InputError, match="takes 40; .* policy: keep-start, keep-end, middle-out$"):
        model.classify("one tree " * 40)
    with pytest.warns(CutWarning, match="lost"):
        model.classify(["one tree " * 40])
    with pytest.raises(InputError, match="is not for labels"):
        model.classify(["a"], overflow="slide")


def test_what_was_kept_of_long_texts_is_kept_in_use(place: Path, tmp_path: Path):
    """The word that tells stands behind 60 others, in a context of 40."""
    texts = ["one tree " * 30 + text for text in sentences(120, 1)]
    rows = [{"text": text, "label": label_of(text)} for text in texts]
    for name, part in (("train", rows[:80]), ("test", rows[80:])):
        (tmp_path / f"{name}.jsonl").write_text(lines(*part))
    how = ("data.overflow=keep-end", "train.epochs=12", "train.learning_rate=1e-2")
    wanted = recipe(place / "model", tmp_path / "train.jsonl", *how, "train.dropout=0")
    wanted = replace(wanted, data=replace(wanted.data, test=[str(tmp_path / "test.jsonl")]))
    measured = finetune(wanted, tmp_path / "run")["test"]["mean"]["accuracy"]
    model = load(tmp_path / "run" / "model")
    with pytest.warns(CutWarning, match="keep-end"):
        said = model.classify(texts[80:])
    right = [answer.label == row["label"] for answer, row in zip(said, rows[80:])]
    assert sum(right) / 40 == measured >= 0.9
    with pytest.warns(CutWarning):
        assert model.classify(texts[80]).label == said[0].label  # of one text too
        start = model.classify(texts[80:], overflow="keep-start")
    assert len({answer.label for answer in start}) == 1  # nothing tells there
    model.save(tmp_path / "again")
    assert load(tmp_path / "again").extras.overflow == "keep-end"


@needs_data
@pytest.mark.slow
def test_a_real_encoder_beats_its_own_frozen_vectors(minilm: Path, tmp_path: Path):
    """TREC, 500 training questions: fine-tuned against the probe of the same vectors."""
    from tercet.data.documents import records
    from tercet.evaluate.probe import probe

    files = {}
    for name, start, stop in (("train", 0, 500), ("train", 500, 700), ("test", 0, 500)):
        source = str(DATA / "trec" / ("train.tsv.gz" if name == "train" else "test.tsv"))
        rows = list(records(source))[start:stop]
        files[name, start] = (
            [row["text"] for row in rows],
            [row["coarse"] for row in rows],
            tmp_path / f"{name}-{start}.jsonl",
        )
        (tmp_path / f"{name}-{start}.jsonl").write_text(lines(*rows))
    parts = list(files.values())
    wanted = recipe(
        minilm, parts[0][2], "data.columns.label=coarse", "train.epochs=6",
        "train.learning_rate=2e-4", "train.rows=32", "train.dropout=0.1",
        validation=[str(parts[1][2])], test=[str(parts[2][2])],
    )  # fmt: skip
    result = finetune(wanted, tmp_path / "run")
    frozen = probe(load(minilm), *(part[:2] for part in parts)).test
    assert result["test"]["mean"]["accuracy"] > frozen.accuracy + 0.03

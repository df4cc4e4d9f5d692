"""Fine-tuning for tags and answers: that it learns, what it says of the data, what it refuses."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

import tercet
from tercet.config import TransformerConfig
from tercet.data.questions import Answered
from tercet.errors import InputError
from tercet.jobs.finetune import finetune
from tercet.jobs.finetune.answer import answer, places_of
from tercet.jobs.finetune.bodies import under_head
from tercet.jobs.finetune.page import page
from tercet.jobs.finetune.settings import Data, FinetuneRecipe, Tuning
from tercet.jobs.finetune.tag import TagTask, tag
from tercet.language_model import LanguageModel
from tercet.model import build
from tercet.text import train_tokenizer
from tercet.text.windows import context_windows

NAMES, PLACES = ("Ada", "Bo", "Cleo", "Dan"), ("London", "Paris", "Rome", "Oslo")
VERBS = ("met", "saw", "left")
SIZES = dict(context_length=48, d_model=32, d_ff=64, n_heads=4)
ENCODER = dict(encoder_layers=2, heads=("masked",), token_types=2)


def sentence(draw: random.Random) -> tuple[list[str], list[str]]:
    """ "Ada Bo met Cleo in New York ." with its tags."""
    name = draw.sample(NAMES, k=draw.randrange(1, 3))
    place = ["New", draw.choice(PLACES)] if draw.random() < 0.5 else [draw.choice(PLACES)]
    words = [*name, draw.choice(VERBS), draw.choice(NAMES), "in", *place, "."]
    tags = ["B-person", *["I-person"] * (len(name) - 1), "O", "B-person", "O"]
    return words, [*tags, "B-place", *["I-place"] * (len(place) - 1), "O"]


def sentences(n: int, seed: int) -> list[tuple[list[str], list[str]]]:
    draw = random.Random(seed)
    return [sentence(draw) for _ in range(n)]


def conll(folder: Path, name: str, rows: list[tuple[list[str], list[str]]]) -> str:
    lines = ["".join(f"{word}\t{tag}\n" for word, tag in zip(*row)) for row in rows]
    (folder / name).write_text("\n".join(lines))
    return str(folder / name)


def saved(folder: Path, **shape) -> str:
    texts = [" ".join(words) for words, _ in sentences(50, 9)] + ["Who met whom? Where was it?"] * 5
    tokenizer = train_tokenizer(texts, kind="wordpiece", vocab_size=160, special="encoder")
    ids = dict(eos_ids=(3,), start_id=1) if "decoder_layers" in shape else {}
    config = TransformerConfig(vocab_size=tokenizer.vocab_size, **SIZES, **(shape | ids))
    LanguageModel(build(config, 0), tokenizer).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("encoder"), **ENCODER)


def recipe(model: str, task: str, train: str, *, tuning: Tuning | None = None, **data):
    tuning = tuning or Tuning(epochs=6, learning_rate=3e-3, rows=8)
    return FinetuneRecipe(model, task, Data([train], **data), tuning)


def read_tags(model: str, train: str, **changes) -> tuple[TagTask, list[str]]:
    said: list[str] = []
    task, _ = tag(recipe(model, "tag", train, **changes), tercet.load(model), said.append)
    return task, said


# tags ---------------------------------------------------------------------------------------------


def test_entities_are_learned(encoder: str, tmp_path: Path) -> None:
    train, test = conll(tmp_path, "a.conll", sentences(160, 0)), sentences(40, 1)
    wanted = recipe(encoder, "tag", train, test=[conll(tmp_path, "b.conll", test)])
    result = finetune(wanted, tmp_path / "run")
    assert result["metric"] == "f1" and result["test"]["mean"]["f1"] > 0.9
    assert {"precision", "recall", "accuracy", "f1 person"} <= set(result["test"]["mean"])
    assert result["data"]["labels"] == ["B-person", "B-place", "I-person", "I-place", "O"]
    model = tercet.load(tmp_path / "run" / "model")
    assert model.can[:2] == ("embed", "tag")
    found = model.tag([words for words, _ in test])
    right = sum([t.tag for t in tags] == true for tags, (_, true) in zip(found, test))
    assert right > 30
    entities = model.tag("Ada Bo saw Dan in New Paris.")
    assert [(one.text, one.tag) for one in entities] == [
        ("Ada Bo", "person"),
        ("Dan", "person"),
        ("New Paris", "place"),
    ]
    values = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert values["id2label"]["0"] == "B-person"
    counts = json.loads((tmp_path / "run" / "findings.json").read_text())["confusion"]
    n = sum(count for *_, count in counts)
    assert n == sum(len(words) for words, _ in test)
    same = sum(count for true, said, count in counts if true == said)
    assert same / n == pytest.approx(result["test"]["mean"]["accuracy"])
    assert f"what was said of the {n} test words" in str(page(tmp_path / "run"))


@pytest.mark.parametrize("family", ["decoder", "encoder-decoder"])
def test_other_families_are_tagged_too(family: str, tmp_path: Path) -> None:
    layers = {"decoder_layers": 1, "heads": ("language",)}
    layers |= {"encoder_layers": 1} if family == "encoder-decoder" else {}
    model = saved(tmp_path / "model", **layers)
    draw = random.Random(3)
    words = [draw.choices((*NAMES, *VERBS), k=6) for _ in range(120)]
    rows = [(one, ["NOUN" if word in NAMES else "VERB" for word in one]) for one in words]
    train = conll(tmp_path, "a.conll", rows)
    result = finetune(recipe(model, "tag", train), tmp_path / "run")
    assert result["metric"] == "accuracy" and result["validation"]["mean"]["accuracy"] > 0.95
    found = tercet.load(tmp_path / "run" / "model")
    assert found.config.family == ("encoder" if family == "encoder-decoder" else family)
    assert [one.tag for one in found.tag("Ada met Bo")] == ["NOUN", "VERB", "NOUN"]


def test_a_body_keeps_its_weights_under_a_new_head(encoder: str) -> None:
    old = tercet.load(encoder).network
    new = under_head(old, "tagger", 1, n_labels=7, dropout=0.2)
    own = old.state_dict()
    assert new.config.heads == ("tagger",) and new.config.dropout == new.config.head_dropout == 0.2
    for name, value in new.state_dict().items():
        assert name.startswith("heads.tagger.") or torch.equal(value, own[name])
    other = under_head(new, "tagger", 2, n_labels=7)
    assert not torch.equal(other.heads.tagger.weight, new.heads.tagger.weight)  # type: ignore[union-attr]


def test_class_weights_reach_the_loss(encoder: str, tmp_path: Path) -> None:
    train = conll(tmp_path, "a.conll", sentences(30, 0))
    tuning = Tuning(class_weights="balanced")
    task, _ = read_tags(encoder, train, tuning=tuning)
    _, splits = tag(recipe(encoder, "tag", train, tuning=tuning), task.model, lambda said: None)
    weights = task.objective(splits.train).weights
    assert weights is not None and len(weights) == 5
    counts = task.facts["words_of_tag"]
    by_tag = dict(zip(task.labels, weights))
    assert by_tag["I-place"] > by_tag["B-person"] > by_tag["O"] or counts["O"] < counts["B-person"]
    assert read_tags(encoder, train)[0].objective(splits.train).weights is None


def test_what_is_said_of_the_sentences(encoder: str, tmp_path: Path) -> None:
    rows = sentences(20, 0)
    rows += [(["Bo", "met", "Ada"], ["I-person", "O", "I-place"]), rows[0]]
    test = [*rows[:3], (["Bo", "ran"], ["B-person", "B-deed"])]
    task, said = read_tags(
        encoder, conll(tmp_path, "a.conll", rows), test=[conll(tmp_path, "b.conll", test)]
    )
    text = "\n".join(said)
    assert "a.conll: 22 sentences, words from column '1', tags from column '2'" in text
    assert "2 tags were illegal" in text and task.facts["illegal_tags"] == 2
    assert "train: 1 rows come twice" in text
    assert "test: 3 of 4 sentences stand in train too" in text
    assert "test: 1 words have tags that stand in no training sentence ('B-deed')" in text
    assert set(task.labels) == {"B-person", "I-person", "B-place", "I-place", "O"}


def test_a_tag_that_nearly_all_words_have(encoder: str, tmp_path: Path) -> None:
    rows = [(["met"] * 99 + ["Ada"], ["O"] * 99 + ["B-person"])]
    said = read_tags(encoder, conll(tmp_path, "a.conll", rows))[1]
    assert any("99.0% of the words have the tag 'O'; --set train.class_weights" in s for s in said)


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([(["Ada", "met"], ["X", "X"])], {}, "all words have the one tag 'X'"),
        ([([f"w{i}"], [f"t{i}"]) for i in range(1001)], {}, "1,001 different tags in 1,001 words"),
        (sentences(3, 0), {"tags": "2"}, r"data\.columns\.tags is no part of a sentence"),
        (sentences(3, 0), {"label": "7"}, "has no column '7'; give a number from 1 to 2"),
    ],
)
def test_tags_that_cannot_be_learned(encoder, tmp_path, rows, columns, said) -> None:
    with pytest.raises(InputError, match=said):
        read_tags(encoder, conll(tmp_path, "a.conll", rows), columns=columns)


# answers ------------------------------------------------------------------------------------------


def squad(folder: Path, name: str, n: int, seed: int) -> str:
    """Who met? and where? of short stories, whose answers stand at different places."""
    draw = random.Random(seed)
    paragraphs = []
    for i in range(n):
        hero, other, place = draw.choice(NAMES), draw.choice(NAMES), draw.choice(PLACES)
        start = " ".join(["It was", *["so"] * draw.randrange(6)])
        context = f"{start}. {hero} met {other} in New {place}."
        where, who = context.index("New"), context.index(f"{hero} met")
        asked = [("Where?", f"New {place}", where), ("Who met?", hero, who)]
        qas = [
            {"id": f"{i}-{k}", "question": q, "answers": [{"text": a, "answer_start": at}]}
            for k, (q, a, at) in enumerate(asked)
        ]
        paragraphs.append({"context": context, "qas": qas})
    (folder / name).write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return str(folder / name)


def test_answers_are_learned(encoder: str, tmp_path: Path) -> None:
    train, test = squad(tmp_path, "a.json", 150, 0), squad(tmp_path, "b.json", 30, 1)
    wanted = recipe(encoder, "answer", train, test=[test])
    result = finetune(wanted, tmp_path / "run")
    assert result["metric"] == "f1" and result["test"]["mean"]["f1"] > 0.8
    assert set(result["test"]["mean"]) == {"f1", "exact"}
    model = tercet.load(tmp_path / "run" / "model")
    found = model.answer("Where?", "It was so. Dan met Bo in New Rome.")
    assert found.text == "New Rome" and found.probability > 0.2
    mistakes = json.loads((tmp_path / "run" / "findings.json").read_text())["mistakes"]
    assert mistakes["of"] == result["test"]["n"] == 60
    for row in mistakes["shown"]:
        assert not set(row["said"].split()) & set(row["label"].split())
    assert ("The surest mistakes" in (drawn := str(page(tmp_path / "run")))) and "60" in drawn


@pytest.mark.parametrize("task", ["tag", "answer"])
def test_a_step_is_cut_where_memory_is_short(encoder: str, tmp_path: Path, task: str) -> None:
    """What the cuts sum to: test_train_places.py."""
    if task == "tag":
        train = conll(tmp_path, "a.conll", sentences(40, 0))
    else:
        train = squad(tmp_path, "a.json", 20, 0)
    found = []
    for micro_tokens in (8192, 60):
        wanted = recipe(encoder, task, train, tuning=Tuning(rows=16, micro_tokens=micro_tokens))
        made, splits = {"tag": tag, "answer": answer}[task](wanted, tercet.load(encoder), print)
        found.append(made.stream(splits.train, 0)(0))
    (whole,), parts = found
    assert len(parts) > 2 and all(len(part.tokens) < 120 for part in parts)
    assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)


def test_where_an_answer_stands_in_a_window(encoder: str) -> None:
    tokenizer = tercet.load(encoder).tokenizer
    context = " ".join(["Ada met Bo in Rome."] * 10)
    start = context.rindex("Bo")
    windows = context_windows(tokenizer, "Who?", context, 32)
    places = [places_of(window, ("Bo in", start)) for window in windows]
    assert len(windows) > 3 and places[0] == (0, 0)
    for window, (first, last) in zip(windows, places):
        if (first, last) != (0, 0):
            at, end = (place - window.context.start for place in (first, last))
            assert (window.characters[at][0], window.characters[end][1]) == (start, start + 5)
    assert sum(place != (0, 0) for place in places) in (1, 2)
    assert places_of(windows[0], (" met ", 3)) == (windows[0].context.start + 1,) * 2
    assert Answered("1", "q", "c", [("b", 1), ("a", 0), ("a", 0)]).usual == ("a", 0)


def test_questions_that_cannot_be_learned(encoder: str, tmp_path: Path) -> None:
    model, train = tercet.load(encoder), squad(tmp_path, "a.json", 3, 0)
    for question, wrong in (("", "is empty"), ("where " * 40, r"has \d+ tokens")):
        content = json.loads(Path(train).read_text())
        content["data"][0]["paragraphs"][2]["qas"][1]["question"] = question
        (tmp_path / "b.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=f"question '2-1' {wrong}"):
            answer(recipe(encoder, "answer", train, test=[str(tmp_path / "b.json")]), model, print)
    with pytest.raises(InputError, match=r"files in the form of SQuAD have no columns"):
        answer(recipe(encoder, "answer", train, columns={"text": "x"}), model, print)
    said: list[str] = []
    task, splits = answer(recipe(encoder, "answer", train, test=[train]), model, said.append)
    assert f"{train}: 6 questions" in said
    assert "test: 6 of 6 contexts stand in train too" in said
    long = [Answered("7", "Where? " * 50, "Ada met Bo. " * 20, [("Ada", 0)])]
    with pytest.raises(InputError, match="question '7' has 100 tokens"):
        task.stream(long, 0)
    assert len(splits.train) == 6 and not splits.validation

"""Multiple choice and last words: against `transformers`, one text at a time, as the published
definitions have it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from small_decoders import TEXTS, save_decoder, save_rows

import tercet
from tercet.config import TransformerConfig
from tercet.errors import InputError
from tercet.evaluate import significance
from tercet.evaluate.choice import answered, endings, last_words, values
from tercet.evaluate.tasks import (
    LAMBADA,
    TASKS,
    Question,
    Task,
    guessed,
    questions,
    unheaded,
    wikihow,
)
from tercet.model import build
from tercet.represent.score import Ending, foretold
from tercet.text import CutReport, Special, train_tokenizer

CONTEXT = 48
LONG = "The dog slept while the cat sat on the mat and looked at the water. " * 4
PAIRS = (
    ("Question: What keeps the cat warm?\nAnswer:", " its fur"),
    ("Question: What keeps the cat warm?\nAnswer:", " the rain that came before"),
    ("The dog slept while ", "the cat looked"),  # the space moves over
    ("", " Who should have been here"),
    ("", "no"),
    (LONG, " always"),  # longer than the context: the end is read
    (LONG, " never, because of the rain"),
    ("The cat", "s sat"),  # parted within a word
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_decoder(tmp_path_factory.mktemp("decoder"), context=CONTEXT)


@pytest.fixture(scope="module")
def model(folder: str) -> tercet.LanguageModel:
    return tercet.load(folder)


@pytest.fixture(scope="module")
def theirs(folder: str) -> tuple[Any, Any]:
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return network.eval(), transformers.AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def plainly(theirs: tuple[Any, Any], context: str, continuation: str) -> tuple[float, bool, int]:
    """Log-probability, greedy, and tokens that were cut off, of one text alone."""
    network, tokenizer = theirs
    moved = len(context) - len(context.rstrip())
    continuation = (context[-moved:] if moved else "") + continuation
    head = tokenizer.encode(context.rstrip()) or [tokenizer.eos_token_id]
    whole = tokenizer.encode(context.rstrip() + continuation)
    rest = whole[len(head) :] if context.strip() else whole
    ids = (head + rest)[-CONTEXT - 1 :]
    logits = network(torch.tensor([ids[:-1]])).logits[0, -len(rest) :]
    logs = logits.log_softmax(-1)[torch.arange(len(rest)), torch.tensor(rest)]
    greedy = logits.argmax(-1).tolist() == rest
    return float(logs.double().sum()), greedy, len(head) + len(rest) - len(ids)


def test_each_choice_costs_what_transformers_says_of_it_alone(model, theirs):
    asked = [
        Question("one", PAIRS[:2], ("its fur", "the rain"), 0),
        *(Question(f"row {i}", (pair,), ("x",), 0) for i, pair in enumerate(PAIRS[2:])),
        Question("long", PAIRS[5:7], ("always", "never"), 1),
    ]
    seen, report = [], CutReport()
    found = answered(model, asked, report, watch=lambda *said: seen.append(said))
    expected = [[plainly(theirs, *pair) for pair in question.pairs] for question in asked]
    for ours, wanted in zip(found, expected, strict=True):
        for one, (cost, greedy, _) in zip(ours, wanted, strict=True):
            assert one.log_probability == pytest.approx(cost, abs=1e-4)
            assert one.greedy == greedy
    lost = [max(cut for _, _, cut in wanted) for wanted in expected]
    assert report.cut_texts == 3 and report.lost_tokens == sum(lost) and report.texts == len(asked)
    assert seen[-1][0] == seen[-1][1] and len(seen) == len(asked)


def test_a_greedy_last_word_is_known(model, theirs):
    """What the network itself would write is its last word; another is not."""
    network, tokenizer = theirs
    for n in range(3, 40):  # a context behind which the likeliest token is one of its own
        context = LONG[:n].rstrip()
        ids = tokenizer.encode(context)
        best = int(network(torch.tensor([ids])).logits[0, -1].argmax())
        known = tokenizer.decode([best])
        if tokenizer.encode(context + known) == [*ids, best] and known.strip():
            break
    asked = [Question("a", ((context, known),), ("x",), 0), Question("b", (PAIRS[0],), ("x",), 0)]
    told = last_words(answered(model, asked, CutReport()))
    assert told["acc"] == [1.0, 0.0]
    assert told["log_probability"][1] == pytest.approx(plainly(theirs, *PAIRS[0])[0], abs=1e-4)


@given(st.data())
def test_a_shared_beginning_changes_nothing(data: st.DataObject):
    """Read once or with each ending: the same, of groups of any sizes, Transformer and LSTM."""
    mixer = data.draw(st.sampled_from(sorted(NETWORKS)))
    token = st.integers(0, 19)
    groups = []
    for _ in range(data.draw(st.integers(1, 4))):
        head = data.draw(st.lists(token, min_size=1, max_size=24))
        rests = data.draw(st.lists(st.lists(token, min_size=1, max_size=6), min_size=1, max_size=4))
        groups.append([Ending(head + rest, len(rest)) for rest in rests])
    network = NETWORKS[mixer]
    together = dict(foretold(network, groups))
    for number, group in enumerate(groups):
        for ending, one in zip(group, together[number], strict=True):
            ((_, (alone,)),) = foretold(network, [[ending]])
            assert one.log_probability == pytest.approx(alone.log_probability, abs=1e-4)


def small_network(mixer: str) -> Any:
    config = TransformerConfig(
        vocab_size=20,
        context_length=40,
        d_model=16,
        d_ff=24,
        n_heads=4 if mixer == "attention" else 1,
        decoder_layers=2,
        positions="rotary" if mixer == "attention" else "none",
        mixer=mixer,
        init_std=0.4,
    )
    return build(config, seed=0).eval()


NETWORKS = {mixer: small_network(mixer) for mixer in ("attention", "lstm")}


def test_tokens_as_the_published_rule_parts_them(model):
    tokenizer = model.tokenizer
    of = {(c, t): e for (c, t), e in zip(PAIRS, endings(tokenizer, [("", *p) for p in PAIRS]))}
    moved = of["The dog slept while ", "the cat looked"]
    assert moved.ids == tokenizer.encode("The dog slept while the cat looked")
    assert moved.n_targets == len(moved.ids) - len(tokenizer.encode("The dog slept while"))
    alone = of["", "no"]
    assert alone.ids == [tokenizer.eos_id, *tokenizer.encode("no")]
    (spelled,) = endings(tokenizer, [("x", "", "<|endoftext|>no")])
    assert spelled == alone  # it stands there once
    with pytest.raises(InputError, match="row 3: of '' no token is left"):
        endings(tokenizer, [("row 3", "The cat", "")])


def test_special_tokens_around_and_none_at_all():
    around = train_tokenizer(TEXTS, vocab_size=300, special="encoder")
    before, after = around.around
    assert before and after
    (one,) = endings(around, [("", "The cat", " sat")])
    assert one.ids == around.encode("The cat sat")[: -len(after)]
    assert one.ids[: len(before)] == before
    (twice,) = endings(around, [("", "[CLS]The cat", " sat")])
    assert twice.ids[:2] == [before[0], one.ids[1]]  # spelled in the text: it stands there once
    bare = train_tokenizer(TEXTS, vocab_size=300, special=Special({"unk": "[UNK]"}))
    assert endings(bare, [("", "The cat", " sat")])[0].n_targets > 0
    with pytest.raises(InputError, match="row 1: has no context, and the tokenizer no token that"):
        endings(bare, [("row 1", "", " sat")])


def test_a_choice_that_does_not_fit_alone_is_judged_by_its_end(model):
    asked = [Question("row 4", (("The cat", " " + LONG), ("The cat", " sat")), ("x", "y"), 0)]
    report = CutReport()
    ((long, _),) = answered(model, asked, report)
    ids = model.tokenizer.encode("The cat " + LONG)
    (alone,) = foretold(model.network, [[Ending(ids[-CONTEXT - 1 :], CONTEXT)]])
    assert long.log_probability == pytest.approx(alone[1][0].log_probability, abs=1e-4)
    assert (report.cut_texts, report.lost_tokens) == (1, len(ids) - CONTEXT - 1)


def test_no_figure_from_damaged_weights(folder: str):
    damaged = tercet.load(folder)
    with torch.no_grad():
        damaged.network.tokens.weight.fill_(torch.nan)
    with pytest.raises(InputError, match="row 9: the model's probabilities are no numbers"):
        answered(damaged, [Question("row 9", PAIRS[:2], ("a", "b"), 0)], CutReport())


def found_of(*costs: float) -> list[Any]:
    from tercet.represent.score import Foretold

    return [Foretold(cost, False) for cost in costs]


def test_the_three_ways_to_choose():
    asked = [Question("", (("", ""),) * 3, ("ab", "abcdef", "é" * 4), 1)]
    told = values(asked, [found_of(-2.0, -5.0, -3.6)], ("acc", "acc_norm", "acc_bytes"))
    # a token each: -2; a character: -1, -0.833, -0.9; a byte: -1, -0.833, -0.45
    assert told == {"acc": [0.0], "acc_norm": [1.0], "acc_bytes": [0.0]}
    tied = values(asked, [found_of(-1.0, -1.0, -1.0)], ("acc",))
    assert tied == {"acc": [0.0]}  # the first of equals


@given(st.lists(st.floats(-30, 0), min_size=2, max_size=40))
def test_standard_errors(column: list[float]):
    figure = significance.mean(column)
    assert figure.value == pytest.approx(np.mean(column))
    assert figure.error == pytest.approx(np.std(column, ddof=1) / len(column) ** 0.5, abs=1e-12)


def test_the_error_of_a_perplexity_is_that_of_pythons_draws(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(significance, "DRAWS", 600)
    monkeypatch.setattr(significance, "CHUNK", 200)
    costs = [-1.0, -2.5, -0.1, -7.0, -3.3, -3.3, -0.8]
    drawn = []
    for seed in range(3):
        source = random.Random(seed)
        drawn += [np.exp(-np.mean(source.choices(costs, k=7))) for _ in range(200)]
    figure = significance.perplexity(costs)
    assert figure.value == pytest.approx(np.exp(-np.mean(costs)))
    assert figure.error == pytest.approx(np.std(drawn, ddof=1), rel=1e-12)
    assert np.isnan(significance.perplexity([-1.0]).error)


ROWS = {
    "arc-easy": (
        {"query": "Question: Why?", "choices": ["a b", "c"], "gold": 1},
        {
            "question": "Why?",
            "choices": {"text": ["a b", "c"], "label": ["1", "2"]},
            "answerKey": "2",
        },
        (("Question: Why?\nAnswer:", " a b"), ("Question: Why?\nAnswer:", " c")),
    ),
    "piqa": (
        {"query": "Question: Why?\n", "choices": ["a", "c"], "gold": 1},
        {"goal": "Why?", "sol1": "a", "sol2": "c", "label": 1},
        (("Question: Why?\nAnswer:", " a"), ("Question: Why?\nAnswer:", " c")),
    ),
    "copa": (
        {"query": "It fell, because", "choices": ["it hung.", "it slept."], "gold": 1},
        None,
        (("It fell, because", "  it hung."), ("It fell, because", "  it slept.")),
    ),
    "winogrande": (
        {"context_options": ["Tom met Ann so Tom", "so Ann"], "continuation": "left.", "gold": 1},
        None,
        (("Tom met Ann so Tom", " left."), ("so Ann", " left.")),
    ),
    "hellaswag": (
        {"activity_label": "Ice", "ctx": "A man. he", "endings": ["[x] runs", "sits"], "label": 1},
        {
            "activity_label": "Ice",
            "ctx": "A man. he",
            "ctx_a": "A man.",
            "ctx_b": "he",
            "endings": ["[x] runs", "sits"],
            "label": "1",
        },
        None,
    ),
    "boolq": (
        {
            "query": "Passage: It is.\nQuestion: is it?",
            "choices": ["no", "yes"],
            "gold": 1,
        },
        {"passage": "It is.", "question": "is it", "label": True},
        tuple(("It is.\nQuestion: is it?\nAnswer:", f" {word}") for word in ("no", "yes")),
    ),
    "blimp": (
        {"good": "He sat.", "bad": "He sits sat.", "UID": "island"},
        {"sentence_good": "He sat.", "sentence_bad": "He sits sat.", "UID": "island"},
        (("", " He sat."), ("", " He sits sat.")),
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_rows_become_questions(task: str, tmp_path: Path):
    ours, published, pairs = ROWS[task]
    for row in filter(None, (ours, published)):
        _, (question,) = questions(save_rows(tmp_path / "rows.jsonl", [row]), TASKS[task])
        assert question.answer == (0 if task == "blimp" else 1)
        assert question.group == ("island" if task == "blimp" else "")
        if task == "hellaswag":
            context = "Ice: A man. He" if row is published else "Ice: A man. he"
            pairs = ((context, "  runs"), (context, " sits"))
            assert question.choices == (" runs", "sits")
        assert question.pairs == pairs


def test_last_words_and_clean_up(tmp_path: Path):
    rows = [{"context": "He said it was", "continuation": "cold"}]
    _, (one,) = questions(save_rows(tmp_path / "a.jsonl", rows), LAMBADA)
    _, (two,) = questions(
        save_rows(tmp_path / "b.jsonl", [{"text": "He said it was cold"}]), LAMBADA
    )
    assert one.pairs == two.pairs == (("He said it was", " cold"),) and one.key == two.key
    near = save_rows(tmp_path / "c.jsonl", [{"context": "He", "continuations": "cold"}])
    with pytest.raises(InputError, match="no column 'continuation'; did you mean 'continuations'"):
        questions(near, LAMBADA)
    assert wikihow(" How to [title] mix [step] it  well ") == "How to. mix it well"
    assert wikihow("[header] Begin.") == " Begin."  # what is left between stays
    assert unheaded("Passage: A passage: B") == "A passage: B"


@pytest.mark.parametrize("answer", [2, "2", "C", "two three", "c"])
def test_a_file_of_ones_own(answer: Any, tmp_path: Path):
    choices = ["one", "two three", "C"] if answer == "two three" else ["one", "two", "c"]
    row = {"id": 7, "question": "Which?", "options": choices, "answer": answer}
    path = save_rows(tmp_path / "quiz.jsonl", [row])
    task, (question,) = questions(path, (guessed(path),))
    assert question.answer == (1 if answer == "two three" else 2)
    assert question.pairs[0] == ("Which?", " one") and task.metrics[-1] == "acc_bytes"
    task = guessed(path, prompt=r"Q{id}: {question}\nA:")
    _, (question,) = questions(path, (task,))
    assert question.pairs[0] == ("Q7: Which?\nA:", " one")


def test_an_answer_that_is_two_choices_is_refused(tmp_path: Path):
    """By its place it is one, by its text another: nobody knows which is right."""
    form = (Task("{question}", "choices", "answer"),)
    row = {"question": "Two?", "choices": ["2", "3", "1"]}
    for answer, right in (("2", None), (2, 2), ("3", 1), ("A", 0), ("0", 0)):
        name = save_rows(tmp_path / "rows.jsonl", [{**row, "answer": answer}])
        if right is None:
            with pytest.raises(InputError, match="may be choice '1' by its place or '2' by its te"):
                questions(name, form)
        else:
            assert questions(name, form)[1][0].answer == right


def test_choices_in_columns_of_a_table(tmp_path: Path):
    path = tmp_path / "quiz.csv"
    path.write_text("question,a,b,answer\nWhich?,one,two,B\n")
    _, (question,) = questions(str(path), (guessed(str(path), choices="a, b"),))
    assert question.choices == ("one", "two") and question.answer == 1

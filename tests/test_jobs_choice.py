"""`tercet evaluate choice | lambada`, `tercet compare`: what is said, kept, compared, refused."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from small_decoders import save_decoder, save_rows

import tercet
from tercet.errors import InputError
from tercet.evaluate.choice import answered, values
from tercet.evaluate.results import Results, compared, read, write
from tercet.evaluate.significance import mean, paired, sign_test
from tercet.evaluate.tasks import TASKS, questions
from tercet.text import CutReport
from tercet.train import progress

LONG = "The cat sat on the mat and the dog slept. " * 8
QUERIES = [
    ("Question: What keeps the cat warm?", ["its fur", "rain", "the dog"], 0),
    ("Question: Who slept?", ["the dog", "the water", "no"], 0),
    (f"{LONG}Question: Who sat?", ["yes", "the cat on the mat", "never"], 1),
    ("Question: What came before?", ["the mat", "the rain", "winter"], 1),
]
ROWS = [{"query": q, "choices": c, "gold": g} for q, c, g in QUERIES] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_rows(tmp_path_factory.mktemp("rows") / "arc.jsonl", ROWS)


def test_what_is_said_is_what_was_found(folder: str, data: str, run, tmp_path: Path):
    _, asked = questions(data, TASKS["arc-easy"])
    report = CutReport()
    found = answered(tercet.load(folder), asked, report)
    wanted = values(asked, found, ("acc", "acc_norm"))
    out = str(tmp_path / "new" / "kept.json")
    verb = ("evaluate", "choice", folder, data, "--task", "arc-easy")
    code, said, err = run(*verb, "--json", "--out", out)
    told = json.loads(said)
    assert code == 0 and err == ""
    for metric, column in wanted.items():
        figure = mean(column)
        one = told["figures"][metric]
        assert (one["value"], one["standard_error"]) == (figure.value, figure.error)
    assert (told["rows"], told["cut"], told["context"]) == (12, 3, 48)
    assert told["tokens_lost"] == report.lost_tokens > 0
    kept = read(out)
    assert kept.values == wanted and kept.measure == "choice arc-easy" and kept.model == folder
    assert list(kept.items) == [question.key for question in asked]

    code, said, err = run(*verb)
    acc, normed = (mean(wanted[metric]) for metric in wanted)
    assert said.splitlines() == [
        f"{data}: choice arc-easy, 12 rows",
        f"acc         {acc.value:.4f} ± {acc.error:.4f}",
        f"acc_norm    {normed.value:.4f} ± {normed.error:.4f}",
    ]
    assert err == (
        f"tercet: 3 of 12 rows are longer than the model's 48 tokens: {report.lost_tokens:,} at "
        "their beginnings were not read\n"
    )


def test_a_limit_a_group_and_a_single_row(folder: str, run, tmp_path: Path):
    rows = [
        {"good": "The cat sat.", "bad": "The cat sat sat.", "UID": f"part {i % 2}"}
        for i in range(4)
    ]
    path = save_rows(tmp_path / "pairs.jsonl", rows)
    verb = ("evaluate", "choice", folder, path, "--task", "blimp")
    told = json.loads(run(*verb, "--limit", "3", "--json")[1])
    assert told["rows"] == 3 and [*told["groups"]] == ["part 0", "part 1"]
    assert math.isclose(told["groups"]["part 0"]["acc"]["standard_error"], 0.0)
    assert told["groups"]["part 1"]["acc"]["standard_error"] is None  # of a single row
    lines = run(*verb)[1].splitlines()
    assert lines[1].split()[:2] == ["part", "0"] and lines[-1].startswith("acc ")
    assert "±" not in run(*verb, "--limit", "1")[1]


def test_last_words(folder: str, run, tmp_path: Path):
    rows = [{"context": query, "continuation": c[0]} for query, c, _ in QUERIES]
    path, out = save_rows(tmp_path / "last.jsonl", rows), str(tmp_path / "kept.json")
    told = json.loads(run("evaluate", "lambada", folder, path, "--json", "--out", out)[1])
    costs = read(out).values["log_probability"]
    assert told["figures"]["perplexity"]["value"] == pytest.approx(math.exp(-np.mean(costs)))
    assert told["figures"]["acc"]["value"] == np.mean(read(out).values["acc"])
    code, _, err = run("evaluate", "lambada", folder, path, "--out", path)
    assert code == 2 and f"{path} is what is read, and would be lost" in err
    code, said, _ = run("evaluate", "lambada", folder, path)
    assert code == 0 and said.splitlines()[2].startswith("perplexity ")


def test_guesses_and_progress_are_said(folder: str, run, tmp_path: Path, monkeypatch):
    rows = [{"question": q, "options": c, "answer": g} for q, c, g in QUERIES]
    path = save_rows(tmp_path / "quiz.jsonl", rows)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    code, said, err = run("evaluate", "choice", folder, path)
    assert code == 0 and [line.split()[0] for line in said.splitlines()[1:]] == [
        *("acc", "acc_norm", "acc_bytes")
    ]
    assert "prompt '{question}', choices 'options', answer 'answer'" in err
    assert "choice: 100 %" in err and "0:00 left" in err
    assert run("evaluate", "choice", folder, path, "--quiet")[1] == said


@pytest.mark.parametrize(
    "kind", ["column", "task", "both", "guess", "answer", "empty", "list", "limit", "none", "brace"]
)
def test_a_mistake_is_one_line(kind: str, folder: str, data: str, run, tmp_path: Path):
    def rows(*several: dict[str, Any]) -> str:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        return save_rows(place / "bad.jsonl", several)

    row = ROWS[0]
    args, said = {
        "column": (
            (rows({"query": "a", "choices": ["b"], "golds": 0}), "--task", "arc-easy"),
            "bad.jsonl, row 1: has no column 'gold'; did you mean 'golds'?",
        ),
        "task": ((data, "--task", "arc-esy"), "task 'arc-esy' is unknown; did you mean 'arc-easy'"),
        "both": (
            (data, "--task", "piqa", "--answer", "gold"),
            "--task piqa says what prompt, choices and answer are; leave one out",
        ),
        "guess": (
            (rows({"riddle": "a", "choices": ["b"], "gold": 0}),),
            "has columns riddle, choices, gold, of which none is called question, query",
        ),
        "answer": (
            (rows(row, row | {"gold": 3}), "--task", "arc-easy"),
            "bad.jsonl, row 2: the answer 3 is none of the 3 choices; give its number (0 to 2)",
        ),
        "empty": (
            (rows(row | {"choices": ["a", " "]}), "--task", "arc-easy"),
            "bad.jsonl, row 1: has an empty choice",
        ),
        "list": (
            (rows(row | {"choices": "a"}), "--task", "arc-easy"),
            "'choices' is str 'a', not a list of texts; name a column with one",
        ),
        "limit": ((data, "--limit", "0"), "limit 0 must be 1 or more rows"),
        "none": ((rows(), "--task", "arc-easy"), "bad.jsonl: holds no rows"),
        "brace": ((data, "--prompt", "{query"), "the prompt '{query' is no template"),
    }[kind]
    code, out, err = run("evaluate", "choice", folder, *args)
    assert code == 2 and out == "" and err.startswith("tercet: ") and said in err, err
    assert err.count("\n") == 1


# two evaluations side by side ---------------------------------------------------------------------


def kept(path: Path, columns: dict[str, list[float]], measure: str = "choice arc-easy") -> str:
    n = len(next(iter(columns.values())))
    write(path, Results(measure, path.stem, [f"q{i}" for i in range(n)], columns), {})
    return str(path)


def test_which_is_better(run, tmp_path: Path):
    draw = np.random.default_rng(0)
    first = (draw.random(400) < 0.4).astype(float)
    better = np.where(draw.random(400) < 0.3, 1.0, first)
    costs = draw.normal(-3, 1, 400)
    a = kept(tmp_path / "a.json", {"acc": [*first], "log_probability": [*costs]})
    b = kept(tmp_path / "b.json", {"acc": [*better], "log_probability": [*costs]})
    told = json.loads(run("compare", a, b, "--json")[1])
    acc, cost = told["metrics"]
    assert acc["first"] == pytest.approx(first.mean())
    assert acc["gain"]["mean"] == pytest.approx(better.mean() - first.mean())
    won = int((better > first).sum())
    assert acc["p"] == pytest.approx(binomtest(0, won).pvalue) and acc["verdict"] == "B is better"
    assert acc["gain"]["low"] > 0 and cost["p"] is None
    assert cost["verdict"] == "no difference shown"
    backwards = json.loads(run("compare", b, a, "--json")[1])["metrics"][0]
    assert backwards["verdict"] == "A is better"
    lines = run("compare", a, b)[1].splitlines()
    assert lines[0] == "choice arc-easy, 400 items; A: a, B: b"
    assert lines[2].split()[:2] == ["acc", f"{first.mean():.4f}"]
    assert lines[2].endswith("B is better") and lines[3].endswith("no difference shown")


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60))
def test_the_sign_test_is_that_of_scipy(gains: list[float]):
    won, lost = gains.count(1.0), gains.count(-1.0)
    expected = binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert sign_test(gains) == pytest.approx(expected)


def test_the_interval_is_about_two_errors_wide():
    gains = np.random.default_rng(1).normal(0.2, 1, 900)
    found = paired(gains)
    assert found.mean == pytest.approx(gains.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * mean([*gains]).error, rel=0.05)
    assert paired(gains) == found


def test_the_sign_test_of_many_items_takes_no_square_of_them():
    begun = time.process_time()
    assert sign_test([1.0] * 15_000 + [-1.0] * 14_700) == pytest.approx(0.0827, abs=1e-3)
    assert time.process_time() - begun < 5  # it was minutes


INFINITE = '{"measure": "m", "model": "a", "items": ["a"], "values": {"acc": [-Infinity]}}'


def test_unlike_things_are_not_compared(run, tmp_path: Path):
    a = kept(tmp_path / "a.json", {"acc": [1.0, 0.0]})
    for path, said in (
        (
            kept(tmp_path / "task.json", {"acc": [1.0, 0.0]}, "choice piqa"),
            "unlike measures, 'choice arc-easy' and 'choice piqa'",
        ),
        (kept(tmp_path / "metric.json", {"ndcg": [1.0, 0.0]}), "unlike metrics, 'acc' and 'ndcg'"),
        (
            kept(tmp_path / "items.json", {"acc": [1.0, 0.0, 1.0]}),
            "unlike items: 2 and 3, 2 of them in common",
        ),
        (save_rows(tmp_path / "none.json", [{"figures": {}}]), "holds no values by item"),
        (
            save_rows(tmp_path / "bad.json", [{"items": ["a"], "values": {"acc": []}}]),
            "bad.json: damaged",
        ),
        (
            save_rows(tmp_path / "inf.json", [json.loads(INFINITE)]),
            "inf.json: damaged",
        ),
        (str(tmp_path / "missing.json"), "missing.json: cannot be read"),
    ):
        code, out, err = run("compare", a, path)
        assert code == 2 and out == "" and said in err and err.count("\n") == 1, err
    with pytest.raises(InputError, match="no items"):
        compared(Results("m", "a", [], {}), Results("m", "b", [], {}))

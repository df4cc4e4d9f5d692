"""The quickstart: its text and questions, its yardsticks, and the whole job at a tiny size."""

from __future__ import annotations

import json
import re
from pathlib import Path

import browser
import pytest

import tercet.language_model as language_model
from tercet.errors import InputError
from tercet.jobs.quickstart import models, quickstart, run
from tercet.jobs.quickstart.corpus import (
    Document,
    dates_and_numbers,
    documents,
    number_words,
    ordinal_words,
    title,
    topics,
    year_words,
)
from tercet.jobs.quickstart.questions import QUESTIONS
from tercet.jobs.quickstart.state import STATE, Run, Settings

TINY = Settings(
    seconds=6, vocab_size=500, width=32, layers=2, row=32, date_pairs=300, characters=30_000
)


def test_no_question_holds_a_word_of_its_topics_title():
    found = topics()
    assert len(QUESTIONS) == 10 == len({topic for _, topic in QUESTIONS})
    for question, topic in QUESTIONS:
        assert topic in found
        words = set(re.findall(r"\w+", question.lower()))
        named = set(re.findall(r"\w+", f"{title(found[topic])} {topic}".lower()))
        assert not words & (named - {"the"} - {"python"} - {"statement"}), question


@pytest.fixture(scope="module")
def found() -> list[Document]:
    return documents()


def test_the_text_is_large_and_free_of_copies(found: list[Document]):
    assert 1_800_000 < sum(len(document.text) for document in found) < 3_500_000
    seen: set[str] = set()
    for document in found:
        for paragraph in document.text.split("\n\n"):
            body = " ".join(paragraph.split())
            if len(body) >= 60:
                assert body not in seen
                seen.add(body)
    assert not any("/test/" in document.name or "test_" in document.name for document in found)
    held_out = sum(len(document.text) for document in found if document.held_out)
    assert 0.02 < held_out / sum(len(document.text) for document in found) < 0.12


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (21, "twenty-one"),
        (100, "one hundred"),
        (342, "three hundred and forty-two"),
        (4012, "four thousand and twelve"),
        (1984, "one thousand nine hundred and eighty-four"),
    ],
)
def test_numbers_in_words(number: int, words: str):
    assert number_words(number) == words


def test_ordinals_and_years_in_words():
    assert [ordinal_words(n) for n in (1, 2, 3, 12, 20, 23, 30)] == [
        *("first", "second", "third", "twelfth", "twentieth", "twenty-third", "thirtieth")
    ]
    assert [year_words(y) for y in (1984, 1905, 1900, 2000, 2007, 2010)] == [
        *("nineteen eighty-four", "nineteen oh five", "nineteen hundred"),
        *("two thousand", "two thousand and seven", "twenty ten"),
    ]


def test_unseen_dates_are_in_no_training_pair():
    pairs, unseen = dates_and_numbers(20_000, 0)
    assert len(unseen) == 20 == len({iso for _, iso in unseen})
    assert not {iso for _, iso in unseen} & {iso for _, iso in pairs}
    assert pairs == dates_and_numbers(20_000, 0)[0]


def test_the_whole_job_stopped_and_resumed(tmp_path: Path, monkeypatch, capsys):
    folder = tmp_path / "run"

    def stop(run: Run) -> dict:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(models, "recurrent", stop)
        quickstart(folder, TINY)
    assert "go on" in capsys.readouterr().out
    assert list(json.loads((folder / STATE).read_text())["results"]) == ["text", "decoder"]

    finished = quickstart(folder, TINY)
    said = capsys.readouterr().out
    assert "Going on" in said and "trigram" in said
    assert list(finished.results) == [
        *("text", "decoder", "recurrent", "encoder", "dates", "use", "report")
    ]
    assert len(finished.results["use"]["dates"]) == 20
    assert len(finished.results["use"]["search"]) == 10
    decoder, twin = finished.results["decoder"], finished.results["recurrent"]
    assert abs(twin["parameters"] / decoder["parameters"] - 1) < 0.1
    page = (folder / "report.html").read_text()
    assert "<svg" in page and "tercet generate" in page and "http-equiv" in page
    for name in ("decoder", "recurrent", "encoder", "dates"):
        assert language_model.load(folder / name).config.vocab_size > 100
        assert not (folder / "work" / name).exists()

    quickstart(folder, TINY)
    assert "complete" in capsys.readouterr().out
    with pytest.raises(InputError, match="begun with seconds 6"):
        quickstart(folder, Settings(seconds=9))


@pytest.mark.slow
@browser.needed
def test_a_browser_draws_the_report(tmp_path: Path):
    quickstart(tmp_path / "run", TINY, quiet=True)
    page = browser.drawn(tmp_path / "run" / "report.html", tmp_path / "profile")
    said = re.findall(r'role="status">Layer \d, head \d: <b>.*? %.*?</p>', page)
    assert len(said) == 3  # encoder, decoder, cross-attention


@pytest.mark.slow
def test_the_whole_job_reaches_its_aims(tmp_path: Path):
    """What `make quickstart` runs, and what issue 2 asks of its figures."""
    run(tmp_path)
    results = json.loads((tmp_path / STATE).read_text())["results"]
    decoder, encoder = results["decoder"], results["encoder"]
    dates = results["use"]["dates"]
    assert len(dates) == 20 and sum(answer == iso for _, iso, answer in dates) >= 18
    assert decoder["bits_per_byte"] < results["text"]["trigram_bits_per_byte"]
    assert encoder["top5"] >= 3 * encoder["unigram_top5"] > 0


def test_minutes_must_be_positive():
    with pytest.raises(InputError, match="minutes 0 must be above 0"):
        run(Path("nowhere"), minutes=0)

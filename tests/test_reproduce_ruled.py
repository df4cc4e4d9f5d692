"""Instructions made by rules: of every kind the rule's own answer obeys, another does not, and an
independent reading of the question gives the same answer."""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import InputError
from tercet.evaluate.checks import obeys
from tercet.evaluate.instructions import prompts
from tercet.jobs.reproduce import entries
from tercet.jobs.reproduce.docstrings import defined
from tercet.jobs.reproduce.made import make
from tercet.jobs.reproduce.ruled import KINDS, Sentence, found, ruled, sentence_of
from tercet.jobs.reproduce.talks import WORDINGS

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"TERCET_DATA: no folder {DATA}")

NAMES = st.sampled_from(
    "river house winter never-ending road's reads almost everything I a by the of old".split()
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Sentences as the rules take them: words, now and then a comma or a number."""
    words: list[str] = draw(st.lists(NAMES, min_size=4, max_size=11))
    words[0] = words[0].capitalize()
    if draw(st.booleans()):
        words.insert(2, str(draw(st.integers(0, 9999))))
    if draw(st.booleans()):
        words[1] += ","
    return " ".join(words) + draw(st.sampled_from(".!?"))


def asked_again(row: dict[str, Any]) -> str:
    """The answer, found in the question by other means than the rule's."""
    asked, kind = row["input"], row["kind"]
    plain = re.findall(r"[\w'-]+", asked)
    named = re.search(r'"([^"]*)"', row["instruction"])
    word = named[1] if named else ""
    if kind == "repeat":
        return asked
    if kind == "quote":
        return '"' + asked + '"'
    if kind == "list":
        return re.sub(" ", ", ", asked)
    if kind == "first word":
        return plain[0]
    if kind == "last word":
        return plain[-1]
    if kind == "next word":
        return plain[plain.index(word) + 1]
    if kind == "extract":
        return re.findall(r"\d[\d,]*\d|\d", asked)[0]
    if kind == "contains":
        return "Yes" if word in plain else "No"
    if kind == "count":
        return str(asked.count(" ") + 1)
    if kind == "capitals":
        return asked.title()
    assert kind == "passage"
    first, second = re.split(r"(?<=[.!?]) ", asked)
    return first if word in first else second


@given(texts(), texts(), st.randoms(use_true_random=False))
def test_the_answer_of_each_kind_obeys_and_another_does_not(
    one: str, other: str, draw: random.Random
) -> None:
    before = sentence_of(other)
    assert before is not None
    sentence = sentence_of(one, before)
    assert sentence is not None
    sentence = sentence._replace(other=before)
    for kind, rule in KINDS.items():
        row = rule.row(sentence, draw)
        if row is None:
            continue
        row["kind"] = kind
        check = {"equals": row["output"]}
        assert obeys(check, asked_again(row)), row
        assert not obeys(check, row["output"] + " more") and not obeys(check, row["instruction"])


def test_sentences_of_plain_words_are_taken_and_others_left() -> None:
    taken = sentence_of("In 1607, they sailed up the bay!")
    assert taken is not None and taken.words == ("In", "1607", "they", "sailed", "up", "the", "bay")
    for text in (
        "Too short it.",
        "no capital at its beginning here.",
        "This has no end of its own",
        "Twice 12 numbers 13 are one too many.",
        "A (bracket) stands in the middle of it.",
        "Two  blanks stand in the middle of it.",
        "This one is much longer than the twelve words that a sentence may have here.",
    ):
        assert sentence_of(text) is None, text


def test_a_sentence_knows_its_neighbour_and_comes_once() -> None:
    first, second = "The old house stood there.", "Nothing of it was lost."
    told = list(found([f"{first} {second} Short one.", f"{second} {first}"]))
    assert [one.text for one in told] == [first, second]
    assert told[0].before is None and told[1].before == Sentence(first, told[0].words)
    assert told[1].other == Sentence(first, told[0].words)


def test_kinds_are_balanced_and_the_same_text_gives_the_same_rows() -> None:
    draw = random.Random(0)
    words = "the river takes an old house by winter and never brings it back".split()
    lines = [
        " ".join([w.capitalize() if not i else w for i, w in enumerate(draw.sample(words, 7))])
        + "."
        for _ in range(600)
    ]
    given_ = list(found([" ".join(lines[i : i + 2]) for i in range(0, 600, 2)]))
    rows = list(ruled(given_, each=20))
    counts = Counter(row["kind"] for row in rows)
    assert set(counts) == set(KINDS) - {"extract"} and set(counts.values()) <= set(range(15, 21))
    assert rows == list(ruled(given_, each=20)) and rows != list(ruled(given_, each=20, seed=1))
    yes = Counter(row["output"] for row in rows if row["kind"] == "contains")
    assert min(yes["Yes"], yes["No"]) >= 3


def test_docstrings_are_read_without_being_run() -> None:
    rows = list(defined(["textwrap", "shutil"]))
    asked = {row["input"].partition(":")[0]: row for row in rows}
    dedent = asked["textwrap.dedent"]
    assert dedent["output"] == "Remove any common leading whitespace from every line in `text`."
    assert dedent["output"] in dedent["input"] and "textwrap.dedent" in dedent["instruction"]
    assert len({row["output"] for row in rows}) == len(rows) > 10
    with pytest.raises(InputError, match="module 'no_such_module' has no source"):
        list(defined(["no_such_module"]))


def test_talks_and_pairs_are_made_of_conversations(tmp_path: Path) -> None:
    several = "A spruce is a tree.\nIt is green. It stays so."
    rows = [
        {"instruction": "What is a spruce?", "response": several},
        {"instruction": "And a larch?", "response": "A tree that loses its leaves."},
        {"instruction": "Name three.", "response": "1. Oak. 2. Ash. 3. Elm."},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def made(**source: Any) -> list[dict[str, Any]]:
        told = make(tmp_path / "made.jsonl", [{"file": str(path), **source}])
        return [json.loads(line) for line in Path(told).read_text().splitlines()]

    assert [row["output"] for row in made(how="talks", words=8)] == [
        rows[1]["response"],
        rows[2]["response"],
    ]
    pair, broken, circling = made(how="shorter")
    assert circling["rejected"].startswith(f"{broken['rejected']} ")
    assert len(circling["rejected"].split()) >= 9 and circling["chosen"] == pair["chosen"]
    assert broken["prompt"] == pair["prompt"] and broken["chosen"] == pair["chosen"]
    assert pair["chosen"].startswith(f"{broken['rejected']} ")
    assert pair["chosen"] == "A spruce is a tree."
    assert pair["rejected"] == "A spruce is a tree. It is green. It stays so."
    assert pair["prompt"].startswith("What is a spruce? ")
    made(how="open", rows=[1, 3])
    asked = prompts(str(tmp_path / "made.jsonl"))
    assert len(asked) == 2
    assert [obeys(one.check, pair["chosen"]) for one in asked] == [True, True]
    assert [obeys(one.check, pair["rejected"]) for one in asked] == [False, False]
    assert [obeys(one.check, broken["rejected"]) for one in asked] == [False, False]


@needs_data
@pytest.mark.slow
def test_nothing_that_is_asked_was_learned(tmp_path: Path, monkeypatch) -> None:
    """Of the shipped experiment: nothing longer than five words stands on both sides."""
    monkeypatch.setenv("TERCET_DATA", str(DATA))
    told = entries()["instruct"]["tables"]
    rows = {}
    for name in ("rules", "short", "talks", "pairs", "held-out", "open"):
        path = make(tmp_path / f"{name}.jsonl", told[name])
        rows[name] = [json.loads(line) for line in Path(path).read_text().splitlines()]
    made = [*rows["rules"], *rows["short"]]
    learned = {row["input"] for row in made if len(row["input"].split()) > 5}
    answers = {row["output"] for row in made if len(row["output"].split()) > 5}
    for row in rows["held-out"]:
        assert row["input"] not in learned and row["output"] not in answers, row
    kinds = Counter(row["kind"] for row in rows["held-out"])
    assert set(kinds) == {*KINDS, "define"} and set(kinds.values()) == {36}
    learned = {row["instruction"] for row in rows["talks"]}
    learned |= {bare(row["prompt"]) for row in rows["pairs"]}
    for row in rows["open"]:
        assert bare(row["prompt"]) not in learned, row


def bare(prompt: str) -> str:
    """A question without what constrains its answer."""
    (found,) = [prompt.removesuffix(f" {w}") for w in WORDINGS if prompt.endswith(f" {w}")]
    return found

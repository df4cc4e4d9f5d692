"""Files of tagged words and of answered questions: every form that is read, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from tercet.data.questions import questions
from tercet.data.sources import Tally
from tercet.data.tagged import Tagged, tagged
from tercet.errors import InputError

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
CONLLU = """# sent_id = 1
# text = They don't.
1\tThey\tthey\tPRON\tPRP\t_\t3\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t2:dep\t_

# text = #
1\t#\t#\tSYM\tNFP\t_\t0\troot\t_\t_
"""


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_word_and_its_tag_a_line(tmp_path: Path) -> None:
    name = written(tmp_path, "a.conll", "\n\nAda\tB-x\nLovelace\tI-x\n\n\n#\tO\n# note\nhi\tO")
    found = tagged(name)
    assert str(found) == "2 sentences, words from column '1', tags from column '2'"
    assert found.sentences == [
        Tagged(["Ada", "Lovelace"], ["B-x", "I-x"], f"{name}, line 3"),
        Tagged(["#", "hi"], ["O", "O"], f"{name}, line 7"),
    ]
    with gzip.open(tmp_path / "b.conll.gz", "wt") as file:
        file.write("a\tX\r\n\r\nb\tY\r\n")
    assert [s.tags for s in tagged(str(tmp_path / "b.conll.gz")).sentences] == [["X"], ["Y"]]


def test_the_column_of_the_tags_is_guessed_and_said_or_named(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- -X- O\n\nAda NNP I-NP B-PER\n# SYM O O\n"
    name = written(tmp_path, "a.txt", text)
    found = tagged(name)
    assert found.columns == {"text": "1", "label": "4"}
    assert found.sentences[0].words == ["Ada", "#"]
    assert found.sentences[0].tags == ["B-PER", "O"]
    assert tagged(name, tags="2").sentences[0].tags == ["NNP", "SYM"]
    speech = written(tmp_path, "b.tsv", "Go\tVERB\tVB\t0\n!\tPUNCT\t.\t1\n")
    assert tagged(speech).sentences[0].tags == ["VERB", "PUNCT"]
    with pytest.raises(InputError, match=r"has no column '5'; give a number from 1 to 4"):
        tagged(name, tags="5")


def test_conllu_has_ranges_and_nodes_that_are_no_words(tmp_path: Path) -> None:
    name = written(tmp_path, "a.conllu", CONLLU)
    found = tagged(name)
    assert found.columns == {"text": "form", "label": "upos"}
    assert [s.words for s in found.sentences] == [["They", "do", "n't"], ["#"]]
    assert [s.tags for s in found.sentences] == [["PRON", "AUX", "PART"], ["SYM"]]
    assert found.sentences[0].where == f"{name}, line 3"
    assert tagged(name, tags="XPOS").sentences[1].tags == ["NFP"]
    assert tagged(name, tags="8").sentences[1].tags == ["root"]
    with pytest.raises(InputError, match=r"no column 'xpo'; did you mean 'xpos'\?"):
        tagged(name, tags="xpo")
    broken = CONLLU.replace("3\tn't\tnot", "3\tn't not")
    with pytest.raises(InputError, match="line 6: not a line of CoNLL-U"):
        tagged(written(tmp_path, "b.conllu", broken))


def test_two_lists_a_row(tmp_path: Path) -> None:
    rows = [{"tokens": ["a", "b"], "ner_tags": [0, 3]}, {"tokens": [], "ner_tags": []}]
    name = written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    tally = Tally()
    found = tagged(name, tally=tally)
    assert found.columns == {"text": "tokens", "label": "ner_tags"}
    assert found.sentences == [Tagged(["a", "b"], ["0", "3"], f"{name}, line 1")]
    assert tally.skipped == {"empty sentence": 1}
    own = written(tmp_path, "b.jsonl", '{"words": ["a"], "kinds": ["X"]}')
    assert tagged(own, tags="kinds").sentences[0].tags == ["X"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.conll",
            "a\tX\nb\n",
            r"l, line 2 \('b'\): has 1 columns where there should be 2; give",
        ),
        ("a.conll", "a\nb\n", r"line 1 \('a'\): has 1 columns where there should be 2"),
        ("a.conll", "a\tX\nb\tY\tZ\n", r"line 2 \('b'\): has 3 columns where there should be 2"),
        ("a.conll", "a\tX\nb\t\n", "line 2: a word or its tag is empty"),
        ("a.conll", "\n\n", "holds no sentence"),
        (
            "a.jsonl",
            '{"words": ["the", "cat"], "tags": ["X"]}',
            r"line 1 \('the cat'\): has 2 words and 1 tags; give a tag for each word",
        ),
        ("a.jsonl", '{"words": "the cat", "tags": ["X"]}', "'words' is str 'the cat', not a list"),
        ("a.jsonl", '{"words": ["a", ""], "tags": ["X", "Y"]}', "'words' holds '', which is no wo"),
        ("a.jsonl", '{"words": ["a"], "tags": [null]}', "'tags' holds None, which is no word"),
        ("a.jsonl", '{"word": ["a"], "tags": ["X"]}', r"no column 'words'; did you mean 'word'\?"),
        ("a.jsonl", '{"words": [], "tags": []}', "holds no sentence"),
    ],
)
def test_what_has_not_a_tag_for_each_word(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        tagged(written(tmp_path, name, text))


# questions ----------------------------------------------------------------------------------------


def squad(context: str, *answers: tuple[str, int], **changes: object) -> dict:
    given = [{"text": text, "answer_start": start} for text, start in answers]
    record = {"id": "q7", "question": "Who?", "answers": given} | changes
    return {"version": "1.1", "data": [{"paragraphs": [{"context": context, "qas": [record]}]}]}


def asked(folder: Path, content: object) -> str:
    return written(folder, "a.json", json.dumps(content, ensure_ascii=False))


def test_questions_with_their_answers(tmp_path: Path) -> None:
    name = asked(tmp_path, squad("Ada met Bo. 😀 Bo sat.", ("Bo", 14), ("Ada", 0), ("Bo", 14)))
    found = questions(name)
    assert str(found) == "1 questions"
    row = found.rows[0]
    assert (row.name, row.question) == ("q7", "Who?")
    assert row.usual == ("Bo", 14) and row.context[14:16] == "Bo"
    assert row.answers[1] == ("Ada", 0)


def test_an_answer_that_stands_elsewhere_is_mended(tmp_path: Path) -> None:
    found = questions(asked(tmp_path, squad("Ada met Bo.", ("Bo", 7), ("Ada", -1))))
    assert found.rows[0].answers == [("Bo", 8), ("Ada", 0)]
    assert str(found) == "1 questions; 2 answers stood elsewhere than was said"


def test_a_question_without_an_answer_is_left_out(tmp_path: Path) -> None:
    content = squad("Ada met Bo.", ("Bo", 8))
    content["data"] += squad("Ada.", is_impossible=True)["data"]
    assert str(questions(asked(tmp_path, content))) == "1 questions; 1 without an answer left out"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (squad("Ada met Bo.", ("Cy", 3)), r"question 'q7': the answer 'Cy' does not .* not elsew"),
        (squad("Bo, Bo, Bo", ("Bo", 3)), "at character 3 and 3 times elsewhere in its context; co"),
        (squad("Ada", (" ", 0)), "question 'q7': has an empty answer"),
        (squad("Ada", ("Ada", "0")), "a.json, line 1, question 'q7': 'answer_start' of the answer"),
        (squad("Ada", ("Ada", True)), "is True, not a whole number; correct it"),
        (squad("Ada", (None, 0)), "'q7': 'text' of the answer {.*} is None, not a text; correct"),
        (squad("Ada", answers=[{"text": "Ada"}]), "'answer_start' of .* is None, not a whole"),
        (squad("Ada", answers={"text": ["Ada"]}), "question 'q7': its answers are {.*, not a list"),
        (squad("Ada", answers=["Ada"]), "question 'q7': the answer 'Ada' is no object with 'text'"),
        (squad("Ada", ("Ada", 0), question=None), "question 'q7': its question is None, not a te"),
        (squad("Ada"), "holds no question with an answer"),
        ([1], "has no list 'data'"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, "holds no question"),
        ({"data": [{"paragraph": []}]}, r"a\.json: damaged, a value is missing"),
    ],
)
def test_what_are_no_answered_questions(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        questions(asked(tmp_path, content))


def test_a_wrong_answer_names_its_line(tmp_path: Path) -> None:
    content = squad("Ada met Bo.", ("Bo", 8))
    content["data"] += squad("Ada met Bo.", ("Cy", 3), id="q8")["data"]
    lines = json.dumps(content, indent=1).splitlines()
    number = next(i for i, line in enumerate(lines, 1) if '"q8"' in line)
    with pytest.raises(
        InputError, match=rf"a\.json, line {number}, question 'q8': the answer 'Cy'"
    ):
        questions(written(tmp_path, "a.json", "\n".join(lines)))


def test_what_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not JSON \(.* line 1 column 2"):
        questions(written(tmp_path, "a.json", "{data"))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"TERCET_DATA: no folder {DATA}")
def test_real_files() -> None:
    assert len(tagged(str(DATA / "wnut17" / "test.conll")).sentences) == 1287
    speech = tagged(str(DATA / "ud-english-ewt" / "dev.tsv.gz"))
    assert len(speech.sentences) == 2001
    assert {tag for s in speech.sentences for tag in s.tags} >= {"NOUN", "VERB", "PUNCT"}
    assert str(questions(str(DATA / "xquad-en" / "xquad.en.json.gz"))) == "1,190 questions"

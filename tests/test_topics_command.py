"""Topics of a real model: by the command as in this process, of a collection, and as a map in a
browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from small_topics import REAL, same

from tercet import Collection, InputError, Topics, TopicSettings, cluster, load
from tercet.cli import run


def test_a_collection_has_topics_that_know_its_model(minilm: Path, tmp_path: Path):
    collection = Collection.open(tmp_path / "collection", minilm)
    collection.add(REAL)
    topics = cluster(Collection.open(tmp_path / "collection"), settings=TopicSettings("kmeans", 3))
    assert [topic.size for topic in topics.table] == [8, 8, 8]
    topics.save(tmp_path / "topics")
    other = Topics.load(tmp_path / "topics")
    said = other.predict(["The team lost the game.", "Stars and planets.", REAL[0]])
    wanted = [topics.topics[topics.texts.index(text)] for text in (REAL[20], REAL[10], REAL[0])]
    assert said.topics.tolist() == wanted
    collection.add(["A cup of flour."])
    with pytest.raises(InputError, match="leave model and vectors out"):
        cluster(collection, minilm)
    with pytest.raises(InputError, match="made with precision 'float32', and the model given has"):
        assert other.embedder is not None
        other.embedder.take(load(minilm, precision="bfloat16"))


@pytest.fixture(scope="module")
def written(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command, in a process of its own."""
    place = tmp_path_factory.mktemp("command")
    (place / "texts.txt").write_text("\n".join(f"{text} {i}" for i in range(4) for text in REAL))
    flags = "--min-size 10 --out out --map map.html --picture map.png --max-ram 3G"
    command = [sys.executable, "-m", "tercet", "cluster", str(minilm), "texts.txt", *flags.split()]
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "120"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (place / "said").write_text(done.stdout + done.stderr)
    return place


def test_the_command_finds_what_this_process_finds(written: Path, minilm: Path):
    texts = (written / "texts.txt").read_text().splitlines()
    topics = cluster(texts, load(minilm), settings=TopicSettings(min_size=10))
    same(Topics.load(written / "out"), topics)
    assert len(topics.table) == 3
    said = (written / "said").read_text()
    assert "96 texts, 3 topics" in said and topics.table[0].words[0] in said
    rows = [json.loads(line) for line in (written / "out" / "texts.jsonl").open()]
    assert [row["text"] for row in rows] == texts
    assert (written / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def hand(written: Path, tmp_path: Path) -> Iterator[browser.Hand]:
    page = written / "map.html"
    with browser.opened(page, tmp_path / "profile", *browser.SOFTWARE_WEBGL) as driver:
        yield browser.Hand(driver)


@browser.driven
def test_the_real_map_is_hovered_searched_and_zoomed(hand: browser.Hand, written: Path):
    topics = Topics.load(written / "out")
    place = topics.texts.index(f"{REAL[3]} 2")
    hand.type("biscuits")
    found = hand.one(".map-found")
    hand.until(lambda: found.text == "4 of 96 texts")
    hand.one("input[type=search]").clear()
    hand.hover(place)
    hand.until(lambda: hand.one(".map-card").is_displayed())
    named = {f"{topic.number} {topic.name}" for topic in topics.table} | {"no topic"}
    assert hand.one(".map-card bdi").text in named
    assert hand.one(".map-card p").text in topics.texts
    before = hand.place(place)
    hand.one("[aria-label=Nearer]").click()
    hand.until(lambda: hand.js("return textMap.view.zoom") == pytest.approx(1.7))
    hand.until(lambda: not hand.js("return textMap.waiting"))
    assert hand.place(place) != before
    legend = [row.text for row in hand.driver.find_elements("css selector", "[data-topic] bdi")]
    assert legend[0].startswith("0 ")


# the verb's flags ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cluster", "name a COLLECTION, or a MODEL and FILES"),
        ("cluster nowhere", "nowhere is no collection; name FILES behind"),
        ("cluster MODEL texts.txt --k 3", "--method kmeans and --k N belong together"),
        ("cluster MODEL texts.txt --method kmeans --k 200", "k 200 and only 5 different texts"),
        ("cluster MODEL texts.txt --max-ram 50M", "no number of texts would fit"),
        ("cluster MODEL missing.txt", "missing.txt: no such file"),
        ("cluster MODEL texts.txt --map /proc/no/map.html", "cannot be written"),
    ],
)
def test_bad_commands(command: str, said: str, minilm: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(REAL[:5]))
    assert run([word.replace("MODEL", str(minilm)) for word in command.split()]) == 2
    assert said in capsys.readouterr().err


def test_the_verb_prints_json(minilm: Path, tmp_path: Path, capsys):
    (tmp_path / "rows.csv").write_text("subject\n" + "".join(f'"{text}"\n' for text in REAL))
    command = ["cluster", str(minilm), str(tmp_path / "rows.csv"), "--column", "subject", "--json"]
    assert run([*command, "--min-size", "5", "--outliers", "assign"]) == 0
    table = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(topic["size"] for topic in table) == len(REAL)
    assert set(table[0]) == {"number", "size", "name", "words", "examples", "stability"}


def test_finding_topics_leaves_torch_its_threads():
    """A training behind it took minutes instead of seconds, with two threads beside a busy core."""
    found = (
        "import torch; from tercet.represent.topics.reduce import alone\n"
        "with alone(): pass\n"
        "print(torch.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-c", found]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"

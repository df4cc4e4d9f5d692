"""tercet report: the page of a run holds what the folder holds, and draws long runs quickly."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import pytest
from small_runs import imitated, step, train_small
from test_report import NASTY, parsed

from tercet import cli
from tercet.errors import InputError
from tercet.jobs import recipe as recipes
from tercet.jobs.runs.report import page, report, spread
from tercet.jobs.runs.story import Story, speed
from tercet.train.log import rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_small(tmp_path_factory.mktemp("report"))


def plots(written: str) -> dict[str, dict]:
    """Title -> what the plot's curves hold."""
    figures = re.findall(r'<figure class="plot">(.*?)</figure>', written, re.DOTALL)
    found = {}
    for figure in figures:
        title = re.search(r"<strong>(.*?)</strong>", figure)
        data = re.search(r'data-plot="([^"]*)"', figure)
        assert title
        curves = json.loads(html.unescape(data[1]))["curves"] if data else []
        found[title[1]] = {curve["name"]: curve["points"] for curve in curves}
    return found


def typed(written: str) -> list[list[str]]:
    """The commands of the page."""
    shown = re.findall(r"<code>(tercet .*?)</code></pre>", written)
    return [shlex.split(html.unescape(command))[1:] for command in shown]


def test_the_page_of_a_real_run(trained: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["report", str(trained)]) == 0
    assert "report.html is written" in capsys.readouterr().err
    written = (trained / "report.html").read_text(encoding="utf-8")
    for tag, attributes in parsed(written).seen:
        for name in ("src", "href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:image/svg+xml,")), (tag, target)
    rows = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    drawn = plots(written)
    assert set(drawn) >= {"Loss by step", "Loss by seconds", "Learning rate", "Speed"}
    losses = [[row["step"], pytest.approx(row["loss"], rel=1e-4)] for row in rows if "norm" in row]
    assert drawn["Loss by step"]["training"] == losses
    validation = [row for row in rows if row["kind"] == "evaluation"]
    assert [point[0] for point in drawn["Loss by step"]["validation"]] == [4, 8, 12]
    best = min(row["loss"] for row in validation)
    assert f"{best:.4f}" in written and "A small decoder of a test" in written
    for word in ("&lt;b&gt;", "step 12", "context_length: 32", "complete"):
        assert word in written
    commands = typed(written)
    assert ["report", str(trained)] not in commands and len(commands) >= 4
    for command in commands:
        verb, rest = cli.find_verb(command)
        module, _, name = cli.VERBS[verb][0].partition(":")
        function = getattr(__import__(module, fromlist=[name]), name)
        assert callable(cli.parse(function, verb, rest)), command


def test_what_each_family_writes_on_the_way(tmp_path: Path):
    """Whole texts where there is room for them, slid ones where there is not."""
    slid = train_small(tmp_path / "slid", "evaluate.max_new_tokens=40", "train.steps=4")
    masked = train_small(
        tmp_path / "masked",
        "model.preset=bert-tiny",
        "model.change={d_model: 32, d_ff: 64, n_heads: 2, encoder_layers: 1, context_length: 32}",
        "tokenizer.kind=wordpiece",
        "objective.kind=masked",
        'evaluate.prompts=["[MASK] is lost, [MASK] is written", "[MASK]"]',
        "train.steps=4",
    )
    told = [
        [row for row in rows(folder / "log.jsonl", "sample") if row["step"] == 4]
        for folder in (slid, masked)
    ]
    assert any(len(row["text"].encode()) > 32 for row in told[0])
    assert re.fullmatch(r".+ is lost, .+ is written", told[1][0]["text"])
    assert "[MASK]" not in told[1][1]["text"]
    written = html.unescape(report(masked).read_text(encoding="utf-8"))
    assert "[MASK] is lost, [MASK] is written\n</span><b>" in written and "An encoder" in written
    with pytest.raises(InputError, match=r"'lost' leaves nothing to fill in; put \[MASK\]"):
        recipes.load(str(masked / "recipe.yaml"), ["evaluate.prompts=[lost]"])


def test_a_long_run_is_drawn_in_stretches(tmp_path: Path):
    rows = [step(n, loss=3.0 + (n % 2)) for n in range(1, 100_001)]
    rows[61_234]["loss"] = 77.0
    folder = imitated(tmp_path / "long", rows)
    written = report(folder).read_text(encoding="utf-8")
    assert len(written) < 200_000
    assert "100,000 steps are drawn in stretches of 200" in written
    assert "running mean over 2,000 steps" in written
    drawn = plots(written)["Loss by step"]["training"]
    assert all(3.45 < loss < 3.6 for _, loss in drawn)
    assert (
        "60" in re.findall(r'class="plot-side".*?</div>', written)[0]
    )  # of room for the spike, which is drawn faintly


def test_what_happened(tmp_path: Path):
    rows = [
        {"kind": "event", "step": 0, "event": "begun", "parameters": 1234, "threads": 2},
        *(step(n) for n in range(1, 5)),
        {"kind": "plan", "step": 4, "steps": 60},
        step(5, loss="nan", norm="nan", skipped=1.0),
        {"kind": "event", "step": 5, "event": "resumed"},
        *(step(n, loss=f"{n}", skipped=1.0) for n in range(6, 20)),
    ]
    folder = imitated(tmp_path / "run", rows)
    (folder / "recorder").mkdir()
    (folder / "recorder" / "step-4.json").write_text('{"trouble": "the loss is nan", "steps": []}')
    written = report(folder).read_text(encoding="utf-8")
    assert "begun: parameters 1,234, threads 2" in written and "60 steps in all" in written
    assert f"the loss is nan, skipped; see tercet replay {folder}@4" in written
    assert f"the loss was 6, skipped; see tercet replay {folder}@5" in written
    assert "15 steps were skipped in all" in written and "resumed" in written
    assert "--resume" in " ".join(map(shlex.join, typed(written)))


def test_a_run_without_a_step_and_hostile_texts(tmp_path: Path):
    assert "No points yet" in str(page(Story.of(imitated(tmp_path / "begun", []))))
    told = {"kind": "sample", "step": 1, "prompt": NASTY, "text": NASTY}
    folder = imitated(tmp_path / "nasty", [step(1), told, told | {"step": 2}])
    written = report(folder).read_text(encoding="utf-8")
    parsed(written)
    assert "<script>alert" not in written and written.count("&lt;script&gt;") == 4


def test_speed_is_tokens_over_seconds(tmp_path: Path):
    """10 steps of a second, 10 of three seconds: half the tokens took a quarter of the time."""
    seconds = [*range(1, 11), *range(13, 43, 3)]
    rows = [step(n, seconds=float(seconds[n - 1])) for n in range(1, 21)]
    curve = speed(Story.of(imitated(tmp_path / "run", rows)))
    assert {round(value) for value in curve.y} == {1000, 333}


def test_the_times_of_long_runs_are_told_in_hours(tmp_path: Path):
    rows = [step(n, seconds=3600.0 * n) for n in range(1, 6)]
    rows.append({"kind": "evaluation", "step": 4, "loss": 1.0})
    drawn = plots(str(page(Story.of(imitated(tmp_path / "run", rows)))))
    assert [point[0] for point in drawn["Loss by hours"]["training"]] == [1, 2, 3, 4, 5]
    assert drawn["Loss by hours"]["validation"] == [[4, 1]]


def test_samples_are_spread_from_the_first_to_the_last():
    assert spread(range(100), 4) == [0, 33, 66, 99] and spread([1, 2], 4) == [1, 2]

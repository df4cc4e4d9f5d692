"""The report room: a realistic page, and what every page must keep."""

from __future__ import annotations

import base64
import html as html_text
import json
import math
import os
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import browser
import numpy as np
import pytest

from tercet import cli, report
from tercet.errors import InputError
from tercet.report.attention import decode, encode
from tercet.report.markup import number
from tercet.report.plots import _foot
from tercet.report.scales import Scale, scale_of, tick_labels

NASTY = "<script>alert('x')</script> & \"quotes\" \x00\ud800 </title> 日本 👩‍🚀"
VOID = {"meta", "link"}
SENTENCE = "the cat that chased the mice was very tired of it .".split()


def softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def attention(n_queries: int, n_keys: int, *, causal: bool = False, seed: int = 0) -> np.ndarray:
    """(3, 4, T, S): heads that look at the place before, at one key, nearby, everywhere."""
    draw = np.random.default_rng(seed)
    t, s = np.arange(n_queries)[:, None], np.arange(n_keys)[None, :]
    near = -np.abs(t * n_keys / n_queries - s)
    heads = [
        3.0 * -np.abs(t - 1 - s),
        4.0 * (s == 0) + near * 0.1,
        near,
        1.2 * near + 2 * (s % 4 == 1),
    ]
    scores = np.stack([np.stack(heads)] * 3) * np.array([0.4, 1.0, 1.6])[:, None, None, None]
    scores = scores + draw.normal(size=(3, 4, n_queries, n_keys))
    if causal:
        scores = np.where(t >= s, scores, -np.inf)
    return softmax(scores)


def curve(steps: int, start: float, end: float, seed: int, noise: float = 0.12) -> list[float]:
    draw = random.Random(seed)
    return [end + (start - end) * (1 + i / 12) ** -0.8 + draw.gauss(0, noise) for i in range(steps)]


def quickstart_page() -> report.Page:
    """What the quickstart's page holds, with invented figures."""
    page = report.Page(
        "Three Transformers in five minutes",
        kicker="tercet quickstart · invented figures of a test",
        lead="A decoder, an encoder and an encoder–decoder, trained on the text that every Python "
        "carries, on two cores of a laptop; then put to use.",
    )
    page.add(
        report.facts(
            report.Fact("5 min 12 s", "from raw text to three models", "two CPU cores"),
            report.Fact(1.93, "bits per byte, held-out text", "a trigram gets 2.38", good=True),
            report.Fact("41 %", "masked words among the top five", "unigram 12 %", good=True),
            report.Fact("19 / 20", "dates written out exactly", "never seen in training"),
            report.Fact("3", "median rank of the right topic", "before training: 171"),
        )
    )
    steps = list(range(0, 1200, 2))
    held = [0, 200, 400, 600, 800, 1000]
    page.section(
        "What was learned",
        "Loss is in nats a token; a faint line is the loss of single batches, the bold one its "
        "running mean. Dots are measured on held-out text with `evaluate`.",
        report.side_by_side(
            report.line_plot(
                [
                    report.Series("training", steps, curve(600, 8.2, 3.1, 1), smooth=25),
                    report.Series("held-out", held, [8.3, 4.1, 3.8, 3.62, 3.55, 3.5], points=True),
                ],
                title="Decoder",
                y="loss, nats a token",
                references={"trigram": 4.6},
            ),
            report.line_plot(
                [
                    report.Series(
                        "training", np.array(steps), np.array(curve(600, 8.4, 3.9, 3)), smooth=25
                    )
                ],
                title="Encoder, masked words",
            ),
            report.line_plot(
                [
                    report.Series(
                        "training", steps, [abs(v) + 0.004 for v in curve(600, 5, 0, 5, 0.01)]
                    )
                ],
                title="Encoder–decoder, dates",
                y=report.Axis("loss", log=True),
            ),
            report.line_plot(
                [
                    report.Series(
                        "Transformer", [i / 10 for i in steps], curve(600, 8.2, 3.1, 1), smooth=25
                    ),
                    report.Series(
                        "LSTM", [i / 10 for i in steps[:420]], curve(420, 8.3, 3.6, 6), smooth=25
                    ),
                ],
                title="The same seconds: LSTM and Transformer",
                x="seconds",
            ),
        ),
    )
    source = "the third of March nineteen eighty-four </s>".split()
    page.section(
        "Where they look",
        report.attention_map(attention(12, 12), SENTENCE, title="Encoder: sees both sides"),
        report.attention_map(
            attention(12, 12, causal=True, seed=1), SENTENCE, title="Decoder: sees the past"
        ),
        report.attention_map(
            attention(10, 7, seed=2), list("1984-03-03"), source, title="Encoder–decoder: across"
        ),
    )
    page.section(
        "A docstring, completed",
        report.sample(
            'def read(self, size=-1):\n    """Read at most size',
            " bytes, returned as a bytes object.\n\n    If the size argument is negative, "
            'read until EOF is reached."""',
            note="decoder, greedy",
        ),
    )
    page.section(
        "Words, filled in",
        report.side_by_side(
            report.fill(
                "Return a [MASK] of the object's attributes.",
                [
                    ("list", 0.47),
                    ("copy", 0.21),
                    ("string", 0.11),
                    ("dictionary", 0.06),
                    ("set", 0.02),
                ],
                truth="list",
            ),
            report.fill("Raises an [MASK] if it fails.", [("exception", 0.5)], truth="OSError"),
        ),
    )
    page.section(
        "Ten questions",
        report.table(
            ["question", "topic", "rank before", "rank after"],
            [
                ["How do I run a block again and again?", "while", 211, 1],
                ["What happens when a name is looked up?", "naming", 93, 4],
            ],
            caption="Rank of the right topic among 78, by cosine.",
        ),
    )
    dates = [
        ("the third of March nineteen eighty-four", "1984-03-03", "1984-03-03"),
        ("May the first, two thousand and twelve", "2012-05-01", "2012-05-11"),
    ]
    page.section(
        "Twenty dates",
        report.table(
            ["source", "expected", "answer", ""],
            [[s, e, report.difference(e, a), e == a] for s, e, a in dates],
        ),
    )
    page.section(
        "Type next",
        report.commands(
            ("Let the decoder write", 'tercet generate runs/quickstart/decoder "def main("'),
            ("See what it looks at", 'tercet attend runs/quickstart/encoder "a real sentence"'),
        ),
    )
    return page


class Nesting(HTMLParser):
    """Every element closes in the order it opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes {self.open}"


def parsed(page: object) -> Nesting:
    parser = Nesting()
    parser.feed(str(page))
    parser.close()
    assert not parser.open
    return parser


def test_page_is_well_nested_and_loads_nothing(tmp_path: Path) -> None:
    path = quickstart_page().write(tmp_path / "runs" / "report.html")
    written = path.read_text(encoding="utf-8")
    elements = parsed(written).seen
    for tag, attributes in elements:
        assert tag not in {"iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "poster", "xlink:href", "action"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:image/svg+xml,")), (tag, target)
    assert "url(" not in written and "@import" not in written
    assert re.findall(r"https?://[\w.]+", written) == ["http://www.w3.org"]  # the icon's namespace
    names = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(names) == len(set(names)) == 7
    assert len(written) < 150_000
    assert os.listdir(path.parent) == ["report.html"]
    if folder := os.environ.get("TERCET_REPORT"):  # to look at it
        quickstart_page().write(Path(folder) / "report.html")


def test_all_text_is_escaped() -> None:
    page = report.Page(NASTY, lead=NASTY, kicker=NASTY)
    page.add(NASTY, report.facts(report.Fact(NASTY, NASTY, NASTY)))
    page.section(
        NASTY,
        NASTY,
        report.text(NASTY),
        report.table([NASTY], [[NASTY], [None]], caption=NASTY),
        report.sample(NASTY, NASTY, note=NASTY),
        report.fill(NASTY + "[MASK]", [(NASTY, 0.5)], truth="x" + NASTY),
        report.answers((NASTY, NASTY)),
        report.code(NASTY),
        report.commands((NASTY, NASTY)),
        report.fold(NASTY, report.text(NASTY)),
        report.difference(NASTY, NASTY + NASTY),
        report.line_plot(
            [report.Series(NASTY, [0, 1], [0, 1])],
            title=NASTY,
            x=NASTY,
            y=NASTY,
            references={NASTY: 1},
        ),
        report.attention_map([[[[1.0]]]], [NASTY], title=NASTY, note=NASTY),
    )
    page.section(NASTY)
    written = str(page)
    assert "<script>alert" not in written and "\x00" not in written
    written.encode("utf-8")
    kinds = [tag for tag, _ in parsed(page).seen]
    assert kinds.count("script") == 2  # the page's own, and the data of the one map
    assert kinds.count("title") == 1


@pytest.mark.slow
@browser.needed
def test_a_browser_draws_the_maps(tmp_path: Path) -> None:
    path = quickstart_page().write(tmp_path / "report.html")
    said = re.findall(r'role="status">(Layer.*?)</p>', browser.drawn(path, tmp_path / "profile"))
    assert len(said) == 3
    # The decoder's map opens with the strongest link of its most pointed head, between two tokens.
    weights = np.tril(attention(12, 12, causal=True, seed=1)[2, 0], -1)[:, 1:]
    t, s = np.unravel_index(np.vectorize(encode)(weights).argmax(), weights.shape)
    best = round(100 * float(weights[t, s]))
    link = f"<b>{SENTENCE[t]}</b> → <b>{SENTENCE[s + 1]}</b>"
    assert said[1].startswith(f"Layer 3, head 1: {link}") and f"{best} %" in said[1]


@pytest.mark.parametrize("kind", ["array", "lists", "list of arrays"])
def test_weights_can_be_had_back(kind: str) -> None:
    weights = attention(5, 7)
    given = {"array": weights, "lists": weights.tolist(), "list of arrays": list(weights)}[kind]
    data = browser.embedded(
        report.attention_map(given, list("abcde"), list("1234567"), title="map")
    )
    assert data["shape"] == [3, 4, 5, 7]
    codes = np.frombuffer(base64.b64decode(data["weights"]), np.uint8)
    back = np.array([decode(int(code)) for code in codes]).reshape(3, 4, 5, 7)
    assert np.abs(back - weights).max() <= 0.004  # what the page says
    small = weights < 0.01
    assert np.abs(back - weights)[small].max() <= 0.0004


def test_masked_cells_are_empty_and_only_they() -> None:
    weights = attention(6, 6, causal=True)
    data = browser.embedded(report.attention_map(weights, list("abcdef"), title="decoder"))
    codes = np.frombuffer(base64.b64decode(data["weights"]), np.uint8).reshape(3, 4, 6, 6)
    assert ((codes == 0) == (np.triu(np.ones((6, 6)), 1) > 0)).all()
    assert encode(0.0) == 0 and encode(1e-30) == 1 and encode(1.0) == 255


def test_tokens_stand_on_both_axes() -> None:
    html = report.attention_map(attention(2, 3), ["\n", "<b>"], [" ", "", "x"], title="t")
    data = browser.embedded(html)
    assert data["queries"] == ["↵", "<b>"] and data["keys"] == ["␣", "∅", "x"]
    assert '<bdi title="&lt;b&gt;">&lt;b&gt;</bdi>' in html


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], "0 layers"),
        ([[[[0.5, 0.5]], [[0.5]]]], r"wanted 2 of 2 × 2"),
        ([[[[0.5, math.nan], [1, 0]]]], "nan is outside 0 to 1"),
        ([[[[0.5, 1.5], [1, 0]]]], "1.5 is outside 0 to 1"),
    ],
)
def test_bad_weights(weights: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        report.attention_map(weights, ["a", "b"], title="map")


def test_too_many_weights_have_a_remedy_that_the_verb_has(monkeypatch, capsys) -> None:
    monkeypatch.setattr("tercet.report.attention.LARGEST", 3)
    with pytest.raises(InputError, match=r"4 weights are too many .*; shorten the text$"):
        report.attention_map([[[[1.0, 0.0], [0.5, 0.5]]]], ["a", "b"], title="map")
    with pytest.raises(SystemExit):
        cli.run(["attend", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "the exact weights" not in said and "a weight in 8 bits" in said


def test_other_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="start .* is no head"):
        report.attention_map([[[[1.0]]]], ["a"], title="map", start=(0, 1))
    with pytest.raises(InputError, match="3 x values and 2 y values"):
        report.line_plot([report.Series("s", [1, 2, 3], [1, 2])], title="plot")
    with pytest.raises(InputError, match="2 cells for 1 columns"):
        report.table(["a"], [[1, 2]])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        report.Page("p").write(tmp_path / "file" / "report.html")


def test_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = report.Page("old").write(tmp_path / "report.html")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        report.Page("new").write(path)
    assert "<title>old</title>" in path.read_text() and os.listdir(tmp_path) == ["report.html"]


def test_plots_of_little() -> None:
    assert "No points yet" in report.line_plot([], title="none")
    assert "No points yet" in report.line_plot([report.Series("s", [1], [math.nan])], title="nan")
    parsed(report.line_plot([report.Series("s", [3], [2])], title="one point"))
    flat = report.line_plot([report.Series("s", [0, 1, 2], [5, 5, 5])], title="flat")
    assert "nan" not in flat
    gap = report.line_plot([report.Series("s", [0, 1, 2, 3], [1, 2, math.nan, 4])], title="gap")
    assert gap.count("M") > flat.count("M") - 1 and "nan" not in gap
    log = report.line_plot(
        [report.Series("s", [0, 1, 10], [1, 0.1, 0])],
        title="log",
        x=report.Axis("step", log=True),
        y=report.Axis("loss", log=True),
    )
    assert "2 points at or below zero left out" in log


def test_long_curves_are_thinned_but_keep_their_spikes() -> None:
    y = [1.0] * 50_000
    y[31_234] = 9.0
    html = report.line_plot([report.Series("s", range(50_000), y)], title="spike")
    assert len(html) < 30_000 and "[31234,9]" in html


def test_a_curve_in_stretches_is_its_means_over_all_its_spikes() -> None:
    y = [float(i % 10) for i in range(1000)]
    y[333], y[700] = 99.0, math.nan
    series = report.in_stretches(report.Series("s", range(1000), y, smooth=200), 100)
    x, means = series.numbers()
    assert len(x) == 10 and series.smooth == 2 and x[0] == 49
    assert means[0] == means[2] == 4.5 and means[3] == pytest.approx((450 - 3 + 99) / 100)
    assert (333, 99.0) in series.faint and len(series.faint) == 20
    html = report.line_plot([series], title="spike")
    assert 'class="raw"' in html and "nan" not in html
    parsed(html)
    plain = report.Series("s", [0, 1], [2, 3])
    assert report.in_stretches(plain, 1) is plain


def test_an_axis_can_begin_at_zero() -> None:
    series = [report.Series("s", [0, 1], [100, 101])]
    data = [
        json.loads(html_text.unescape(re.findall(r'data-plot="([^"]*)"', plot)[0]))["y"]
        for plot in (
            report.line_plot(series, title="speed", y=report.Axis("tokens/s", zero=zero))
            for zero in (False, True)
        )
    ]
    assert data[0][0] > 99 and data[1][0] == 0


@pytest.mark.parametrize(
    ("low", "high", "log", "labels"),
    [
        (0, 1, False, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 1200, False, ["0", "200", "400", "600", "800", "1000", "1200"]),
        (0, 60_000, False, ["0", "10k", "20k", "30k", "40k", "50k", "60k"]),
        (0.01, 10, True, ["0.01", "0.1", "1", "10"]),
        (0, 3e-4, False, ["0", "5.0e−5", "1.0e−4", "1.5e−4", "2.0e−4", "2.5e−4", "3.0e−4"]),
        (2.2, 8.4, True, ["3", "4", "5", "6", "7", "8"]),
    ],
)
def test_ticks(low: float, high: float, log: bool, labels: list[str]) -> None:
    assert tick_labels(Scale(low, high, log).ticks(6)) == labels


def test_ticks_below_a_narrow_plot_do_not_touch():
    for high in (20, 458, 1000, 1327, 2000, 2292, 9999, 20_000, 123_456, 1e6, 3.7e9):
        labels = [label for _, label in _foot(Scale(0, high))]
        assert 3 <= len(labels) and sum(len(label) + 2 for label in labels) <= 36, labels


def test_scales_and_numbers() -> None:
    scale = scale_of([1, 100], log=True, tight=True)
    assert scale.place(10) == pytest.approx(0.5)
    assert scale_of([0.1, 5]).low == 0
    assert [number(v) for v in (3, 1234567, 0.12345, -2.5, math.nan, 1e-7)] == [
        "3", "1\u202f234\u202f567", "0.1235", "−2.5", "–", "1e−7",
    ]  # fmt: skip

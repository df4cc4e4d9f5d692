"""The page about masks: on prepared corpora, its counts, and what it shows of a text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tercet.data import Masked, Masking, Pieces, Tokens
from tercet.data.prepare import Learn, Source, Texts, prepare
from tercet.errors import InputError
from tercet.jobs.data import masks
from tercet.jobs.data.masks_view import MaskedView
from tercet.jobs.quickstart.corpus import topics
from tercet.report.masks import MaskedSample, MaskedToken, Rate, masks_page
from tercet.text import SPECIAL, Special, train_tokenizer

SPANS = Special({"pad": "<pad>", "eos": "</s>"}, extra=("<extra_id_0>", "<extra_id_1>"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for key, text in list(topics().items())[:40]:
        (folder / f"{key.lower()}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "spans"])
def test_a_page_from_a_prepared_corpus(
    kind: str, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(masks, "COUNTED", 50_000)
    spans = kind == "spans"
    learn = Learn("bpe" if spans else kind, 700, SPANS if spans else SPECIAL["encoder"])  # type: ignore[arg-type]
    corpus = tmp_path / "corpus"
    prepare(corpus, {"topics": Source(Texts((str(texts),)), validation=0.1)}, learn)
    out = tmp_path / "masks.html"
    pairs = kind == "wordpiece"
    masks.run(corpus, whole_words=not spans, next_sentence=pairs, spans=spans, length=12, out=out)
    assert str(out) in capsys.readouterr().err
    page = out.read_text("utf-8")
    assert page.count('class="sample masks"') == masks.SHOWN and "document" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "src=" not in page
    assert '<span class="unseen">no</span>' not in page  # every rate is as it should be
    if spans:
        assert "tokens a span" in page and "&lt;extra_id_0&gt;</rt>" in page
    else:
        part = re.search(r"words hidden in part</td>.*?</tr>", page)
        assert part and "0.00%" in part[0]
        assert "[MASK]</rt>" in page and ("pairs from elsewhere" in page) == pairs
    if pairs:
        assert "the second text follows" in page and "comes from elsewhere" in page


def test_one_of_several_sources(texts: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(masks, "COUNTED", 5_000)
    one = Source(Texts((str(texts),)), validation=0.1)
    prepare(tmp_path / "two", {"a": one, "b": one}, Learn("wordpiece", 500, SPECIAL["encoder"]))
    with pytest.raises(InputError, match="holds 2 sources; name one of them: a, b"):
        masks.run(tmp_path / "two")
    with pytest.raises(InputError, match="source c: .* has none; there are a, b"):
        masks.run(tmp_path / "two", source="c")
    masks.run(tmp_path / "two", source="b")
    assert (tmp_path / "two" / "masks.html").exists()


def test_what_does_not_go_together(tmp_path: Path):
    with pytest.raises(InputError, match="give --spans alone"):
        masks.run(tmp_path, spans=True, whole_words=True)


def test_the_counts_are_those_of_a_slow_twin():
    found = list(topics().values())[:30]
    tokenizer = train_tokenizer(found, kind="wordpiece", vocab_size=500, special="encoder")
    tokens = Tokens.of(tokenizer.encode_batch(found, special=False), None)
    draw = Pieces(tokens, 60, 3000)
    shape = Masked(Masking.of(tokenizer), seed=4)  # single tokens: some words are hidden in part
    view = MaskedView(shape, tokenizer)
    samples = draw.samples(0)
    view.count(samples)
    slow = dict.fromkeys(("free", "chosen", "mask", "kept", "words", "whole", "part"), 0)
    for sample in samples:
        shown = view.shown(sample, "").tokens
        words: list[list[MaskedToken]] = []
        for token in shown:
            if token.begins:
                words.append([])
            words[-1].append(token)
        for word in words:
            word = [t for t in word if t.how != "special" and t.text != "[UNK]"]
            hidden = [token for token in word if token.how in ("mask", "random", "kept")]
            slow["free"] += len(word)
            slow["chosen"] += len(hidden)
            slow["mask"] += sum(token.how == "mask" for token in hidden)
            slow["kept"] += sum(token.how == "kept" for token in hidden)
            slow["words"] += bool(word)
            slow["whole"] += bool(word) and len(hidden) == len(word)
            slow["part"] += 0 < len(hidden) < len(word)
    assert {name: getattr(view.tally, name) for name in slow} == slow
    assert view.tally.squares == slow["free"] and slow["part"] > 0


def test_a_rate_that_is_off_says_so():
    assert Rate("x", 0.5, 52, 100, deviation=5).good and not Rate("x", 0.5, 80, 100, 5).good
    assert Rate("x", 0.0, 0, 100).good and not Rate("x", 0.0, 1, 100).good
    assert Rate("x", 0.15, 19, 128, slack=1).good
    nasty = "<b>&"
    token = MaskedToken(nasty, "mask", "</rt><script>")
    sample = MaskedSample(nasty, "`a`", [token, MaskedToken("⏎", "seen")])
    page = str(masks_page([sample], [Rate("off", 0.5, 80, 100, 5)], kicker="k", lead="l"))
    assert "<b>&" not in page and "</rt><script>" not in page and "+6.0 σ" in page
    assert '<span class="unseen">no</span>' in page and 'class="line-end"' in page

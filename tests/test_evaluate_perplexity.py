"""Windows that slide, and what they measure: every token once, the same as all at once."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tercet
from tercet import cli
from tercet.config import TransformerConfig
from tercet.data.windows import windows
from tercet.errors import InputError
from tercet.evaluate import perplexity
from tercet.evaluate.perplexity import (
    bits_per_byte,
    cost,
    cost_by_position,
    held_out,
    loss,
    loss_by_context,
    position_ranges,
    text_bits_per_byte,
)
from tercet.language_model import LanguageModel
from tercet.model import Layout, Network, build
from tercet.text import train_tokenizer
from tercet.text.special import Special

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
STORIES = DATA.parent / "weights" / "stories260K"
needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason=f"no folder {STORIES}")
CONFIG = TransformerConfig(
    vocab_size=20, context_length=1024, d_model=8, d_ff=8, n_heads=1, decoder_layers=1
)
LSTM = CONFIG.replace(mixer="lstm", positions="none")


def stream(n: int) -> Tensor:
    return torch.randint(20, (n,), generator=torch.Generator().manual_seed(n))


def blind() -> Network:
    """Without attention every window gives the same."""
    net = build(CONFIG.replace(positions="none")).double()
    with torch.no_grad():
        net.decoder.blocks[0].attention.layer.o.weight.zero_()  # type: ignore[union-attr]
    return net


def exact(net: Network, tokens: Tensor) -> Tensor:
    """(N - 1,) nats of every token but the first, all of the text visible."""
    with torch.no_grad():
        logits = net(tokens[:-1], Layout([len(tokens) - 1])).double().log_softmax(-1)
    return -logits.gather(1, tokens[1:, None])[:, 0]


@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("seen", [1, 5])
def test_every_token_is_a_target_once_behind_half_a_window(length: int, seen: int):
    tokens = torch.arange(100, 331)
    documents = [(0, 90), (90, 91), (91, 230)]
    found = []
    for batch in windows(tokens, length, documents=documents, seen=seen, budget=64):
        assert batch.select is not None and batch.layout.n_tokens <= max(64, length)
        assert torch.equal(batch.tokens[batch.select] + 1, batch.targets)
        visible = batch.layout.positions[batch.select] + 1
        for target, n in zip((batch.targets - 100).tolist(), visible.tolist()):
            start = next(start for start, stop in documents if start < target <= stop)
            assert min(target - start, length - length // 2) <= n <= length
            assert batch.tokens.tolist()[0] >= 100
            found.append(target)
    wanted = [i for start, stop in documents for i in range(start + seen, stop + 1)]
    assert found == wanted


@pytest.mark.parametrize("config", [CONFIG, LSTM], ids=["attention", "lstm"])
def test_one_window_is_the_whole_text(config: TransformerConfig):
    net = build(config).double()
    for n in (9, 200, 531):
        tokens = stream(n)
        nats = exact(net, tokens)
        assert loss(net, tokens, 1024) == pytest.approx(float(nats.mean()), rel=1e-6)
        bits = float(nats.sum()) / np.log(2) / 77
        assert bits_per_byte(net, tokens, 1024, 77) == pytest.approx(bits, rel=1e-6)


def test_without_a_context_every_window_gives_the_same():
    for n in (9, 16, 17, 531):
        tokens, net = stream(n), blind()
        whole = loss(net, tokens, 1024)
        assert loss(net, tokens, 16) == pytest.approx(whole, rel=1e-6)
        documents = [(0, 5), (5, n - 1)]
        assert loss(net, tokens, 16, documents=documents) == pytest.approx(whole, rel=1e-6)


def test_documents_do_not_see_each_other():
    net, tokens = build(CONFIG).double(), stream(60)
    apart = torch.cat([exact(net, tokens[:21]), exact(net, tokens[20:])]).mean()
    documents = [(0, 20), (20, 59)]
    assert loss(net, tokens, 64, documents=documents) == pytest.approx(float(apart), rel=1e-6)
    assert loss(net, tokens, 64) != pytest.approx(float(apart), rel=1e-6)


def test_logits_are_made_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch):
    net, tokens = build(CONFIG).double(), stream(200)
    whole = loss(net, tokens, 64)
    widest = []
    monkeypatch.setattr(perplexity, "LOGITS", 7 * 20)
    logits = net.logits
    monkeypatch.setattr(net, "logits", lambda x: (widest.append(len(x)), logits(x))[1])
    assert loss(net, tokens, 64) == pytest.approx(whole, rel=1e-6)
    assert max(widest) == 7


def test_the_network_comes_back_in_its_mode():
    net = build(CONFIG.replace(dropout=0.5)).train()
    assert loss(net, stream(50), 16) == loss(net, stream(50), 16)
    assert net.training
    loss(net.eval(), stream(50), 16)
    assert not net.training


def test_loss_by_context_scores_the_same_tokens():
    tokens = stream(300)
    found = loss_by_context(blind(), tokens, (4, 16, 64))
    assert list(found) == [4, 16, 64]
    late = float(exact(blind(), tokens)[63:].mean())
    assert list(found.values()) == pytest.approx([late] * 3, rel=1e-6)
    with pytest.raises(InputError, match="none with 512 before it"):
        loss_by_context(blind(), tokens, (4, 512))


@given(st.integers(1, 200_000))
def test_ranges_of_positions_double_and_leave_none_out(length: int):
    ranges = position_ranges(length)
    assert ranges[0][0] == 1 and ranges[-1][1] == length
    assert all(last + 1 == first for (_, last), (first, _) in zip(ranges, ranges[1:]))
    assert [first for first, _ in ranges[1:]] == [32 << i for i in range(len(ranges) - 1)]
    assert ranges[-1][0] < max(length, 2) <= 2 * max(ranges[-1][0], 16)  # none too many, none short


@pytest.mark.parametrize("config", [CONFIG, LSTM], ids=["attention", "lstm"])
@pytest.mark.parametrize("length", [20, 100])
def test_cost_by_position_is_that_of_pieces_read_alone(config: TransformerConfig, length: int):
    net, tokens = build(config.replace(init_std=0.5)).double(), stream(531)
    documents = [(0, 90), (90, 91), (91, 530)]
    rows = []
    for at in (91, 191, 291, 391):  # the first document has no piece, the last a rest
        windows = [exact(net, tokens[at : at + length + 1])]
        for begin in range(at + length // 2, at + 101 - length, length // 2):
            windows.append(exact(net, tokens[begin : begin + length + 1])[length // 2 :])
        rows.append(torch.cat(windows))
    nats = torch.stack(rows)  # (4, 100)
    told: list[int] = []
    found = cost_by_position(net, tokens, length, documents=documents, piece=100, watch=told.append)
    assert list(found) == [(1, 31), (32, 63), (64, 100)] and told[-1] == 400
    for (first, last), part in found.items():
        wanted = nats[:, first - 1 : last]
        assert part.n_tokens == wanted.numel()
        assert part.loss == pytest.approx(float(wanted.mean()), rel=1e-6)
        assert part.perplexity == pytest.approx(math.exp(float(wanted.mean())), rel=1e-6)
    if length == 100:
        assert cost_by_position(net, tokens, 100, documents=documents) == found
    with pytest.raises(InputError, match="longest text has 90 tokens, and a window by position 91"):
        cost_by_position(net, tokens, 91, documents=documents[:2])


def test_texts_held_out_together_cost_what_each_costs_alone():
    texts = ["abcabcaab" * 9, "cab", "a"]
    plain = train_tokenizer(texts, kind="characters", special=Special({"unk": "[UNK]"}))
    for tokenizer in (train_tokenizer(texts, kind="characters", special="decoder"), plain):
        first = int(tokenizer is plain)  # has nothing that could stand before a text
        assert (tokenizer.eos_id is None) == first
        net = build(CONFIG.replace(init_std=0.5)).double()
        all_of_them = held_out(tokenizer, texts)
        assert all_of_them.n_bytes == sum(len(text) - first for text in texts)
        assert all_of_them.n_targets == all_of_them.n_bytes  # a token is a character here
        told: list[int] = []
        together = cost(
            net, all_of_them.tokens, 16, documents=all_of_them.documents, watch=told.append
        )
        alone = [
            cost(net, one.tokens, 16)
            for one in (held_out(tokenizer, [text]) for text in texts)
            if one.n_targets
        ]
        assert together.nats == pytest.approx(sum(one.nats for one in alone), rel=1e-6)
        assert together.n_tokens == told[-1] == all_of_them.n_targets
        assert together.bits_per_byte(5) == pytest.approx(together.nats / math.log(2) / 5)


@needs_stories
def test_a_real_models_text():
    model = tercet.load(STORIES)
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside."
    found = text_bits_per_byte(model, text)
    score = model.score(text)
    known = [value for value in score.log_probabilities if value is not None]
    assert found == pytest.approx(-sum(known) / np.log(2) / len(text), rel=1e-5)
    assert 0.05 < found < 0.5
    shuffled = " ".join(sorted(text.split()))
    assert text_bits_per_byte(model, shuffled) > 2 * found
    story = str(model.generate("Once upon a time", max_new_tokens=300))
    ids = torch.tensor(model.tokenizer.encode(story))
    by_context = loss_by_context(model.network, ids, (4, 16, 64))
    assert by_context[4] > by_context[16] > by_context[64]


def test_an_encoder_cannot_score_a_text():
    class Encoder:
        can = ("embed", "fill")
        config = CONFIG.replace(decoder_layers=0, encoder_layers=1, heads=("masked",))

    with pytest.raises(InputError, match="encoder.*cannot score.*embed, fill"):
        text_bits_per_byte(Encoder(), "text")  # type: ignore[arg-type]


def test_a_single_token_says_why_it_has_no_perplexity(tmp_path: Path, capsys):
    tokenizer = train_tokenizer(["abc"], kind="characters")
    model = LanguageModel(build(CONFIG), tokenizer)
    assert math.isnan(model.score("a").perplexity)
    model.save(tmp_path / "model")
    score, why = ["score", str(tmp_path / "model")], "a single token has nothing before it"

    assert cli.run([*score, "--text", "a"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"tercet: the text 'a': {why}") and err.count("\n") == 1

    (tmp_path / "lines.txt").write_text("abc\na\nab\n")
    assert cli.run([*score, str(tmp_path / "lines.txt")]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"tercet: text 2: {why}") and err.count("\n") == 1
    assert [line.split()[1] for line in out.splitlines()] == ["2", "0", "1", "3"]
    assert "nan" not in out.splitlines()[-1]  # the others do not suffer

    assert cli.run([*score, str(tmp_path / "lines.txt"), "--json"]) == 2
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["perplexity"] is None for row in rows] == [False, True, False]
    assert [bool(row["error"]) for row in rows] == [False, True, False]

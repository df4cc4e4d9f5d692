"""A cross-encoder puts texts into order, with the scores of sentence-transformers' CrossEncoder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tercet
from tercet import cli
from tercet.data import Stream
from tercet.data.groups import Grouped, Groups
from tercet.data.related import Related
from tercet.errors import InputError
from tercet.hf import Extras
from tercet.jobs.finetune.mining import groups_of_pairs
from tercet.language_model import LanguageModel
from tercet.model import build
from tercet.presets import preset
from tercet.text import CutReport, Tokenizer, train_tokenizer
from tercet.train import Ranking

SAID = [
    "The break statement ends a loop early.",
    "A loop goes over the items of a list.",
    "Lists and dictionaries hold items, and a loop reads them one by one until they are over.",
    "How to leave a function: return.",
    "Early in the morning",
]
QUERY = "How do I leave a loop early?"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([*SAID, QUERY] * 4, vocab_size=300, special="encoder")


def ranker(tokenizer: Tokenizer, name: str, **change) -> LanguageModel:
    small = {"d_model": 32, "d_ff": 64, "n_heads": 4, "encoder_layers": 2, "context_length": 64}
    change |= {"vocab_size": tokenizer.vocab_size, "n_labels": 1, "pad_id": tokenizer.pad_id}
    network = build(preset(name).replace(**small, **change), seed=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)  # or all texts would score alike
    return LanguageModel(network, tokenizer)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LanguageModel:
    return ranker(tokenizer, "bert-tiny", heads=("pooler", "classifier"))


def test_as_sentence_transformers_has_it(model: LanguageModel, tmp_path: Path):
    from sentence_transformers import CrossEncoder

    model.save(tmp_path)
    found = tercet.load(tmp_path).rank(QUERY, SAID)
    theirs = CrossEncoder(str(tmp_path), device="cpu")
    wanted = theirs.predict([(QUERY, text) for text in SAID])
    assert len({round(one.score, 4) for one in found}) == len(SAID)
    for one in found:
        assert one.text == SAID[one.index] and one.score == pytest.approx(
            wanted[one.index], abs=1e-5
        )
    assert [one.index for one in found] == (-wanted).argsort(kind="stable").tolist()


def test_each_text_alone_scores_the_same(model: LanguageModel):
    for one in model.rank(QUERY, SAID * 30):
        (alone,) = model.rank(QUERY, [one.text])
        assert alone.score == pytest.approx(one.score, abs=1e-6)


def test_of_long_texts_the_end_is_cut(model: LanguageModel):
    with pytest.warns(tercet.CutWarning, match="lost"):
        model.rank(QUERY, [SAID[0] * 20])


def pairs_of(model: LanguageModel, query: str, texts: list[str], label: float | None = None):
    (group,) = groups_of_pairs(model, [Related((query, *texts), label)], CutReport())
    return group


def test_what_the_head_learns(model: LanguageModel):
    """Softmax over each group, or the probability of each pair, by hand from the head's logits."""
    some = [SAID[:3], SAID[1:3], SAID[2:]]
    logits = [
        torch.tensor([r.score for r in sorted(model.rank(QUERY, texts), key=lambda r: r.index)])
        for texts in some
    ]
    logits = [scores.double().logit() for scores in logits]
    groups = [pairs_of(model, QUERY, texts) for texts in some]
    (batch,) = Stream(Groups(groups, rows=3), Grouped())(0)
    assert batch.counts == (3,)
    wanted = sum(float(-scores.log_softmax(0)[0]) for scores in logits)
    with torch.no_grad():
        assert float(Ranking()(model.network.eval(), batch)) == pytest.approx(wanted, abs=1e-4)
    alone = [pairs_of(model, QUERY, [text], float(i % 2)) for i, text in enumerate(SAID[:3])]
    (batch,) = Stream(Groups(alone, rows=3), Grouped())(0)
    target = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    with torch.no_grad():
        found = float(Ranking()(model.network, batch))
    assert found == pytest.approx(float(binary(logits[0], target, reduction="sum")), abs=1e-4)


def test_refusals(model: LanguageModel, tokenizer: Tokenizer):
    assert "rank" in model.can
    with pytest.raises(InputError, match="give a list of texts"):
        model.rank(QUERY, SAID[0])
    with pytest.raises(InputError, match="is empty"):
        model.rank(QUERY, [" "])
    with pytest.raises(InputError, match="an empty list"):
        model.rank(QUERY, [])
    with pytest.raises(InputError, match="one text is wanted"):
        model.rank(3, SAID)  # type: ignore[arg-type]
    network = build(model.config.replace(n_labels=2))
    with pytest.raises(InputError, match="cannot rank"):
        LanguageModel(network, tokenizer).rank(QUERY, SAID)
    number = LanguageModel(model.network, tokenizer, Extras(problem="regression"))
    assert "rank" not in number.can and number.classify("early")
    with pytest.raises(InputError, match="problem: regression. cannot rank; it can embed, class"):
        number.rank(QUERY, SAID)


def test_the_verb(model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model.save(tmp_path / "model")
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(SAID) + "\n", encoding="utf-8")
    args = ["rank", str(tmp_path / "model"), QUERY, "--file", str(file)]
    assert cli.run([*args, "--json", "--top", "3"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wanted = model.rank(QUERY, SAID)[:3]
    assert [one["line"] for one in told] == [one.index + 1 for one in wanted]
    assert [one["score"] for one in told] == pytest.approx([one.score for one in wanted], abs=1e-6)
    assert cli.run(args) == 0 and len(capsys.readouterr().out.splitlines()) == len(SAID)
    file.write_text("one\n\ntwo\n", encoding="utf-8")
    assert cli.run(args) == 2 and "line 2: is empty" in capsys.readouterr().err
    file.write_text("", encoding="utf-8")
    assert cli.run(args) == 2 and "is empty" in capsys.readouterr().err
    assert cli.run([*args, "--top", "0"]) == 2 and "--top 0" in capsys.readouterr().err
    number = Extras(labels=("value",), problem="regression")  # as tercet finetune leaves it
    LanguageModel(model.network, model.tokenizer, number).save(tmp_path / "number")
    file.write_text("one\n", encoding="utf-8")
    assert cli.run(["rank", str(tmp_path / "number"), QUERY, "--file", str(file)]) == 2
    assert "problem: regression) cannot rank; it can embed, class" in capsys.readouterr().err

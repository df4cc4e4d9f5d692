"""Pretraining against scratch, and two kinds of one body: the whole experiments at a tiny size,
and the measures that stand under them against slow twins."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from test_jobs_train import WORDS, recipe_of

import tercet.jobs.reproduce.transfer as transfer_module
import tercet.train.counted as counted_module
from tercet.data import Tokens
from tercet.errors import InputError
from tercet.evaluate.perplexity import pseudo_bits_per_byte
from tercet.jobs import recipe as recipes
from tercet.jobs.reproduce import entries
from tercet.jobs.reproduce.kept import Kept
from tercet.jobs.reproduce.kinds import FAMILY, VOCABULARY, two_kinds
from tercet.jobs.reproduce.transfer import transfer
from tercet.jobs.train.run import Run
from tercet.language_model import LanguageModel, load
from tercet.model import build, flatten
from tercet.plan import plan
from tercet.presets import preset
from tercet.text import train_tokenizer
from tercet.train.counted import WINDOW, counted_vectors

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"TERCET_DATA: no folder {DATA}")


def test_counted_vectors_put_tokens_of_like_company_together(monkeypatch: pytest.MonkeyPatch):
    """Tokens 0 to 3 stand among 10 to 19, tokens 4 to 7 among 20 to 29; 30 and 31 never occur."""
    monkeypatch.setattr(counted_module, "BLOCK", 999)
    draw = random.Random(1)
    stream = [
        draw.choice(range(4 * kind, 4 * kind + 4)) if i % 2 else 10 * kind + 10 + draw.randrange(10)
        for _ in range(60)
        for kind in (0, 1)
        for i in range(20)
    ]
    found = counted_vectors([Tokens.of([stream], None)], 32, 8)
    assert found.shape == (32, 8) and found.isfinite().all()
    seen = [i for i in range(32) if i in stream]
    assert found[seen].square().sum(1).mean().sqrt() == pytest.approx(1, abs=1e-4)
    assert 0.3 < found[30].norm() < 2 and not torch.equal(found[30], found[31])
    unit = torch.nn.functional.normalize(found, dim=1)
    alike = unit @ unit.T
    assert alike[:4, :4].min() > alike[:4, 4:8].max() + 0.3
    assert torch.equal(found, counted_vectors([Tokens.of([stream], None)], 32, 8))
    with pytest.raises(InputError, match="1 tokens have no neighbours"):
        counted_vectors([Tokens.of([[3]], None)], 32, 8)


def test_neighbours_are_counted_over_the_borders_of_blocks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(counted_module, "BLOCK", 7)
    streams = [torch.randint(9, (50,)).tolist(), torch.randint(9, (3,)).tolist()]
    slow = torch.zeros(9, 9)
    for stream in streams:
        for i, token in enumerate(stream):
            for j in range(max(0, i - WINDOW), min(len(stream), i + WINDOW + 1)):
                slow[token, stream[j]] += 0 if i == j else 1 - (abs(i - j) - 1) / WINDOW
    contexts = torch.tensor([8, 1, 4])
    tokens = [Tokens.of([stream], None) for stream in streams]
    fast = counted_module._counts(tokens, 9, contexts)
    assert torch.allclose(fast, slow[:, contexts])


def test_pseudo_bits_hide_one_token_at_a_time():
    text = "The river takes the old house; the new road sees nothing of it. " * 3
    tokenizer = train_tokenizer([text], kind="bpe", vocab_size=300, special="encoder")
    config = preset("tercet-tiny-encoder").replace(
        vocab_size=300, d_model=16, d_ff=24, n_heads=2, encoder_layers=1, context_length=24
    )
    model = LanguageModel(build(config, 0), tokenizer)
    ids, bits = tokenizer.encode(text, special=False), 0.0
    for start in range(0, len(ids), 10):
        piece = ids[start : start + 10]
        for place, target in enumerate(piece):
            hidden = [*piece[:place], tokenizer.mask_id, *piece[place + 1 :]]
            row: Any = [tokenizer.cls_id, *hidden, tokenizer.sep_id]
            with torch.inference_mode():
                logits = model.network(*flatten([row]))[place + 1]
            bits -= float(logits.log_softmax(-1)[target].div(torch.tensor(2.0).log()))
    whole = pseudo_bits_per_byte(model, text, length=12)
    assert whole == pytest.approx(bits / len(text.encode()), rel=1e-5)
    assert pseudo_bits_per_byte(model, text, length=12, sample=40) == pytest.approx(whole, rel=0.2)
    decoder = preset("tercet-tiny-decoder").replace(vocab_size=300, d_model=16, n_heads=2)
    with pytest.raises(InputError, match="decoder.* fills no masks"):
        pseudo_bits_per_byte(LanguageModel(build(decoder, 0), tokenizer), text)


def test_a_finished_piece_is_not_measured_again(tmp_path: Path):
    kept = Kept(tmp_path / "pieces.json")
    assert kept("one", lambda: {"figure": 1.5}) == {"figure": 1.5}
    with pytest.raises(KeyboardInterrupt):
        kept("two", interrupted)
    again = Kept(tmp_path / "pieces.json")
    assert again("one", interrupted) == {"figure": 1.5} and list(again.pieces) == ["one"]


def interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


def labelled(folder: Path, name: str, n: int, seed: int) -> str:
    """A table of texts that are "1" where a certain word stands in them."""
    draw = random.Random(seed)
    texts = [draw.choices([w for w in WORDS if w != "red"], k=6) for _ in range(n)]
    for text in texts[::2]:
        text[draw.randrange(6)] = "red"
    rows = [f"{int(i % 2 == 0)}\t{' '.join(text)}" for i, text in enumerate(texts)]
    (folder / name).write_text("\n".join(["label\ttext", *rows]) + "\n")
    return str(folder / name)


def test_transfer_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = {"train": 60, "validation": 30, "test": 40}
    entry = {
        "recipe": str(recipe_of(tmp_path, "masked", kind="wordpiece")),
        "cpu_minutes": 0.05,
        "data": {name: labelled(tmp_path, f"{name}.tsv", n, n) for name, n in sizes.items()},
        "labels": {30: 1, 60: 3},
        "rates": [1e-5, 1e-2],
        "pools": ["first", "mean"],
        "seeds": 2,
    }
    place, search, calls = tmp_path / "out", transfer_module.Job.tuned, []

    def counted(*parts: Any) -> Any:
        calls.append(parts)
        return interrupted() if len(calls) == 5 else search(*parts)

    monkeypatch.setattr(transfer_module.Job, "tuned", counted)
    with pytest.raises(KeyboardInterrupt):
        transfer(entry, place, True)
    weights = (place / "run" / "model" / "model.safetensors").read_bytes()
    rows = {row.measure: row for row in transfer(entry, place, True)}
    assert len(calls) == 9  # 2 sizes, 2 bodies, 2 seeds, and the one that was interrupted
    assert weights == (place / "run" / "model" / "model.safetensors").read_bytes()
    pieces = json.loads((place / "pieces.json").read_text())
    assert len(pieces) == 12 and len(rows) == 2 * 5 + 1
    for size, epochs in entry["labels"].items():
        means = {}
        for body in ("pretrained", "from scratch"):
            searched = f"{body}, {size} labels, {epochs} epochs, rates [1e-05, 0.01]"
            searched += ", read by ['first', 'mean']"
            names = [f"{searched}, seed {seed}" for seed in range(2)]
            found = [pieces[name] for name in names]
            assert all(one["rate"] in entry["rates"] and one["epoch"] <= epochs for one in found)
            means[body] = 50 * sum(one["test"] for one in found)
            assert rows[f"{size} labels, {body}: test accuracy, %"].ours == pytest.approx(
                means[body]
            )
        gain = rows[f"{size} labels: pretraining adds, points"].ours
        assert gain == pytest.approx(means["pretrained"] - means["from scratch"])
    minutes = rows["pretraining, CPU minutes at most"]
    assert 0 < float(minutes.ours) < 1 and "of 0.05 allowed" in minutes.note
    start, end = load(place / "start").network, load(place / "run" / "model").network
    assert start.config == end.config and start.tokens.weight.norm(dim=1).mean() > 0.7


def test_bodies_from_scratch_differ_and_the_pretrained_is_one(tmp_path: Path):
    recipe = recipes.load(str(recipe_of(tmp_path, "masked", kind="wordpiece")))
    run = Run(tmp_path / "run", recipe)
    run.prepare()
    job = transfer_module.Job({}, tmp_path, run)
    first, second = (job._body(transfer_module.SCRATCH, seed).network for seed in (0, 1))
    assert not torch.equal(first.tokens.weight, second.tokens.weight)
    assert first.config == run.config


def two_recipes(folder: Path) -> dict[str, str]:
    found = {}
    for name, family in (("causal", "next-token"), ("masked", "masked")):
        (folder / name).mkdir()
        found[name] = str(recipe_of(folder / name, family))
    path = Path(found["causal"])
    same = "decoder_layers: 2, qk_norm: false, norm_eps: 0.00001"
    path.write_text(path.read_text().replace("decoder_layers: 2", same))
    path = Path(found["masked"])
    path.write_text(path.read_text().replace("encoder_layers: 2", "encoder_layers: 2, TIE"))
    path.write_text(path.read_text().replace("TIE", "tie_embeddings: true"))
    return found


def test_two_kinds_cost_the_same(tmp_path: Path):
    draw = random.Random(3)
    rows = [
        f"{i % 6}\t{' '.join(draw.choices(WORDS, k=5))}\t{' '.join(draw.choices(WORDS, k=5))}"
        for i in range(40)
    ]
    (tmp_path / "pairs.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *rows]) + "\n")
    (tmp_path / "held-out.txt").write_text("the old house takes the river over\n" * 5)
    entry = two_recipes(tmp_path) | {
        "similarity": {
            **dict.fromkeys(("validation", "test"), str(tmp_path / "pairs.tsv")),
            "name": "pairs",
        },
        "probe": {
            "name": "words",
            **{name: labelled(tmp_path, f"{name}.tsv", 80, 1) for name in ("train", "test")},
            "label": "label",
            "held_out": 20,
        },
        "text": str(tmp_path / "held-out.txt"),
        "sample": 30,
    }
    found = two_kinds(entry, tmp_path / "out", True)
    names = [row.measure for row in found]
    assert len(found) == 8 and [name.split(", ")[-1] for name in names] == ["causal", "masked"] * 4
    assert "no probability of the text" in found[5].note and "pseudo" in found[5].measure
    runs = [Run.open(tmp_path / "out" / kind) for kind in ("causal", "masked")]
    steps = [run.recipe.train.steps for run in runs]
    assert steps[0] == 20 and steps[1] is not None and steps[1] > 20
    spent = [float(row.ours) for row in found[-2:]]
    for run, cost, targets in zip(runs, spent, (32, round(0.15 * 32))):
        tokens = json.loads((run.folder / "result.json").read_text())["tokens"]
        each = plan(run.config, [32], targets=targets).training_flops_per_token
        assert cost == pytest.approx(each * tokens)
    assert spent[0] == pytest.approx(spent[1], rel=0.03)
    again = two_kinds(entry, tmp_path / "out", True)
    assert [row.plain() for row in again] == [row.plain() for row in found]
    bodies = [
        {
            n.split("coder.")[-1]: p.shape
            for n, p in load(r.folder / "model").network.named_parameters()
        }
        for r in runs
    ]
    assert {k: v for k, v in bodies[0].items() if "blocks" in k} == {
        k: v for k, v in bodies[1].items() if "blocks" in k
    }


def test_bodies_that_differ_are_refused(tmp_path: Path):
    entry: dict[str, Any] = two_recipes(tmp_path)
    path = Path(entry["masked"])
    path.write_text(path.read_text().replace("d_ff: 48", "d_ff: 64"))
    with pytest.raises(InputError, match=r"d_ff is 64 where the first run has 48"):
        two_kinds(entry, tmp_path / "out", True)


def test_the_shipped_recipes_are_of_one_body():
    entry = entries()["two-kinds"]
    first, second = (recipes.load(entry[kind]) for kind in ("causal", "masked"))
    configs = [preset(str(r.model.preset)).replace(**r.model.change) for r in (first, second)]
    for name in configs[0].__dataclass_fields__:
        if name not in FAMILY | VOCABULARY:
            assert getattr(configs[0], name) == getattr(configs[1], name), name
    assert first.data == second.data and first.batch == second.batch
    assert first.objective.length == second.objective.length
    recipes.load(entries()["bert-mini"]["recipe"])


@needs_data
def test_the_shipped_entries_find_their_texts():
    entry = entries()["bert-mini"]
    job = transfer_module.Job(entry, Path("none"), Run(Path("none"), recipes.load("bert-mini")))
    assert [len(texts) for texts, _ in job._texts(500)] == [500, 872, 1_821]
    with pytest.raises(InputError, match="labels 7000: there are 6,920 training texts"):
        job._texts(7_000)

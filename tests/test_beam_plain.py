"""A translation model through the engine and through a search that keeps nothing between tokens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import tercet
from tercet.evaluate.translation import bleu_published
from tercet.jobs import recipe as recipes
from tercet.jobs.train.job import train
from tercet.model import Network, flatten
from tercet.text.read import lines

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
DATA = Path(os.environ.get("TERCET_DATA", SHARED)) / "multi30k-en-de" / "tokenised"
BEAMS, SENTENCES, BUDGET = 5, 200, os.environ.get("TERCET_MULTI30K_BUDGET", "150s")


@torch.inference_mode()
def plain(network: Network, source: list[int], longest: int) -> list[int]:
    """The best of BEAMS texts by its mean log-probability: every pass reads all from the start."""
    (end,), start = network.config.eos_ids, network.config.start_id
    open_texts: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[tuple[float, list[int]]] = []
    for n in range(1, longest + 1):
        grown = []
        for score, ids in open_texts:
            memory = network.encode(*flatten([source]))
            read = flatten([[start, *ids]])
            states = network.decode(*read, memory=memory, memory_layout=flatten([source])[1])
            logs = network.logits(states[-1:]).double().log_softmax(-1)[0]
            values, tokens = logs.topk(2 * BEAMS)
            grown += [(score + v, [*ids, t]) for v, t in zip(values.tolist(), tokens.tolist())]
        grown = sorted(grown, key=lambda one: -one[0])[: 2 * BEAMS]
        ended = [i for i, (_, ids) in enumerate(grown) if ids[-1] == end or n == longest]
        done += [(grown[i][0] / n, grown[i][1]) for i in ended if i < BEAMS]
        done = sorted(done, key=lambda one: -one[0])[:BEAMS]
        open_texts = [one for i, one in enumerate(grown) if i not in ended][:BEAMS]
        if n == longest or (len(done) == BEAMS and open_texts[0][0] / n <= done[-1][0]):
            break
    return done[0][1]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="TERCET_DATA has no multi30k-en-de")
def test_multi30k_scores_the_same_through_the_engine(tmp_path: Path) -> None:
    os.environ.setdefault(recipes.DATA, str(DATA.parent.parent))
    wanted = recipes.load("multi30k-tiny", [f"train.budget={BUDGET}", "objective.r_drop=0"])
    train(wanted, tmp_path / "run")
    model = tercet.load(tmp_path / "run" / "model")
    texts = list(lines(DATA / "test_2016_flickr.en"))[:SENTENCES]
    references = list(lines(DATA / "test_2016_flickr.de"))[:SENTENCES]
    longest = 40
    engine = model.translate(texts, beams=BEAMS, max_new_tokens=longest)
    alone = [
        plain(model.network, model.tokenizer.encode(text), longest)  # type: ignore[arg-type]
        for text in texts
    ]
    said = [model.tokenizer.target.decode(ids) for ids in alone]
    equal = sum(str(a) == b for a, b in zip(engine, said))
    first = bleu_published([str(a) for a in engine], references)
    second = bleu_published(said, references)
    print(f"BLEU of {SENTENCES}: engine {first.score:.2f}, plain {second.score:.2f}; {equal} equal")
    assert first.score == pytest.approx(second.score, abs=0.01) and first.score > 5

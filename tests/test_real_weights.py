"""Real checkpoints give their published numbers: a sentence encoder and a small story teller."""

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tercet

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
STORIES = DATA.parent / "weights" / "stories260K"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"TERCET_DATA: no folder {DATA}")
needs_stories = pytest.mark.skipif(not STORIES.is_dir(), reason=f"no folder {STORIES}")


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> tercet.LanguageModel:
    return tercet.load(minilm)


TEXTS = [
    "The Transformer reads a whole sequence at once.",
    "Short.",
    "Ünïcode, 漢字, emoji 🎉 and numbers 3.14159",
    "a long text " * 60,
    "def f(x):\n    return x ** 2",
]


@pytest.mark.filterwarnings("ignore::tercet.CutWarning")
def test_vectors_equal_those_of_sentence_transformers(minilm: Path, encoder) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(minilm), device="cpu").encode(TEXTS)
    ours = encoder.embed(TEXTS)
    assert ours.dtype == np.float32 and ours.shape == (len(TEXTS), 384)
    cosines = (ours * theirs).sum(1) / np.linalg.norm(theirs, axis=1) / np.linalg.norm(ours, axis=1)
    assert cosines.min() >= 0.99999
    assert np.allclose(ours, theirs, atol=1e-5)


def test_a_folder_saved_again_is_the_same_encoder(encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    again = tercet.load(tmp_path)
    assert np.array_equal(again.embed(TEXTS[:2]), encoder.embed(TEXTS[:2]))
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS[:2])
    assert np.allclose(theirs, encoder.embed(TEXTS[:2]), atol=1e-5)


@needs_data
def test_similarity_benchmark(encoder) -> None:
    """STS-B test: Spearman 82.03 as published."""
    from scipy.stats import spearmanr

    with open(DATA / "stsb" / "test.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    first = encoder.embed([row["sentence1"] for row in rows])
    second = encoder.embed([row["sentence2"] for row in rows])
    rank = spearmanr((first * second).sum(1), [float(row["score"]) for row in rows]).statistic
    print(f"STS-B test, Spearman x 100: {100 * rank:.2f}")
    assert 100 * rank == pytest.approx(82.0, abs=0.1)


@needs_data
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tercet.CutWarning")
@pytest.mark.parametrize("precision, off", [("float32", 0.3), ("bfloat16", 0.5), ("int8", 0.5)])
def test_retrieval_benchmark(minilm: Path, precision: str, off: float) -> None:
    """SciFact: nDCG@10 64.51 as published, and near it with fewer bits."""
    encoder = tercet.load(minilm, precision=precision)
    import ir_measures
    from ir_measures import nDCG

    with gzip.open(DATA / "scifact" / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    queries = [json.loads(line) for line in open(DATA / "scifact" / "queries.jsonl")]
    with open(DATA / "scifact" / "qrels_test.tsv") as file:
        judged = list(csv.DictReader(file, delimiter="\t"))
    wanted = {row["query-id"] for row in judged}
    queries = [query for query in queries if query["_id"] in wanted]
    corpus = encoder.embed([f"{d['title']} {d['text']}".strip() for d in documents])
    scores = encoder.embed([query["text"] for query in queries]) @ corpus.T
    run = [
        ir_measures.ScoredDoc(query["_id"], documents[i]["_id"], float(scores[q, i]))
        for q, query in enumerate(queries)
        for i in np.argsort(-scores[q])[:10]
    ]
    qrels = [
        ir_measures.Qrel(row["query-id"], row["corpus-id"], int(row["score"])) for row in judged
    ]
    found = ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]
    print(f"SciFact, nDCG@10 x 100: {100 * found:.2f} in {precision}")
    assert 100 * found == pytest.approx(64.5, abs=off)


@needs_stories
def test_the_story_goes_on() -> None:
    model = tercet.load(STORIES)
    story = model.generate("Once upon a time", max_new_tokens=40)
    expected = ", there was a little girl named Lily. She loved to play outside in the park."
    assert str(story).startswith(expected)
    assert "".join(model.stream("Once upon a time", max_new_tokens=40)) == story.text


@needs_stories
def test_a_teller_of_stories_is_itself_again_after_a_visit_to_the_encoders(tmp_path: Path) -> None:
    import torch
    import transformers

    teller = tercet.load(STORIES)
    visit = tercet.convert(teller, "encoder")
    visit.model.save(tmp_path)
    opened = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path)
    ids = visit.model.tokenizer.encode("Once upon a [MASK], there was a girl.")
    with torch.no_grad():
        theirs = opened(torch.tensor([ids])).logits[0].softmax(-1)
    hidden = theirs[ids.index(visit.model.tokenizer.mask_id or 0)]
    ours: Any = visit.model.fill("Once upon a [MASK], there was a girl.", top_k=3)
    assert np.allclose(hidden.topk(3).values, [one.probability for one in ours], atol=1e-5)
    back = tercet.convert(tercet.load(tmp_path), "decoder").model
    for prompt in ("Once upon a time", "The dog"):
        wanted = teller.generate(prompt, max_new_tokens=20)
        assert back.generate(prompt, max_new_tokens=20).ids == wanted.ids

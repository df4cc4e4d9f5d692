"""The two BLEU scores, on the real references of Multi30k."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import pytest

from tercet.errors import InputError
from tercet.evaluate.translation import bleu_13a, bleu_published, chrf, detokenise

DATA = Path(os.environ.get("TERCET_DATA", Path(__file__).parents[2] / "shared" / "data"))
FOLDER = DATA / "multi30k-en-de"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no folder {FOLDER}")


def lines(kind: str) -> list[str]:
    return (FOLDER / kind / "test_2016_flickr.de").read_text("utf-8").splitlines()


def damaged(texts: list[str]) -> list[str]:
    """Every fifth word of a text is lost, two words change places."""
    found = []
    for number, text in enumerate(texts):
        words = [word for i, word in enumerate(text.split()) if (i + number) % 5]
        words[1:3] = words[2:0:-1]
        found.append(" ".join(words))
    return found


def counted(outputs: list[str], references: list[str]) -> float:
    """Papineni et al. 2002, section 2, written out."""
    logs = 0.0
    for n in (1, 2, 3, 4):
        common = total = 0
        for output, reference in zip(outputs, references):
            sides = output.lower().split(), reference.lower().split()
            ours, theirs = (
                Counter(tuple(side[i : i + n]) for i in range(len(side) - n + 1)) for side in sides
            )
            common, total = common + sum((ours & theirs).values()), total + sum(ours.values())
        logs += math.log(common / total) / 4
    ours, theirs = (sum(len(text.split()) for text in side) for side in (outputs, references))
    return 100 * min(1.0, math.exp(1 - theirs / ours)) * math.exp(logs)


@needs_data
def test_the_published_metric_is_plain_bleu_over_the_published_tokens():
    references = lines("tokenised")
    outputs = damaged(references)
    found = bleu_published(outputs, references)
    assert found.score == pytest.approx(counted(outputs, references), abs=1e-9)
    assert found.reference_length == 12_103 and found.output_length < 12_103
    assert found.brevity_penalty == pytest.approx(math.exp(1 - 12_103 / found.output_length))
    assert len(found.precisions) == 4 and list(found.precisions) == sorted(found.precisions)[::-1]
    assert "case:lc" in found.signature and "tok:none" in found.signature
    assert "smooth:none" in found.signature and "version:" in found.signature
    assert found.signature in str(found) and "12,103" in str(found)
    upper = [output.title() for output in outputs]
    assert bleu_published(upper, references).score == found.score
    assert bleu_published(references, references).score == pytest.approx(100)


@needs_data
def test_detokenised_references_are_nearly_the_raw_ones():
    """What the detokeniser costs: the references themselves, there and back."""
    found = bleu_13a(detokenise(lines("tokenised")), lines("raw"))
    assert "tok:13a" in found.signature and "case:lc" in found.signature
    assert "smooth:exp" in found.signature and "sacreBLEU 13a lc" in str(found)
    assert 98.5 < found.score < 100
    tokens = bleu_13a(lines("tokenised"), lines("raw"))
    assert tokens.score < found.score and tokens.reference_length == found.reference_length


def test_german_detokenised():
    tokens = "ein mann &quot; lacht &quot; , am t-shirt ( heute ) ."
    assert detokenise([tokens]) == ['ein mann "lacht", am t-shirt (heute).']


def test_an_output_without_a_common_quadruple_scores_nothing():
    assert bleu_published(["a b c x", "d e f y"], ["a b c d", "d e f g"]).score == 0


def test_there_must_be_an_output_for_each_reference():
    with pytest.raises(InputError, match="2 outputs for 1 references"):
        bleu_published(["a", "b"], ["a"])
    with pytest.raises(InputError, match="0 outputs for 0"):
        bleu_13a([], [])


def test_chrf_by_hand():
    """Popović 2015: the F of precision and recall, each a mean over n-grams of 1 to 6 letters."""
    outputs = ["the cat sat on the mat", "a dog", "Ein Hund läuft."]
    references = ["the cat lay on a mat", "the dogs", "Ein Hund rennt."]
    precision = recall = 0.0
    for n in range(1, 7):
        common = written = wanted = 0
        for sides in zip(outputs, references):
            texts = ["".join(text.split()) for text in sides]
            one, other = (Counter(t[i : i + n] for i in range(len(t) - n + 1)) for t in texts)
            common += (one & other).total()
            written += one.total()
            wanted += other.total()
        precision += common / written / 6
        recall += common / wanted / 6
    found = chrf(outputs, references)
    assert found.score == pytest.approx(500 * precision * recall / (4 * precision + recall))
    assert "chrF2" in found.signature or "nc:6" in found.signature
    assert chrf(references, references).score == pytest.approx(100)
    with pytest.raises(InputError, match="1 outputs for 2 references"):
        chrf(["a"], ["a", "b"])

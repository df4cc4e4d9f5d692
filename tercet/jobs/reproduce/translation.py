"""A translation model against a published BLEU: chosen on validation, the test decoded once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tercet.evaluate.translation import bleu_13a, bleu_published, detokenise
from tercet.files import written
from tercet.jobs.flags import say
from tercet.jobs.recipe import expanded
from tercet.jobs.reproduce.table import Row, trained
from tercet.text.read import lines
from tercet.train.progress import clock

PENALTIES = (0.6, 1.0, 1.4, 1.8)  # of length, tried on the validation texts


def translation(entry: dict[str, Any], folder: Path, quiet: bool) -> list[Row]:
    """Tokenised, lower-cased BLEU as published, and sacreBLEU of plain text beside it."""
    from tercet.language_model import load

    run, result = trained(entry["recipe"], folder / "run", quiet=quiet)
    model = load(run.folder / "model")
    files = entry["files"]
    held_out, wanted = _read(files["validation_source"]), _read(files["validation_target"])
    scores = {p: _bleu(model, held_out, wanted, p) for p in entry.get("penalties", PENALTIES)}
    best = max(scores, key=lambda penalty: scores[penalty])
    if not quiet:
        say(f"validation BLEU by length penalty: {scores}; {best} is taken")
    outputs = _decoded(model, _read(files["test_source"]), best, folder / "test.txt")
    published = bleu_published(outputs, _read(files["test_target"]))
    plain = bleu_13a(detokenise(outputs), _read(files["test_plain"]))
    facts = f"beam {BEAMS}, length penalty {best}; {result['step']:,} steps"
    by = entry["published"]
    return [
        Row("BLEU, tokenised, lower-cased", published.score, by["bleu"], published.signature),
        Row("  precisions", _precisions(published), by.get("precisions"), by["by"]),
        Row("BLEU, 13a, lower-cased, plain text", plain.score, None, plain.signature),
        Row("validation BLEU", scores[best], None, facts),
        Row("training", clock(result["seconds"]), None, f"{_size(model):,} parameters"),
    ]


BEAMS = 5


def _read(name: str) -> list[str]:
    return list(lines(expanded([name])[0]))


def _translated(model: Any, texts: list[str], penalty: float) -> list[str]:
    answers = model.translate(texts, beams=BEAMS, length_penalty=penalty)
    return [str(answer) for answer in answers]


def _bleu(model: Any, texts: list[str], wanted: list[str], penalty: float) -> float:
    return bleu_published(_translated(model, texts, penalty), wanted).score


def _decoded(model: Any, texts: list[str], penalty: float, place: Path) -> list[str]:
    """The test set is decoded once; a second call reads what was written."""
    if not place.exists():
        with written(place) as draft:
            kept = {"penalty": penalty, "outputs": _translated(model, texts, penalty)}
            draft.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    return json.loads(place.read_text(encoding="utf-8"))["outputs"]


def _precisions(bleu: Any) -> str:
    return "/".join(f"{p:.1f}" for p in bleu.precisions) + f", BP {bleu.brevity_penalty:.3f}"


def _size(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())

"""The same figures as lm-evaluation-harness, to the last digit that it prints: its backend for
transformers, and Tercet's adapter in it, read the rows that Tercet reads.

The harness lives in an environment of its own (benchmarks/peers/lm_eval.txt).
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from small_decoders import save_decoder, save_rows

import tercet
from tercet.jobs.evaluate import choice
from tercet.jobs.flags import Model

ROOT = Path(__file__).parents[1]
SHARED = Path(__file__).parents[2] / "shared"
DATA = Path(os.environ.get("TERCET_DATA", SHARED / "data"))
STORIES = DATA.parent / "weights" / "stories260K"
PEER = Path(os.environ.get("TERCET_PEERS", ROOT / "benchmarks/peers/.environments")) / "lm_eval"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"TERCET_DATA: no folder {DATA}"),
    pytest.mark.skipif(
        not (PEER / "bin/python").exists(), reason=f"TERCET_PEERS: no environment {PEER}"
    ),
]
OWN = os.environ.get("TERCET_DECODER", "")  # the folder of another model: runs/gpt-mini/model, say
ROWS = int(os.environ.get("TERCET_LM_EVAL_ROWS", "60"))  # of each task; more to measure
FILES = {
    "arc-easy": "arc_easy.jsonl.gz",
    "piqa": "piqa.jsonl.gz",
    "copa": "copa.jsonl",
    "winogrande": "winogrande.jsonl.gz",
    "hellaswag": "hellaswag_val_subset.jsonl",
    "boolq": "boolq.jsonl.gz",
    "lambada": "lambada_openai.jsonl.gz",
}
DIGITS = {"float32": 2e-5, "float64": 1e-13}
BLIMP = ("adjunct_island", "wh_questions_object_gap")


def lines_of(path: Path) -> list[str]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return file.readlines()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .jsonl a task, of the first rows."""
    folder = tmp_path_factory.mktemp("rows")
    for task, name in FILES.items():
        first = islice(filter(fits, lines_of(DATA / "zero-shot" / name)), ROWS)
        (folder / f"{task}.jsonl").write_text("".join(first))
    pairs = lines_of(DATA / "blimp" / "blimp.jsonl.gz")
    for name in BLIMP:
        own = islice((line for line in pairs if f'"UID": "{name}"' in line), ROWS)
        (folder / f"blimp-{name}.jsonl").write_text("".join(own))
    (folder / "quiz.jsonl").write_text((folder / "arc-easy.jsonl").read_text())  # of one's own
    if STORIES.is_dir():
        save_rows(folder / "lambada-stories.jsonl", told(tercet.load(STORIES)))
    return folder


def fits(line: str) -> bool:
    """The harness stops at a choice that is longer than the context."""
    return all(len(choice) < 500 for choice in json.loads(line).get("choices", ()))


def told(model: tercet.LanguageModel) -> list[dict[str, str]]:
    """Last words that a model half knows, so that their perplexity is of a usual size."""
    sampling = tercet.Sampling(temperature=0.8)
    texts = model.generate(
        "Once upon a time", max_new_tokens=60, sampling=sampling, samples=min(ROWS, 200)
    )
    words = [f"Once upon a time{text}".split(" ")[:-1] for text in map(str, texts)]
    return [{"context": " ".join(one[:-1]), "continuation": one[-1]} for one in words]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A real small one, and a random one of whose context most rows need more."""
    texts = lines_of(DATA / "zero-shot" / "arc_easy.jsonl.gz")[:300]
    place = tmp_path_factory.mktemp("random")
    random = save_decoder(place, context=256, texts=texts)
    return {"stories": str(STORIES), "random": random, "own": OWN}


def harness(
    folder: Path, model: str, backend: str, precision: str = "float32"
) -> dict[str, dict[str, Any]]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / ".cache"),
    }
    program = [str(PEER / "bin/python"), str(ROOT / "tests/lm_eval_side.py")]
    done = subprocess.run(
        [*program, str(folder), model, backend, precision],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def ours(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str], precision: str
) -> dict[str, dict[str, Any]]:
    """float64: as Python loads it; the command has no such choice."""
    found = {}
    loaded, output = Model(model, precision=precision), choice.Output(json=True)  # type: ignore[arg-type]
    for path in sorted(folder.glob("*.jsonl")):
        task = path.stem if path.stem in FILES else path.stem.partition("-")[0]
        if task == "lambada":
            choice.last_word(loaded, choice.Rows(str(path)), output)
        else:
            named = None if task == "quiz" else task
            choice.run(loaded, choice.Rows(str(path)), choice.Form(), output, task=named)
        told = json.loads(capsys.readouterr().out)["figures"]
        found[path.stem] = {name: one["value"] for name, one in told.items()}
        found[path.stem] |= {f"{name}_stderr": one["standard_error"] for name, one in told.items()}
    return found


@pytest.mark.parametrize("name", ["stories", "random", "own"])
@pytest.mark.parametrize(
    ("backend", "precision"), [("hf", "float32"), ("tercet", "float32"), ("hf", "float64")]
)
def test_to_the_last_printed_digit(name: str, backend: str, precision: str, rows, models, capsys):
    if not models[name]:
        pytest.skip("TERCET_DECODER names no model")
    theirs = harness(rows, models[name], backend, precision)
    mine = ours(rows, models[name], capsys, precision)
    unlike = []
    print(f"\n{name}, {precision}, lm-eval's {backend} | Tercet")
    for task, figures in theirs.items():
        for metric, figure in figures.items():
            shown = [f"{one:.4f}" for one in (figure, mine[task][metric])]
            print(f"{task:30}{metric:18}{shown[0]:>22}{shown[1]:>22}")
            near = alike(metric, figure, mine[task][metric], DIGITS[precision])
            if not (shown[0] == shown[1] or near):
                unlike.append((task, metric, *shown))
    assert unlike == []


def test_the_adapter_answers_whatever_is_asked(tmp_path: Path):
    """Whole texts beyond the context, and words that are written, by both backends."""
    if not STORIES.is_dir():
        pytest.skip(f"TERCET_DATA: no folder {STORIES}")
    rows = told(tercet.load(STORIES))
    save_rows(tmp_path / "generate.jsonl", rows)
    whole = [" ".join(row.values()) for row in rows]
    texts = [{"text": " ".join(whole[:n])} for n in (1, 2, 12, 30)]
    save_rows(tmp_path / "rolling.jsonl", texts)
    theirs, ours = (harness(tmp_path, str(STORIES), backend) for backend in ("hf", "tercet"))
    print(f"\nlm-eval's hf {theirs}\nthe adapter  {ours}")
    assert theirs["generate"]["exact_match"] > 0.1
    assert theirs["generate"] == ours["generate"]
    for metric, figure in theirs["rolling"].items():
        if not metric.endswith("_stderr"):  # the harness gives none
            assert f"{figure:.4f}" == f"{ours['rolling'][metric]:.4f}"


def alike(metric: str, first: float, second: float, rel: float) -> bool:
    """Perplexities, and their errors, beyond what the digits of a type print: the harness's own
    differ there by its batch size (stories, 60 rows: 1,030,330.40 one text at a time, 1,030,330.26
    sixteen). In float64 that begins at 1e12."""
    large = metric.startswith("perplexity") and min(first, second) > 1_000
    beyond = large or metric == "perplexity_stderr"
    return beyond and first == pytest.approx(second, rel=rel)

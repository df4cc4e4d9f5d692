"""Topics of the bodies of 20 newsgroups beside BERTopic's defaults, on the same vectors: how many
texts are left without one, and how well topics agree with the newsgroups.

Ours are the same at every turn; BERTopic has no seed unless it is given one, and is asked as its
guide has it, so that its turns differ. Words are counted by both.

make benchmark JOB=topics
python benchmarks/topics.py --tries train    # other settings of ours, on the split that chose them
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import inputs
from compare import CORE, Absent, Figures, Side, line_of, main, memory

DATA = "20newsgroups-bydate"
PEER = "topics"


def bodies(split: str) -> tuple[list[str], list[str], Any]:
    """Texts without their headers, newsgroups, and vectors (n, 384); made once by the environment
    that has the encoder."""
    import numpy as np

    place = inputs.made(f"newsgroups-{split}", partial(_make, split))
    texts, labels = json.loads((place / "values.json").read_text("utf-8"))
    return texts, labels, np.load(place / "vectors.npy")


def _make(split: str, folder: Path) -> None:
    import numpy as np

    from tercet import load

    texts, labels = [], []
    for text, label in rows(split):
        body = text.partition("\n\n")[2].strip()
        if body:
            texts.append(body)
            labels.append(label)
    (folder / "values.json").write_text(json.dumps([texts, labels]), "utf-8")
    np.save(folder / "vectors.npy", load(inputs.minilm(), precision="bfloat16").embed(texts))


def rows(split: str) -> list[tuple[str, str]]:
    """Messages with their headers, and their newsgroups."""
    path = Path(os.environ.get("TERCET_DATA", "../shared/data")) / DATA / f"{split}.jsonl.gz"
    if not path.exists():
        raise Absent(f"{path} is not there; set TERCET_DATA")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        read = [json.loads(line) for line in file]
    return [(row["text"], row["label"]) for row in read]


def tercet(split: str = "test", **changes: Any) -> Figures:
    from tercet import TopicSettings, cluster

    texts, labels, vectors = bodies(split)
    started = time.perf_counter()
    topics = cluster(texts, vectors=vectors, settings=TopicSettings(**changes))
    seconds = time.perf_counter() - started
    figures = _figures(topics.topics.tolist(), labels, seconds)
    assigned = _v_measure(topics.reassign().topics.tolist(), labels)
    return figures | {"all assigned": assigned, "agreement": topics.found.agreement}


def bertopic() -> Figures:
    from bertopic import BERTopic  # pyright: ignore[reportMissingImports]

    texts, labels, vectors = bodies("test")
    started = time.perf_counter()
    topics, _ = BERTopic().fit_transform(texts, vectors)
    return _figures(topics, labels, time.perf_counter() - started)


def _figures(topics: list[int], labels: list[str], seconds: float) -> Figures:
    inside = [i for i, topic in enumerate(topics) if topic >= 0]
    return {
        "v-measure": _v_measure(topics, labels),
        "without outliers": _v_measure([topics[i] for i in inside], [labels[i] for i in inside]),
        "outliers": 1 - len(inside) / len(topics),
        "topics": float(len({topics[i] for i in inside})),
        "seconds": seconds,
        "MiB at most": memory("VmHWM") / (1 << 20),
    }


def _v_measure(topics: list[int], labels: list[str]) -> float:
    from sklearn.metrics import v_measure_score

    return 100 * float(v_measure_score(labels, topics))


def prepare() -> dict[str, Any]:
    bodies("test")
    return {}


TRIES: tuple[dict[str, Any], ...] = (
    {},
    *({"min_size": size} for size in (10, 20, 30, 50, 100)),
    *({"neighbours": count} for count in (10, 20, 30, 50)),
    *({"components": count} for count in (20, 100, 384)),
    *({"dimensions": count} for count in (3, 10)),
    *({"method": "kmeans", "k": k} for k in (20, 50, 100)),
)


def tries(split: str) -> None:
    for changes in TRIES:
        print(changes or "as it is", line_of(tercet(split, **changes)), flush=True)


if __name__ == "__main__":
    if "--tries" in sys.argv:
        tries(sys.argv[-1])
        sys.exit()
    sides = {"tercet": Side(tercet, CORE), "BERTopic": Side(bertopic, PEER)}
    job = "topics of 7,516 messages of 20 newsgroups, bodies, all-MiniLM-L6-v2"
    main(job, sides, key="v-measure", prepare=prepare)

"""Topics on disk: three files that anybody can read, none of them a pickle.

texts.jsonl has a line a text: text, topic, probability. topics.json has settings, contract and the
table, and the SHA-256 of the other two: vectors lie in the order of the different texts, and would
say something else of other ones. vectors.safetensors has what new texts are compared with.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tercet.errors import InputError, undamaged
from tercet.files import written_folder
from tercet.represent.collection.contract import Contract
from tercet.represent.topics.embedder import Embedder
from tercet.represent.topics.settings import TopicSettings
from tercet.represent.topics.topics import Found, Topic, Topics, checked, different
from tercet.represent.topics.vectors import Projection

FORMAT = 2
TEXTS, TABLE, ARRAYS = "texts.jsonl", "topics.json", "vectors.safetensors"


def save(topics: Topics, folder: str | Path) -> None:
    with written_folder(folder) as place:
        _write(topics, place)
        again = load(place)
        # what the files say of each text, before they take the place of older ones
        said = again.predict(topics.texts)
        assert np.array_equal(said.topics, topics.topics), "the saved topics are other ones"
        assert np.array_equal(said.probabilities, topics.probabilities)


def _write(topics: Topics, place: Path) -> None:
    found = topics.found
    with (place / TEXTS).open("w", encoding="utf-8", newline="\n") as file:
        for text, topic, probability in zip(topics.texts, topics.topics, topics.probabilities):
            row = {"text": text, "topic": int(topic), "probability": float(probability)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    arrays = {
        "vectors": found.vectors,
        "mean": found.projection.mean,
        "axes": found.projection.axes,
    }
    if found.places is not None:
        arrays["places"] = found.places
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, place / ARRAYS)
    told = {
        "format": FORMAT,
        "sums": {name: _sum(place / name) for name in (TEXTS, ARRAYS)},
        "settings": asdict(topics.settings),
        "contract": topics.embedder and topics.embedder.contract.text(),
        "reach": found.reach if np.isfinite(found.reach) else None,
        "agreement": found.agreement,
        "fitted": found.fitted,
        "topics": [asdict(topic) for topic in topics.table],
    }
    (place / TABLE).write_text(json.dumps(told, ensure_ascii=False, indent=1), "utf-8")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(folder: str | Path) -> Topics:
    place = Path(folder)
    missing = [name for name in (TEXTS, TABLE, ARRAYS) if not (place / name).is_file()]
    if missing:
        raise InputError(
            f"{place}: has no {' and no '.join(missing)}; topics are saved by Topics.save, or by "
            "tercet cluster --out"
        )
    with undamaged(place / TABLE):
        told = json.loads((place / TABLE).read_text("utf-8"))
        if told["format"] != FORMAT:
            raise InputError(
                f"{place}: is of format {told['format']}, and this version reads {FORMAT}; install "
                "the tercet that wrote it, or find the topics anew"
            )
        for name in (TEXTS, ARRAYS):
            if told["sums"][name] != _sum(place / name):
                raise _altered(place / name, "it is not the file that was saved with the others")
        table = [_topic(number, one) for number, one in enumerate(told["topics"])]
        settings = TopicSettings(**told["settings"])
        contract = told["contract"]
        if contract is not None and not isinstance(contract, str):
            raise TypeError(f"contract {contract!r}")
        reach = np.inf if told["reach"] is None else _figure(told["reach"], math.inf)
        agreement = _figure(told["agreement"], 1)
        fitted = int(told["fitted"])
    embedder = None if contract is None else Embedder(Contract.read(contract, str(place)))
    with undamaged(place / TEXTS):
        texts, numbers, shares = _texts(place, len(table))
    names, of_text = different(texts)
    first = np.unique(of_text, return_index=True)[1]
    topics = numbers[first]
    if not np.array_equal(topics[of_text], numbers):
        raise _altered(place / TEXTS, "equal texts have other topics")
    sizes = np.bincount(numbers + 1, minlength=len(table) + 1)[1:].tolist()
    if sizes != [topic.size for topic in table] or not 0 <= fitted <= len(texts):
        raise _altered(place / TABLE, f"the topics of {TEXTS} have other sizes")
    arrays = _arrays(place, len(names), embedder)
    projection = Projection(arrays["mean"], arrays["axes"])
    figures = reach, agreement, fitted
    found = Found(
        arrays["vectors"], topics, shares[first], projection, *figures, arrays.get("places")
    )
    return Topics(texts, found, table, settings, embedder)


def _altered(path: Path, how: str) -> InputError:
    return InputError(f"{path}: {how}; it was altered, or half written: save the topics anew")


def _figure(said: object, most: float) -> float:
    if type(said) not in (int, float) or not 0 <= said <= most or said == math.inf:  # type: ignore[operator]
        raise ValueError(f"{said!r} is no number from 0 to {most}")
    return float(said)  # type: ignore[arg-type]


def _topic(number: int, told: dict[str, Any]) -> Topic:
    topic = Topic(**told)
    texts = [topic.name, *topic.words, *topic.examples]
    if (topic.number, type(topic.size)) != (number, int) or not all(
        isinstance(text, str) for text in texts
    ):
        raise TypeError(f"topic {number} is {told}")
    if topic.stability is not None:
        _figure(topic.stability, 1.001)
    return topic


def _texts(place: Path, n_topics: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    texts, numbers, shares = [], [], []
    with (place / TEXTS).open(encoding="utf-8", newline="\n") as file:
        for line in file:
            row = json.loads(line)
            texts.append(row["text"])
            numbers.append(int(row["topic"]))
            shares.append(_figure(row["probability"], 1.001))
    wrong = [number for number in numbers if not -1 <= number < n_topics]
    if wrong:
        raise ValueError(f"there is no topic {wrong[0]}")
    return checked(texts), np.array(numbers, np.int32), np.array(shares, np.float32)


def _arrays(place: Path, n_texts: int, embedder: Embedder | None) -> dict[str, np.ndarray]:
    path = place / ARRAYS
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: is damaged ({error}); find the topics anew") from None
    missing = {"vectors", "mean", "axes"} - arrays.keys()
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; it is damaged")
    width = arrays["mean"].size if embedder is None else embedder.contract.width
    kept = arrays["axes"].shape[-1] if arrays["axes"].ndim else 0
    shapes = {"vectors": (n_texts, kept), "mean": (width,), "axes": (width, kept)}
    shapes |= {"places": (n_texts, 2)} if "places" in arrays else {}
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
            raise _altered(
                path,
                f"{name} is {array.dtype} of shape {array.shape}, and finite float32 of shape "
                f"{shape} belongs there",
            )
    return arrays

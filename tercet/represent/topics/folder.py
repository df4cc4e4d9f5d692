"""Topics on disk: three files that anybody can read, none of them a pickle.

texts.jsonl has a line a text: text, topic, probability. topics.json has settings, contract and the
table. vectors.safetensors has what new texts are compared with.
"""

from __future__ import annotations

import json
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
from tercet.represent.topics.topics import Found, Topic, Topics, different
from tercet.represent.topics.vectors import Projection

FORMAT = 1
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
    with (place / TEXTS).open("w", encoding="utf-8") as file:
        for text, topic, probability in zip(topics.texts, topics.topics, topics.probabilities):
            row = {"text": text, "topic": int(topic), "probability": float(probability)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    told = {
        "format": FORMAT,
        "settings": asdict(topics.settings),
        "contract": topics.embedder and topics.embedder.contract.text(),
        "reach": found.reach if np.isfinite(found.reach) else None,
        "agreement": found.agreement,
        "fitted": found.fitted,
        "topics": [asdict(topic) for topic in topics.table],
    }
    (place / TABLE).write_text(json.dumps(told, ensure_ascii=False, indent=1), "utf-8")
    arrays = {
        "vectors": found.vectors,
        "mean": found.projection.mean,
        "axes": found.projection.axes,
    }
    if found.places is not None:
        arrays["places"] = found.places
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, place / ARRAYS)


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
                "a newer tercet"
            )
        table = [Topic(**one) for one in told["topics"]]
        settings = TopicSettings(**told["settings"])
        contract = told["contract"]
        reach = np.inf if told["reach"] is None else float(told["reach"])
        agreement, fitted = float(told["agreement"]), int(told["fitted"])
    embedder = None if contract is None else Embedder(Contract.read(contract, str(place)))
    texts, numbers, shares = _texts(place, len(table))
    arrays = _arrays(place)
    names, of_text = different(texts)
    first = np.unique(of_text, return_index=True)[1]
    topics, probabilities = numbers[first], shares[first]
    if not np.array_equal(topics[of_text], numbers):
        raise InputError(f"{place / TEXTS}: equal texts have other topics; it was altered")
    if len(arrays["vectors"]) != len(names):
        raise InputError(
            f"{place}: {len(names):,} different texts and {len(arrays['vectors']):,} vectors; it "
            "was altered, find the topics anew"
        )
    projection = Projection(arrays["mean"], arrays["axes"])
    figures = reach, agreement, fitted
    found = Found(
        arrays["vectors"], topics, probabilities, projection, *figures, arrays.get("places")
    )
    return Topics(texts, found, table, settings, embedder)


def _texts(place: Path, n_topics: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    texts, numbers, shares = [], [], []
    with (place / TEXTS).open(encoding="utf-8", newline="\n") as file, undamaged(place / TEXTS):
        for line in file:
            row = json.loads(line)
            texts.append(str(row["text"]))
            numbers.append(int(row["topic"]))
            shares.append(float(row["probability"]))
            if not -1 <= numbers[-1] < n_topics:
                raise InputError(
                    f"{place / TEXTS}, line {len(texts)}: there is no topic {numbers[-1]}; it was "
                    "altered"
                )
    return texts, np.array(numbers, np.int32), np.array(shares, np.float32)


def _arrays(place: Path) -> dict[str, Any]:
    try:
        arrays = load_file(place / ARRAYS)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{place / ARRAYS}: is damaged ({error}); find the topics anew") from None
    missing = {"vectors", "mean", "axes"} - arrays.keys()
    if missing:
        raise InputError(f"{place / ARRAYS}: lacks {', '.join(sorted(missing))}; it is damaged")
    return arrays

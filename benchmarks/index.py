"""10,000 passages of novels and textbooks (64 tokens at the most) embedded and put into an index of
vectors and words, beside sentence-transformers with LanceDB by hand; and, with --search, how long a
search of 100,000 of them takes, and what the vectors' index finds.

make benchmark JOB=index
python benchmarks/index.py --search
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import encoders
import inputs
from compare import CORE, Absent, Figures, Side, main

FEW, MANY, LONGEST, SAMPLE, ASKED = 10_000, 100_000, 64, 200, 200
PEER = "search"


def passages(count: int) -> list[str]:
    """The first so many, made once by the environment that has the reader."""
    place = inputs.made(f"passages-{MANY}", _make)
    return json.loads((place / "values.json").read_text("utf-8"))[:count]


def _make(folder: Path) -> None:
    from tercet.text import Passages, Tokenizer
    from tercet.text.passages import passages as cut

    tokenizer = Tokenizer.load(inputs.minilm())

    def count(texts: Any) -> list[int]:
        return [len(ids) for ids in tokenizer.encode_batch(list(texts), special=False)]

    found: dict[str, None] = {}
    for text in _documents():
        found |= dict.fromkeys(cut(text, Passages(LONGEST - 2), count))
        if len(found) >= MANY:
            break
    (folder / "values.json").write_text(json.dumps(list(found)[:MANY]), "utf-8")


def _documents() -> Iterator[str]:
    """Of both sources in turn."""
    import os

    from tercet.data.documents import documents

    data = Path(os.environ.get("TERCET_DATA", "../shared/data"))
    sources = {"openstax-textbooks": "# ", "english-novels": "<<<"}
    files = {name: data / name / "train.txt.gz" for name in sources}
    for path in files.values():
        if not path.exists():
            raise Absent(f"{path} is not there; set TERCET_DATA")
    readers = [documents(str(path), split=sources[name]) for name, path in files.items()]
    while readers:
        for reader in list(readers):
            document = next(reader, None)
            if document is None:
                readers.remove(reader)
            else:
                yield document.text


def tercet(precision: str) -> Figures:
    from tercet import Collection, Passages, load
    from tercet.represent.collection import Item

    texts, model = passages(FEW), load(inputs.minilm(), precision=precision)
    model.embed(texts[:SAMPLE])
    with TemporaryDirectory() as place:
        collection = Collection.open(Path(place) / "c", model, passages=Passages(None))
        started = time.perf_counter()
        collection.feed(map(Item, texts))
        collection.tend()
        return _figures(started, len(collection))


def by_hand(precision: str) -> Figures:
    """One call for the vectors, one for the table, one for the words' index."""
    import lancedb  # pyright: ignore[reportMissingImports]
    from lancedb.index import FTS  # pyright: ignore[reportMissingImports]

    texts, encode = passages(FEW), encoders.sentence_transformers(precision)
    encode(inputs.texts()[0][:SAMPLE])
    with TemporaryDirectory() as place:
        base = lancedb.connect(place)
        started = time.perf_counter()
        vectors = encode(texts)
        rows = [{"text": text, "vector": vector} for text, vector in zip(texts, vectors)]
        table = base.create_table("passages", rows)
        table.create_index("text", config=FTS())
        return _figures(started, table.count_rows())


def _figures(started: float, count: int) -> Figures:
    seconds = time.perf_counter() - started
    assert count == FEW, f"{count} of {FEW} passages are there"
    return {"passages/s": FEW / seconds, "seconds": seconds}


def prepare() -> dict[str, Any]:
    passages(FEW)
    inputs.texts()
    return {}


# searching ----------------------------------------------------------------------------------------


def search() -> None:
    """Builds the collection of 100,000 once (bfloat16) and searches it: medians in ms."""
    from tercet import Collection, Passages, load
    from tercet.represent.collection import Item

    place = inputs.made("collection", lambda folder: None) / "passages"
    model = load(inputs.minilm(), precision="bfloat16")
    collection = Collection.open(place, model, passages=Passages(None))
    texts = passages(MANY)
    started = time.perf_counter()
    added = collection.feed(map(Item, texts))
    print(f"{added.embedded:,} of {len(texts):,} embedded, {time.perf_counter() - started:.1f} s")
    started = time.perf_counter()
    recall = collection.tend()
    print(f"indexes in {time.perf_counter() - started:.1f} s; recall@10 {recall}")
    queries = [" ".join(text.split()[:8]) + "?" for text in texts[:: MANY // ASKED]]
    for mode in ("dense", "bm25", "hybrid"):
        took = []
        for query in queries:
            started = time.perf_counter()
            collection.search(query, mode=mode)
            took.append(1000 * (time.perf_counter() - started))
        tenth = sorted(took)[len(took) * 9 // 10]
        print(
            f"  {mode}: median {statistics.median(took):.1f} ms, nine of ten below {tenth:.1f} ms"
        )


if __name__ == "__main__":
    if "--search" in sys.argv:
        search()
        sys.exit()
    ours = {
        f"tercet {precision}": Side(partial(tercet, precision), CORE)
        for precision in ("float32", "bfloat16", "int8")
    }
    peers = {
        f"sentence-transformers and LanceDB, {precision}": Side(partial(by_hand, precision), PEER)
        for precision in ("float32", "bfloat16")
    }
    job = "10,000 passages embedded and indexed, all-MiniLM-L6-v2"
    main(job, ours | peers, key="passages/s", prepare=prepare)

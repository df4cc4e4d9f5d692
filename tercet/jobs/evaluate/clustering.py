"""The verb `evaluate clustering`: how well topics agree with labels that people gave."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from tercet.data.sources import Tally
from tercet.data.tables import rows, text_of
from tercet.errors import InputError
from tercet.files import writable, written
from tercet.jobs.flags import print_json, say, unset

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Grouped:
    """What is compared with what."""

    source: Annotated[
        Positional[tuple[str, ...]], arg(metavar="TOPICS|MODEL FILE", help_behavior_hint="")
    ]
    """a table with a topic a row (the texts.jsonl of tercet cluster --out); or a model and a table
    of texts, which k-means groups"""
    labels: Annotated[str | None, unset("FILE")] = None
    """a table with the labels of the same rows, where they stand in another file"""
    label: Annotated[str, arg(metavar="NAME")] = "label"
    """the column of the labels"""
    column: Annotated[str, arg(metavar="NAME")] = "text"
    """the column of the texts"""
    topic: Annotated[str, arg(metavar="NAME")] = "topic"
    """the column of the topics; -1 is none"""

    def read(self, name: str, column: str) -> tuple[list[Any], list[str]]:
        """A column of a table, and the labels of its rows."""
        tally = Tally()
        if self.labels is None:
            both = [row for _, row in rows(name, [column, self.label], tally)]
            return [row[column] for row in both], [str(row[self.label]) for row in both]
        found = [row[column] for _, row in rows(name, [column], tally)]
        given = [str(row[self.label]) for _, row in rows(self.labels, [self.label], tally)]
        if len(given) != len(found):
            raise InputError(
                f"{name} has {len(found):,} rows and {self.labels} {len(given):,}; they must be "
                "the same, in the same order (texts of blanks alone are left out of topics)"
            )
        return found, given


@dataclass(frozen=True)
class Drawing:
    """How a model's texts are grouped."""

    k: Annotated[int | None, unset("K")] = None
    """groups; without it, as many as there are labels"""
    samples: Annotated[int, arg(metavar="N")] = 10
    share: Annotated[float, arg(metavar="X")] = 0.5
    """of the texts in each sample"""
    seed: Annotated[int, arg(metavar="N")] = 0
    """of the samples and of k-means"""
    vectors: Annotated[Path | None, unset("FILE.npy")] = None
    """also write the vectors, a row a text"""


def run(
    grouped: Grouped,
    *,
    drawing: Drawing = Drawing(),
    quiet: bool = False,
    json: bool = False,
) -> None:
    """How well groups agree with labels: v-measure, adjusted Rand index, mutual information.

    Of a file of topics, with the texts of no topic as one more group, and without them. Of a model,
    means over samples that k-means groups by its vectors, much as MTEB measures clustering.

      tercet evaluate clustering topics/texts.jsonl --labels mail.jsonl
      tercet evaluate clustering sentence-model mail.jsonl --column subject

    Args:
        json: one JSON object instead
    """
    if len(grouped.source) == 1:
        _topics(grouped, grouped.source[0], json=json)
    elif len(grouped.source) == 2:
        _model(grouped, *grouped.source, drawing=drawing, quiet=quiet, json=json)
    else:
        raise InputError("name a table of TOPICS, or a MODEL and a FILE")


def _topics(grouped: Grouped, name: str, *, json: bool) -> None:
    from tercet.evaluate.clustering import clustering

    found, labels = grouped.read(name, grouped.topic)
    try:
        topics = [int(topic) for topic in found]
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {grouped.topic!r} is no whole number ({error})") from None
    scores = {"all texts": clustering(topics, labels)}
    if min(topics) < 0:
        scores["those of a topic"] = clustering(topics, labels, outliers=False)
    if json:
        print_json({name: asdict(one) for name, one in scores.items()})
        return
    for name, one in scores.items():
        print(f"{name}: {one}")


def _model(
    grouped: Grouped, model: str, file: str, *, drawing: Drawing, quiet: bool, json: bool
) -> None:
    import numpy as np

    from tercet.evaluate.clustering import Sampling, by_k_means
    from tercet.jobs.flags import Model

    if drawing.vectors is not None:
        if drawing.vectors.suffix != ".npy":
            raise InputError(f"--vectors {drawing.vectors} must end in .npy, which it writes")
        writable(drawing.vectors)
    if drawing.k is not None and drawing.k < 2:
        raise InputError(f"--k {drawing.k} must be 2 groups or more")
    sampling = Sampling(drawing.samples, drawing.share, drawing.seed)
    found, labels = grouped.read(file, grouped.column)
    texts = [text_of(text, grouped.column, f"{file}, row {i}") for i, text in enumerate(found, 1)]
    vectors: np.ndarray = np.atleast_2d(Model(model).load("embed").embed(texts))
    if drawing.vectors is not None:
        with written(drawing.vectors) as path:
            np.save(path, vectors)
        if not quiet:
            say(f"{drawing.vectors}: {len(vectors):,} x {vectors.shape[1]:,} float32")
    scores = by_k_means(vectors, labels, drawing.k, sampling=sampling)
    means = {name: [getattr(one, name) for one in scores] for name in ("v_measure", "ari", "nmi")}
    if json:
        figures = {name: statistics.fmean(values) for name, values in means.items()}
        print_json({**figures, "samples": [asdict(one) for one in scores]})
        return
    print(f"{file}: {len(scores)} samples of {scores[0].n:,} texts, {scores[0].groups} groups")
    for name, values in means.items():
        apart = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        print(f"{name.replace('_', '-'):10}{statistics.fmean(values):.4f}{apart}")

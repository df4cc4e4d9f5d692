"""The verb `cluster`: what texts are about."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from tercet.data.sources import Tally
from tercet.errors import InputError
from tercet.files import writable
from tercet.jobs.collect import Reading
from tercet.jobs.flags import one_line, print_json, say, unset
from tercet.train.progress import Bar, clock

if TYPE_CHECKING:
    from tercet.represent.topics import Topics, TopicSettings


@dataclass(frozen=True)
class Source:
    """Of what."""

    source: Annotated[
        Positional[tuple[str, ...]], arg(metavar="COLLECTION|MODEL FILE...", help_behavior_hint="")
    ]
    """a collection (tercet embed --to); or a model that embeds, and files"""
    split: Annotated[str, arg(metavar="HOW")] = "line"
    """plain text is cut into texts by: line, file, paragraph, or a pattern of a first line"""
    column: Annotated[str, arg(metavar="NAME")] = "text"
    """the column of a table that holds the texts; several, with commas, are joined by line ends"""
    precision: Literal["float32", "bfloat16", "int8", "int4"] = "float32"
    """of the model: fewer bits are faster"""


@dataclass(frozen=True)
class Finding:
    """How topics are found."""

    method: Literal["hdbscan", "kmeans"] = "hdbscan"
    """hdbscan finds how many topics there are; kmeans makes --k of them, and leaves no text out"""
    k: Annotated[int | None, unset("K")] = None
    """topics, for kmeans"""
    min_size: Annotated[int | None, unset("N")] = None
    """texts of a topic at the least, for hdbscan; without it, as suits their number"""
    seed: Annotated[int, arg(metavar="N")] = 0
    """the same texts and seed, the same topics"""
    stability: Annotated[int, arg(metavar="K")] = 0
    """K further seeds: how much of each topic they find again"""
    max_ram: Annotated[str | None, unset("SIZE")] = None
    """memory of the whole process, as 4G: refused at the start where that would not do"""
    outliers: Literal["keep", "assign"] = "keep"
    """assign: a text of no topic goes to the one that most of its nearest texts have"""

    def settings(self) -> TopicSettings:
        from tercet.represent.topics import TopicSettings

        return TopicSettings(
            self.method, self.k, self.min_size, seed=self.seed, stability=self.stability
        )


@dataclass(frozen=True)
class Results:
    """Where they go."""

    out: Annotated[Path | None, unset("FOLDER")] = None
    """the topics, for tercet.Topics.load; its texts.jsonl has the topic of each text"""
    map: Annotated[Path | None, unset("FILE.html")] = None
    """a map of the texts to walk through, one file"""
    picture: Annotated[Path | None, unset("FILE.png")] = None
    """the map as a picture"""
    json: bool = False
    """a JSON object a topic instead of the table"""

    def check(self) -> None:
        """That all can be written, before any work is done."""
        if self.out is not None:
            writable(self.out, folder=True)
        for path in (self.map, self.picture):
            if path is not None:
                writable(path)


def run(
    source: Source,
    *,
    finding: Finding = Finding(),
    results: Results = Results(),
    quiet: bool = False,
) -> None:
    """Finds the topics of texts, names them, and prints a table of them.

    The same texts, settings and seed give the same topics.

      tercet cluster library --map map.html
      tercet cluster sentence-model messages.txt --min-size 20 --stability 3 --out topics
      tercet cluster sentence-model mail.jsonl --column subject --method kmeans --k 20
    """
    results.check()
    settings = finding.settings()
    with Bar(quiet=quiet or results.json, stderr=True) as bar:
        topics = _topics(source, settings, finding.max_ram, Stages(bar))
    if finding.outliers == "assign":
        before = topics.outliers
        topics = topics.reassign()
        if not quiet:
            say(f"{before:.1%} of the texts had no topic and were assigned to the nearest")
    for path, draw in ((results.map, topics.map), (results.picture, topics.picture)):
        if path is not None:
            draw(path)
    if results.out is not None:
        topics.save(results.out)
    if results.json:
        for topic in topics.table:
            print_json(asdict(topic))
        return
    _print(topics)
    if not quiet:
        made = [str(path) for path in (results.out, results.map, results.picture) if path]
        say(
            f"{len(topics.texts):,} texts, {len(topics.table)} topics, {topics.outliers:.1%} in "
            f"none; the nearest texts say the same of {topics.found.agreement:.1%}"
            + (f"; written: {', '.join(made)}" if made else "")
        )


def _topics(source: Source, settings: TopicSettings, max_ram: str | None, stages: Stages) -> Topics:
    from tercet.language_model import load
    from tercet.represent.collection import Collection
    from tercet.represent.topics import cluster

    name, *files = source.source or ("",)
    if not name:
        raise InputError("name a COLLECTION, or a MODEL and FILES")
    if not files:
        collection = Collection.open(name)
        return cluster(collection, settings=settings, max_ram=max_ram, progress=stages)
    tally = Tally()
    reading = Reading(split=source.split, column=source.column)
    texts = [item.text for item in reading.items(tuple(files), tally, {})]
    for reason, count in tally.skipped.items():
        say(f"{count:,} texts skipped: {reason}")
    if not texts:
        raise InputError(f"{', '.join(files)}: there is no text")
    model = load(name, precision=source.precision)
    return cluster(texts, model, settings=settings, max_ram=max_ram, progress=stages)


class Stages:
    """What a person sees of it: which part, how far, how fast, how long still."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self._stage, self._began = bar, "", time.monotonic()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage != self._stage:
            self._stage, self._began = stage, time.monotonic()
        self.bar.show(stage, done, total, lambda: self._facts(done, total))

    def _facts(self, done: int, total: int | None) -> str:
        seconds = time.monotonic() - self._began
        if not total or not done or seconds < 1:
            return "" if total is None else f"{done:,} of {total:,}"
        rate, left = done / seconds, clock(seconds * (total / done - 1))
        return f"{done:,} of {total:,}, {rate:,.1f}/s, {left} left"


def _print(topics: Topics) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    scored = any(topic.stability is not None for topic in topics.table)
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("topic", justify="right")
    table.add_column("texts", justify="right")
    table.add_column("words", ratio=4)
    if scored:
        table.add_column("stability", justify="right")
    table.add_column("an example", no_wrap=True, overflow="ellipsis", ratio=5)
    for topic in topics.table:
        row: list[Any] = [str(topic.number), f"{topic.size:,}", Text(", ".join(topic.words[:6]))]
        row += [f"{topic.stability:.2f}"] if topic.stability is not None else []
        table.add_row(*row, Text(one_line(topic.examples[0])))
    alone = int((topics.topics < 0).sum())
    if alone:
        table.add_row("-1", f"{alone:,}", "(no topic)")
    Console(highlight=False).print(table)

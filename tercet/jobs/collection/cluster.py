"""The verb `cluster`: what texts are about."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from tercet.data.sources import Tally
from tercet.errors import InputError, require
from tercet.files import writable
from tercet.jobs.collection.collect import Reading
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

        if (self.method == "kmeans") != (self.k is not None):
            raise InputError("--method kmeans and --k N belong together; give both, or neither")
        if self.method == "kmeans" and self.min_size is not None:
            raise InputError("--min-size belongs to hdbscan, kmeans makes --k topics; leave it out")
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
        for name, path, ending in (("map", self.map, ".html"), ("picture", self.picture, ".png")):
            if path is not None and path.suffix.lower() != ending:
                raise InputError(f"--{name} {path} must end in {ending}, which is what it writes")
            if path is not None:
                writable(path)
        if self.picture is not None:
            require("matplotlib", "plot")


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
    for package in ("umap", "fast_hdbscan"):
        require(package, "learn")
    with Bar(quiet=quiet or results.json, stderr=True) as bar:
        topics = _topics(source, settings, finding.max_ram, Stages(bar))
    left = topics.outliers
    if finding.outliers == "assign":
        topics = topics.reassign()
    if results.out is not None:  # first of all: drawing may fail
        topics.save(results.out)
    for path, draw in ((results.map, topics.map), (results.picture, topics.picture)):
        if path is not None:
            draw(path)
    if results.json:
        for topic in topics.table:
            print_json(asdict(topic))
        return
    _print(topics)
    if not quiet:
        say(_summary(topics, left, finding))
        if made := [str(path) for path in (results.out, results.map, results.picture) if path]:
            say(f"written: {', '.join(made)}")


def _summary(topics: Topics, left: float, finding: Finding) -> str:
    """left: the share of texts of no topic, before they were assigned."""
    told = f"{len(topics.texts):,} texts, {len(topics.table)} topics, {left:.1%} in none"
    if not topics.table:
        return f"{told}; try a smaller --min-size, or --method kmeans --k N"
    if finding.outliers == "assign":
        return f"{told}, and then assigned to those of their nearest texts"
    return f"{told}; {topics.found.agreement:.1%} have the topic of their nearest texts"


def _topics(source: Source, settings: TopicSettings, max_ram: str | None, stages: Stages) -> Topics:
    from tercet.language_model import load
    from tercet.represent.collection import Collection
    from tercet.represent.collection.store import Store
    from tercet.represent.topics import cluster

    name, *files = source.source or ("",)
    if not name:
        raise InputError("name a COLLECTION, or a MODEL and FILES")
    if not files:
        if Store(name).contract() is None:
            raise InputError(
                f"{name} is no collection; name FILES behind a MODEL, or a folder that "
                "`tercet embed MODEL FILES --to` has made"
            )
        if source != Source(source.source):
            raise InputError(
                "--split, --column and --precision are for FILES; a collection has its own, leave "
                "them out"
            )
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

"""Texts that come later: they join the topics that are there, and what none of them fits may found
new ones. Numbers stay what they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tercet.represent.topics.find import named, points
from tercet.represent.topics.group import grouped
from tercet.represent.topics.reduce import nearest
from tercet.represent.topics.settings import TopicSettings
from tercet.represent.topics.topics import Found, Topic, Topics, checked, different
from tercet.represent.topics.vote import share_of

AROUND = 200  # texts that have a topic, at the least
NEW = 0.5  # of a new topic's texts, so many are new: what lay there before was looked at before


@dataclass(frozen=True)
class Growth:
    """What adding has changed. grown: topics with how many texts they had. outliers: texts without
    a topic, before and after."""

    added: int
    grown: list[tuple[Topic, int]]
    new: list[Topic]
    unchanged: list[Topic]
    outliers: tuple[int, int]

    def __str__(self) -> str:
        lines = [f"{self.added:,} texts added"]
        for topic, before in self.grown:
            more = f"{before:,} + {topic.size - before:,}"
            lines.append(f"~ {topic.number} {topic.name}: {more}")
        lines += [f"+ {topic.number} {topic.name}: {topic.size:,}" for topic in self.new]
        if self.unchanged:
            names = ", ".join(str(topic.number) for topic in self.unchanged)
            lines.append(f"= unchanged: {names}")
        before, after = self.outliers
        lines.append(f"without a topic: {before:,}, now {after:,}")
        return "\n".join(lines)


def add(topics: Topics, texts: Sequence[str], vectors: np.ndarray | None) -> Growth:
    """Texts that are known only count once more. Others are said to be of a topic as ``predict``
    says it; those of none, with those that were left before, are grouped by themselves, and a
    group of mostly new texts is a new topic."""
    given, before = checked(texts), topics
    known = set(topics.different)
    fresh = sorted(set(given) - known)
    rows = {text: row for row, text in reversed(list(enumerate(given)))}
    merged = _merged(topics, fresh, [rows[text] for text in fresh], given, vectors)
    every = [*topics.texts, *given]
    names, of_text = different(every)
    counts = np.bincount(of_text)
    recent = np.array([name not in known for name in names])
    first = len(topics.table)
    merged = _founded(merged, counts, recent, first, topics.settings.smallest(len(every)), topics)
    sizes = np.bincount(merged.topics + 1, counts)[1:]
    table = [replace(topic, size=int(sizes[topic.number])) for topic in topics.table]
    if len(sizes) > first:
        table += named(names, merged, counts, None)[first:]
    growth = _growth(before, table, merged.topics[of_text], len(given))
    topics.hold(every, merged, table)
    return growth


def _merged(
    topics: Topics,
    fresh: list[str],
    rows: list[int],
    given: list[str],
    vectors: np.ndarray | None,
) -> Found:
    """The new different texts in their places among the others."""
    found = topics.found
    if not fresh:
        return replace(found, places=None)
    reduced = topics.reduced(given, np.array(rows), vectors)
    said = topics.voted(reduced)
    joined = [*topics.different, *fresh]
    order = np.array(sorted(range(len(joined)), key=joined.__getitem__))
    return replace(
        found,
        vectors=np.concatenate([found.vectors, reduced])[order],
        topics=np.concatenate([found.topics, said.topics])[order],
        probabilities=np.concatenate([found.probabilities, said.probabilities])[order],
        places=None,
    )


def _founded(
    found: Found,
    counts: np.ndarray,
    recent: np.ndarray,
    first: int,
    smallest: int,
    topics: Topics,
) -> Found:
    """With the groups among texts of no topic as topics from number ``first`` on. Some of the
    others are looked at beside them: a group shows only where there is something around it."""
    without = found.topics < 0
    if counts[without & recent].sum() < smallest * NEW:
        return found
    others = np.flatnonzero(~without)
    step = max(1, len(others) // max(AROUND, int(without.sum())))
    some = np.sort(np.concatenate([np.flatnonzero(without), others[::step]]))
    vectors = found.vectors[some]
    settings = TopicSettings(
        min_size=smallest,
        neighbours=topics.settings.neighbours,
        dimensions=topics.settings.dimensions,
        seed=topics.settings.seed,
    )
    near = nearest(vectors, None, settings.neighbours)
    groups = grouped(points(vectors, near, settings), counts[some], settings)
    inside = share_of(groups, groups[near[0]], near[1])
    numbers, shares = found.topics.copy(), found.probabilities.copy()
    number = first
    for group in range(int(groups.max()) + 1):
        members = groups == group
        new = (recent & without)[some[members]]
        if np.average(new, weights=counts[some[members]]) < NEW:
            continue
        members &= without[some]
        numbers[some[members]], shares[some[members]] = number, inside[members]
        number += 1
    return replace(found, topics=numbers, probabilities=shares)


def _growth(before: Topics, table: list[Topic], after: np.ndarray, added: int) -> Growth:
    old = {topic.number: topic.size for topic in before.table}
    kept = [topic for topic in table if topic.number in old]
    return Growth(
        added,
        [(topic, old[topic.number]) for topic in kept if topic.size > old[topic.number]],
        [topic for topic in table if topic.number not in old],
        [topic for topic in kept if topic.size == old[topic.number]],
        (int((before.topics < 0).sum()), int((after < 0).sum())),
    )

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

AROUND = 5_000  # texts that have a topic
NEW = 0.5  # of the texts of a group, so many belong to no topic, or it is none of its own


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
    says it. Those of none, also of earlier additions, are grouped among the known ones, and a group
    that is mostly theirs is a new topic."""
    given, before = checked(texts), topics
    known = set(topics.different)
    fresh = sorted(set(given) - known)
    rows = {text: row for row, text in reversed(list(enumerate(given)))}
    merged = _merged(topics, fresh, [rows[text] for text in fresh], given, vectors)
    every = [*topics.texts, *given]
    names, of_text = different(every)
    counts = np.bincount(of_text)
    recent = np.unique(of_text, return_index=True)[1] >= topics.found.fitted
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
    """With groups of texts of no topic that came later as topics from number ``first`` on. The
    texts that have one are looked at beside them: a group shows by what is around it."""
    alone, others = recent & (found.topics < 0), np.flatnonzero(found.topics >= 0)
    if counts[alone].sum() < smallest * NEW:
        return found
    step = max(1, len(others) // AROUND)
    some = np.sort(np.concatenate([np.flatnonzero(alone), others[::step]]))
    if len(some) < 2:
        return found
    vectors = found.vectors[some]
    settings = TopicSettings(
        min_size=smallest,
        neighbours=topics.settings.neighbours,
        dimensions=max(2, min(topics.settings.dimensions, len(some) - 2)),
        seed=topics.settings.seed,
    )
    near = nearest(vectors, None, settings.neighbours)
    groups = grouped(points(vectors, near, settings), counts[some], settings)
    inside = share_of(groups, groups[near[0]], near[1])
    numbers, shares = found.topics.copy(), found.probabilities.copy()
    number = first
    for group in range(int(groups.max()) + 1):
        members = groups == group
        if np.average(alone[some[members]], weights=counts[some[members]]) < NEW:
            continue
        members &= alone[some]
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

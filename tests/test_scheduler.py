"""The scheduler's laws, over any arrivals, lengths and cancellations."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import InputError
from tercet.generate import scheduler
from tercet.generate.scheduler import PAGE, Scheduler


def check(s: Scheduler) -> None:
    """Every page belongs to one text or to nobody; nobody reads more than lies in his pages."""
    held = [page for job in s.live for page in job.pages]
    assert sorted(held + s.free) == list(range(s.n_pages))
    assert all(job.read <= PAGE * len(job.pages) and job.read <= job.known for job in s.live)
    assert len(s.live) <= s.texts and not any(job.pages for job in s.waiting)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 40), st.integers(1, 39))
def test_all_are_answered_in_bounded_rows_and_pages(seed, pages, rows, texts):
    if texts >= rows:
        return
    draw, s = random.Random(seed), Scheduler(pages, rows=rows, texts=texts)
    wanted, written, gone = {}, {}, set()
    for step in range(20_000):
        if step < 60 and draw.random() < 0.5:
            known = draw.randint(1, pages * PAGE - 1)
            new = draw.randint(1, min(90, pages * PAGE - known))
            s.add(step, known, new)
            wanted[step], written[step] = new, 0
        if draw.random() < 0.02 and wanted:
            gone.add(name := draw.choice(list(wanted)))
            s.remove(name)
        turn = s.turn()
        check(s)
        assert sum(count for _, count in turn) <= rows and all(count > 0 for _, count in turn)
        assert turn or not (s.live or s.waiting), "somebody waits and nothing is read"
        for job, _ in turn:
            if job.unread == 0:
                written[job.name] += 1
                assert written[job.name] <= wanted[job.name]
                if written[job.name] == wanted[job.name]:
                    s.remove(job.name)
                else:
                    s.wrote(job.name)
        if step > 60 and not s.live and not s.waiting:
            break
    else:
        raise AssertionError("not all were answered")
    assert len(s.free) == pages
    assert all(written[name] == wanted[name] for name in wanted if name not in gone)


def test_who_writes_is_not_held_up_by_a_long_prompt():
    s = Scheduler(100, rows=16, texts=8)
    s.add("short", 3, 50)
    s.turn()
    s.wrote("short")
    s.add("long", 1000, 5)
    for _ in range(40):
        turn = {job.name: count for job, count in s.turn()}
        assert turn["short"] == 1 and turn["long"] == 15
        s.wrote("short")


def test_the_first_to_come_is_the_first_to_be_read():
    s = Scheduler(100, rows=8, texts=4)
    for name in "abcdef":
        s.add(name, 20, 2)
    order = []
    while s.live or s.waiting:
        for job, _ in s.turn():
            if job.unread == 0:
                order.append(job.name)
                s.remove(job.name)
    assert order == list("abcdef")


def test_a_full_store_sends_the_youngest_back_and_reads_it_again():
    s = Scheduler(4, rows=64 * 3, texts=3)
    s.add("old", 60, 130)
    s.add("young", 60, 60)
    s.turn()
    for _ in range(200):
        for job, _ in s.turn():
            if job.unread == 0:
                s.remove(job.name) if job.known == job.longest else s.wrote(job.name)
        for job in list(s.live):
            if job.unread == 0:
                s.wrote(job.name) if job.known < job.longest else s.remove(job.name)
        check(s)
    assert not s.live and not s.waiting


def test_what_can_never_fit_is_refused():
    s = Scheduler(2, rows=8, texts=2)
    with pytest.raises(InputError, match=r"100 tokens and 29 new ones .* memory for 128"):
        s.add("x", 100, 29)
    s.add("y", 100, 28)
    with pytest.raises(InputError, match="8 texts at once and 8 rows"):
        Scheduler(2, rows=8, texts=8)


def test_it_knows_no_torch():
    tree = ast.parse(Path(scheduler.__file__).read_text(encoding="utf-8"))
    names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert all("torch" not in str(name) and "model" not in str(name) for name in names)

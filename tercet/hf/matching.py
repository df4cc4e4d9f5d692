"""Follows a table of names.py: which tensor of a folder is which of a network, in both directions.

Knows the grammar of the tables, no architecture, and of tensors only how to cut and join them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.errors import InputError
from tercet.hf.names import OLD_ENDINGS, OUTPUT, OUTPUT_BIAS, Form, Rule, Table
from tercet.hf.weights import Weights


@dataclass(frozen=True)
class Op:
    """An invertible pair. read: one of theirs -> n of ours. write: back."""

    read: Callable[[Tensor, int], tuple[Tensor, ...]]
    write: Callable[[list[Tensor]], Tensor]


OPS = {
    "keep": Op(lambda t, n: (t,), lambda ts: ts[0]),
    "copy": Op(lambda t, n: (t,), lambda ts: ts[0].clone()),  # a file holds no tensor twice
    "transpose": Op(lambda t, n: (t.t().contiguous(),), lambda ts: ts[0].t()),
    "split": Op(lambda t, n: t.chunk(n, dim=0), lambda ts: torch.cat(ts)),
    "split-columns": Op(
        lambda t, n: tuple(part.t().contiguous() for part in t.chunk(n, dim=-1)),
        lambda ts: torch.cat([t.t() for t in ts], dim=-1),
    ),
    "row": Op(lambda t, n: (t[0],), lambda ts: ts[0][None]),
}


@dataclass(frozen=True)
class Link:
    """A rule with its numbers filled in: one tensor of theirs, one or several of ours."""

    theirs: str
    ours: tuple[str, ...]
    op: Op = OPS["keep"]
    optional: bool = False
    body: bool = True


def canonical(table: Table, weights: Weights) -> dict[str, str]:
    """The table's names -> the file's: without the prefix, masks and copies, in today's endings."""
    names: dict[str, str] = {}
    ignored = [_pattern(text) for text in table.ignored]
    for name in weights:
        short = name.removeprefix(table.prefix)
        for old, new in OLD_ENDINGS.items():
            if short.endswith(old):
                short = short.removesuffix(old) + new
        if not any(pattern.fullmatch(short) for pattern in ignored):
            names[short] = name
    for copy, original in table.copies.items():
        if copy in names and not absorbed(copy, original, names, weights):
            raise InputError(
                f"{weights.folder}: {names[copy]} and {names[original]} differ; a model that keeps "
                "two of them instead of one is not supported"
            )
    return names


def absorbed(copy: str, original: str, names: dict[str, str], weights: Weights) -> bool:
    """Takes a copy out of the names, where it is one; it stands in for a missing original."""
    if original not in names:
        names[original] = names.pop(copy)
        return True
    if not weights.alike(names[copy], names[original]):
        return False
    del names[copy]
    return True


def choose_form(
    table: Table, names: dict[str, str], architectures: list[str], *, tied: bool
) -> Form:
    """The form whose tensors these are: the fewest unexplained; then the one that config.json
    names; then the fewest missing; then the first. Only language models are taken at their name: a
    sentence encoder often still bears that of the masked language model it was."""
    body = [_pattern(rule.theirs) for rule in table.body]
    rest = [name for name in names if not any(p.fullmatch(name) for p in body)]

    def cost(form: Form) -> tuple[int, bool, int]:
        patterns = [_pattern(rule.theirs) for rule in form.rules]
        unexplained = sum(not any(p.fullmatch(name) for p in patterns) for name in rest)
        named = form.architecture in architectures and "language" in form.heads
        missing = sum(
            not any(pattern.fullmatch(name) for name in rest)
            for rule, pattern in zip(form.rules, patterns, strict=True)
            if not rule.optional and not (tied and rule.ours in (OUTPUT, OUTPUT_BIAS))
        )
        return unexplained, not named, missing

    return min(table.forms, key=cost)


def matched(name: str, rules: Iterable[Rule]) -> bool:
    """Whether one of the rules names a tensor of theirs."""
    return any(_pattern(rule.theirs).fullmatch(name) for rule in rules)


def links_of_tensor(name: str, table: Table) -> set[str]:
    """What a tensor of theirs may be of ours, numbers left open."""
    found: set[str] = set()
    for rule in (*table.body, *(rule for form in table.forms for rule in form.rules)):
        if match := _pattern(rule.theirs).fullmatch(name):
            end = match.groupdict().get("end") or ""
            ours = (rule.ours,) if isinstance(rule.ours, str) else rule.ours
            found |= {text.replace("*", end) for text in ours}
    return found


def _pattern(text: str) -> re.Pattern[str]:
    """``{}`` matches a layer's number, ``*`` matches weight or bias."""
    text = (
        re.escape(text).replace(r"\{\}", r"(?P<layer>\d+)").replace(r"\*", "(?P<end>weight|bias)")
    )
    return re.compile(text)


def links_of(table: Table, form: Form, ours: list[str], *, gated: bool) -> list[Link]:
    """Every tensor that a network of this configuration has, in the table's spelling."""
    links: list[Link] = []
    for rule in (*table.body, *form.rules):
        if rule.gated in (None, gated):
            links += _instances(rule, ours, body=rule in table.body)
    named = {name for link in links for name in link.ours}
    assert not set(ours) - named, f"no rule of {form.architecture} names {set(ours) - named}"
    return links


def _instances(rule: Rule, ours: Iterable[str], *, body: bool) -> list[Link]:
    patterns = (rule.ours,) if isinstance(rule.ours, str) else rule.ours
    first, links = _pattern(patterns[0]), []
    for name in ours:
        if match := first.fullmatch(name):
            found = match.groupdict()
            layer, end = found.get("layer") or "", found.get("end") or ""

            def say(text: str, layer: str = layer, end: str = end) -> str:
                return text.replace("{}", layer).replace("*", end)

            parts = tuple(say(text) for text in patterns)
            links.append(Link(say(rule.theirs), parts, OPS[rule.op], rule.optional, body))
    return links

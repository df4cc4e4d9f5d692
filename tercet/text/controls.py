"""Control tokens: special tokens that a chat template writes and that no content may spell.

A content that spells one (or a part that a template could complete) gets a stand-in for one of its
characters before the template sees it; what the template then holds of control tokens, it wrote
itself, and the text is segmented with those alone recognised. Knows no template.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import Any

from tokenizers import Tokenizer as Library

# Characters that no text should hold (Unicode's noncharacters), and more for texts that do.
RARE = "".join(map(chr, [*range(0xFDD0, 0xFDF0), *range(0xF0000, 0xFFFFE)]))
# Letters of the Vai script and more: what no normalizer changes or takes away.
LEADS = "".join(map(chr, [*range(0xA500, 0xA60B), *range(0xF0000, 0xF1000)]))

KEPT = 4  # copies of a tokenizer

Part = tuple[str, bool]  # a stretch of a text, and whether it is a control token


class Controls:
    """A set of spellings: where they stand in a text, and how to hide them in one."""

    def __init__(self, spellings: Collection[str]) -> None:
        self.spellings = frozenset(one for one in spellings if one.strip())
        lengths: dict[str, set[int]] = defaultdict(set)
        for one in self.spellings:
            lengths[one[0]].add(len(one))
        self._lengths = {first: sorted(some, reverse=True) for first, some in lengths.items()}
        self._longest = max(map(len, self.spellings), default=0)
        self._begins = {one[:n] for one in self.spellings for n in range(1, len(one))}
        self._ends = {one[n:] for one in self.spellings for n in range(1, len(one))}

    def at(self, text: str, place: int) -> str:
        """The longest spelling that begins there, or ""."""
        for length in self._lengths.get(text[place], ()):  # some vocabularies have thousands
            if (one := text[place : place + length]) in self.spellings:
                return one
        return ""

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """The stretches (start, stop) that are control tokens, from the left, the longest first."""
        stop = 0
        for place in self._places(text):
            if place >= stop and (token := self.at(text, place)):
                stop = place + len(token)
                yield place, stop

    def parts(self, text: str) -> list[Part]:
        """The whole text, cut at the control tokens."""
        parts, done = [], 0
        for start, stop in self.find(text):
            parts += [(text[done:start], False)] if start > done else []
            parts.append((text[start:stop], True))
            done = stop
        return [*parts, (text[done:], False)] if done < len(text) else parts

    def spelled(self, text: str) -> set[int]:
        """The places in a content of which the character must be hidden: in each spelling, and
        where the content's ends (or all of it) could become one beside a template's text."""
        places = {
            place + _first_visible(token)
            for place in self._places(text)
            if (token := self.at(text, place))
        }
        body = text.strip()
        if not body:
            return places
        start = len(text) - len(text.lstrip())
        stop = start + len(body)
        for length in range(1, min(self._longest, len(body) + 1)):
            if body[-length:] in self._begins:
                places.add(stop - length)
            if body[:length] in self._ends:
                places.add(start)
        if len(body) < self._longest and any(body in one for one in self.spellings):
            places.add(start)
        return places

    def _places(self, text: str) -> Iterator[int]:
        """Where a spelling could begin, in order."""
        found = []
        for first in self._lengths:
            place = text.find(first)
            while place >= 0:
                found.append(place)
                place = text.find(first, place + 1)
        return iter(sorted(found))


def _first_visible(token: str) -> int:
    """Of a spelling, the first character that trimming leaves."""
    return len(token) - len(token.lstrip()) if token.strip() else 0


class StandIns:
    """Characters in the place of others, for the contents of one conversation. One for one, so that
    places in a text stay what they are."""

    def __init__(self, texts: Sequence[str], reserved: str) -> None:
        """`texts` hold none of the stand-ins; `reserved`: characters that must not stand in a
        content and are hidden wherever they do."""
        held = set().union(*texts) if any(not text.isascii() for text in texts) else set()
        self._free = (one for one in RARE if one not in held and one not in reserved)
        self._reserved = set(reserved) & held
        self._of: dict[str, str] = {}

    def hide(self, text: str, controls: Controls) -> str:
        places = controls.spelled(text)
        if self._reserved:
            places |= {i for i, character in enumerate(text) if character in self._reserved}
        if not places:
            return text
        characters = list(text)
        for place in places:
            characters[place] = self._stand_in(characters[place])
        return "".join(characters)

    def show(self, text: str) -> str:
        """The text with the true characters."""
        return text.translate({ord(one): true for true, one in self._of.items()})

    def _stand_in(self, character: str) -> str:
        if character not in self._of:
            self._of[character] = next(self._free)
        return self._of[character]


# segmenting ---------------------------------------------------------------------------------------


class Respelled:
    """A library tokenizer whose control tokens are spelled as no given text is, with the same ids.

    So a text that spells "<|im_end|>" is plain text to it, and one that holds the other spelling
    has the token there: all in one go, as what precedes a word may decide its tokens.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._made: dict[tuple[frozenset[str], str], tuple[Library, dict[str, str]]] = {}

    def encode(
        self, parts: Sequence[Part], controls: frozenset[str]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and the characters of each in the joined parts: (start, stop)."""
        text = "".join(part for part, _ in parts)
        lead = next(one for one in LEADS if one not in text)
        library, names = self._respelled(controls, lead)
        written = [names[part] if control else part for part, control in parts]
        encoding = library.encode("".join(written), add_special_tokens=False)
        return encoding.ids, _moved(encoding.offsets, written, [part for part, _ in parts])

    def _respelled(self, controls: frozenset[str], lead: str) -> tuple[Library, dict[str, str]]:
        if (controls, lead) not in self._made:
            if len(self._made) == KEPT:  # texts that hold leads, one after the other
                del self._made[next(iter(self._made))]
            names = {token: f"{lead}{n}{lead}" for n, token in enumerate(sorted(controls))}
            description = _with_names(json.loads(self._library.to_str()), names)
            self._made[controls, lead] = Library.from_str(json.dumps(description)), names
        return self._made[controls, lead]


def _with_names(description: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """A tokenizer.json with other names for some tokens, in the vocabulary and beside it. They are
    found wherever they stand: what a template writes as a token is one."""
    for token in description["added_tokens"]:
        if token["content"] in names:
            token |= {"content": names[token["content"]], "single_word": False, "normalized": False}
    description["post_processor"] = None  # it would only trim the places of tokens
    model = description["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token"):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if model.get("merges"):
        prefix = len(model.get("continuing_subword_prefix") or "")
        pairs = (rule.split(" ") if isinstance(rule, str) else rule for rule in model["merges"])
        model["merges"] = [
            [left, right]
            for left, right in pairs
            if names.keys().isdisjoint((left, right, left + right[prefix:]))
        ]
    return description


def _moved(
    places: Sequence[tuple[int, int]], written: Sequence[str], parts: Sequence[str]
) -> list[tuple[int, int]]:
    """Places in the joined `written` as places in the joined `parts`: a token is a whole part, or
    lies within a part that is the same in both. (Some take the blanks beside them along.)"""
    theirs = [0, *accumulate(map(len, written))]
    ours = [0, *accumulate(map(len, parts))]

    def moved(place: int) -> int:
        part = bisect_right(theirs, place) - 1
        return ours[part] + place - theirs[part]

    found, low, high, shift = [], 0, 0, 0  # the part where the token before stands
    for start, stop in places:
        if low <= start and stop < high:
            found.append((start + shift, stop + shift))
            continue
        found.append((moved(start), moved(stop)))
        part = bisect_right(theirs, start) - 1
        low, high = theirs[part], theirs[part + 1] if part < len(parts) else 0
        shift = ours[part] - low
    return found

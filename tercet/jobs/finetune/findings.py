"""What a fine-tuning finds in its data once it is done: mistakes, likely label errors, texts that
stand in training and test, texts that were cut.

Plain data, for the report page and for whoever reads the file. Bounded in time and in size: what is
only drawn or only shown in part is counted.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tercet.answers import CutWarning
from tercet.data.duplicates import NEAR, twins
from tercet.errors import InputError, require
from tercet.evaluate.label_errors import label_errors
from tercet.evaluate.probe import EXTRA, out_of_fold
from tercet.jobs.finetune.splits import in_groups
from tercet.jobs.finetune.task import TEST, TRAIN, VALIDATION, Splits
from tercet.language_model import LanguageModel

SHOWN = 20  # of each kind; all are counted
CHARACTERS = 400  # of a text that is shown
FOLDS = 5  # of the logistic regression
ROWS = 10_000  # that it looks at
CELLS = 3_000_000  # rows times labels: with more labels fewer rows
MOST_LABELS = 1_000

Text = str | tuple[str, str]


class Row(Protocol):
    """An example as people know it. where: its file and row."""

    @property
    def group(self) -> Any: ...

    @property
    def text(self) -> Text: ...

    @property
    def label(self) -> str: ...

    @property
    def where(self) -> str: ...


def measured(splits: Splits) -> tuple[str, Sequence[Any]]:
    """The split that tells what the model is worth: test, or validation where there is none."""
    return (TEST, splits.test) if splits.test else (VALIDATION, splits.validation)


def shown(row: Row, **more: Any) -> dict[str, Any]:
    """A row for people, with what else is to be said of it."""
    return {"where": row.where, "text": _short(row.text), "label": row.label, **more}


def mistakes(
    rows: Sequence[Row], labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """How often each label was said of each, as [true, said, count]; and the mistakes of which the
    model was surest. labels (B,), probabilities (B, labels)."""
    said, sure = probabilities.argmax(1), probabilities.max(1)
    counts = Counter(zip(labels.tolist(), said.tolist()))
    wrong = np.flatnonzero(said != labels)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    return {
        "confusion": [[names[i], names[j], n] for (i, j), n in sorted(counts.items())],
        "mistakes": {
            "n": len(wrong),
            "of": len(rows),
            "shown": [
                shown(rows[i], said=names[said[i]], probability=round(float(sure[i]), 4))
                for i in wrong[:SHOWN].tolist()
            ],
        },
    }


def suspects(
    rows: Sequence[Row],
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    **about: Any,
) -> dict[str, Any]:
    """The rows whose label is likely wrong, by probabilities (B, labels) that were given out of
    fold. n: all of them; rows: how many were judged; agrees: the share of them whose label is also
    the likeliest, which tells what the judge is worth."""
    found = label_errors(labels, probabilities)
    judged = np.isfinite(probabilities).all(1)
    agreed = int((probabilities[judged].argmax(1) == labels[judged]).sum())
    return about | {
        "n": len(found),
        "rows": int(judged.sum()),
        "agrees": round(agreed / max(1, int(judged.sum())), 4),
        "shown": [
            shown(
                rows[i],
                likely=names[likely],
                probability=round(float(probabilities[i, likely]), 4),
                own=round(float(probabilities[i, labels[i]]), 4),
            )
            for i, likely in found[:SHOWN]
        ],
    }


def suspects_by_vectors(
    model: LanguageModel, rows: Sequence[Row], labels: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """As ``suspects``, by logistic regression on the vectors of a model that has not learned from
    the rows; of many rows by a drawn part. Says why where it cannot."""
    if len(names) > MOST_LABELS:
        return {"skipped": f"{len(names):,} labels are more than the {MOST_LABELS:,} of its limit"}
    try:
        require("sklearn", EXTRA)
    except InputError as missing:
        return {"skipped": str(missing)}
    chosen, folds = _in_folds(rows, min(ROWS, CELLS // len(names)))
    drawn = [rows[i] for i in chosen]
    probabilities = out_of_fold(vectors(model, drawn), labels[chosen], folds)
    short = len(names) - probabilities.shape[1]  # the last labels, where no drawn row has them
    probabilities = np.pad(probabilities, ((0, 0), (0, short)))
    by = f"logistic regression on the vectors of the model before it learned, {FOLDS} folds"
    return suspects(drawn, labels[chosen], probabilities, names, by=by, of=len(rows))


def _in_folds(rows: Sequence[Row], most: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of at most so many rows, drawn by groups, and the fold of each; rows of a group
    share one."""
    chosen: list[int] = []
    folds: list[int] = []
    for number, group in enumerate(in_groups(rows)):
        if chosen and len(chosen) + len(group) > most:
            break
        chosen += group
        folds += [number % FOLDS] * len(group)
    return np.array(chosen), np.array(folds)


def vectors(model: LanguageModel, rows: Sequence[Row]) -> np.ndarray:
    """(B, D) of texts, the mean of their states; of pairs (u, v, |u - v|), (B, 3 D), as Reimers and
    Gurevych 2019, section 3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutWarning)  # said when the rows were read
        if not isinstance(rows[0].text, tuple):
            return model.embed([str(row.text) for row in rows], pool="mean")
        first, second = (model.embed([row.text[i] for row in rows], pool="mean") for i in (0, 1))
    return np.hstack([first, second, np.abs(first - second)])


def duplicates(splits: Splits) -> dict[str, Any]:
    """Texts of the test rows that stand in what was learned from or chosen by too, word for word or
    nearly so; of the validation rows where there are no test rows."""
    split, rows = measured(splits)
    known = [*splits.train, *(splits.validation if split == TEST else ())]
    found = twins([_joined(row.text) for row in rows], (_joined(row.text) for row in known))
    return {
        "split": split,
        "of": len(rows),
        "known": f"{TRAIN} and {VALIDATION}" if split == TEST else TRAIN,
        "similarity": NEAR,
        "same": sum(twin.same for twin in found),
        "near": sum(not twin.same for twin in found),
        "shown": [
            shown(
                rows[twin.text],
                similarity=round(twin.similarity, 3),
                same=twin.same,
                other=shown(known[twin.other]),
            )
            for twin in found[:SHOWN]
        ],
    }


def cut(
    model: LanguageModel, splits: Splits, tokens: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """Of each split the texts that lost tokens, and the longest of all with the tokens that they
    had. tokens: by split, of each example as the network reads it; it is read again where it fills
    the context."""
    counts: dict[str, int] = {}
    longest: list[tuple[int, dict[str, Any]]] = []
    for name, read in tokens.items():
        rows = [row for row, n in zip(getattr(splits, name), read) if n >= model.limit]
        lengths = _lengths(model, [row.text for row in rows])
        lost = [(n, row) for n, row in zip(lengths, rows) if n > model.limit]
        counts[name] = len(lost)
        lost.sort(key=lambda one: -one[0])
        longest += [(n, shown(row, split=name, tokens=n)) for n, row in lost[:SHOWN]]
    longest.sort(key=lambda one: -one[0])
    return {"limit": model.limit, "n": counts, "shown": [row for _, row in longest[:SHOWN]]}


def _lengths(model: LanguageModel, texts: Sequence[Text]) -> list[int]:
    """Tokens, special ones too."""
    if texts and isinstance(texts[0], tuple):
        return [len(model.tokenizer.encode_pair(*text)[0]) for text in texts]
    return [len(ids) for ids in model.tokenizer.encode_batch(list(map(str, texts)))]


def _joined(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(text)


def _short(text: Text) -> str | list[str]:
    if not isinstance(text, str):
        return [str(_short(part)) for part in text]
    return text if len(text) <= CHARACTERS else f"{text[: CHARACTERS - 1]}…"

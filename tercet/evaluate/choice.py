"""Multiple choice by log-likelihood, and the last word of a passage: the choice that a decoder
holds for the likeliest is its answer (Brown et al. 2020, 2.4).

As lm-evaluation-harness has it, to the digit: where context and choice are parted, what stands
before a text without a context, and that of what is too long the end is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from tercet.errors import InputError
from tercet.evaluate.perplexity import check_scores
from tercet.evaluate.tasks import Question
from tercet.language_model import LanguageModel
from tercet.represent.score import Ending, Foretold, foretold, n_read
from tercet.text import CutReport, Tokenizer

Watch = Callable[[int, int], object]  # is told the tokens read, and how many there are


def answered(
    model: LanguageModel,
    questions: Sequence[Question],
    report: CutReport,
    *,
    watch: Watch | None = None,
) -> list[list[Foretold]]:
    """What the model makes of each choice of each question.

    The report counts questions whose longest reading lost its beginning; a choice that is longer
    than the context is judged by its end. Raises InputError for a model that scores no texts or
    gives no numbers, and for a choice that leaves no token.
    """
    check_scores(model)
    pairs = [(question.name, *pair) for question in questions for pair in question.pairs]
    read = iter(endings(model.tokenizer, pairs))
    groups: list[list[Ending]] = []
    for question in questions:
        own = [next(read) for _ in question.pairs]
        longest = max(len(ending.ids) for ending in own)
        groups.append([kept(ending, model.limit) for ending in own])
        report.add(longest, max(0, longest - model.limit - 1))
    total, done = sum(map(n_read, groups)), 0
    found: dict[int, list[Foretold]] = {}
    for number, answers in foretold(model.network, groups):
        if any(math.isnan(answer.log_probability) for answer in answers):
            raise InputError(
                f"{questions[number].name}: the model's probabilities are no numbers (NaN): its "
                "weights are damaged; load another copy"
            )
        found[number] = answers
        done += n_read(groups[number])
        if watch is not None:
            watch(done, total)
    return [found[number] for number in range(len(groups))]


def endings(tokenizer: Tokenizer, pairs: Iterable[tuple[str, str, str]]) -> list[Ending]:
    """The tokens of (name, context, continuation), those of the continuation as the targets.

    They are what the whole text has beyond the tokens of the context alone. White space at the end
    of a context belongs to the continuation. Without a context the begin-of-text token stands
    before, else the end-of-text token. Raises InputError, with the name, where no token is left.
    """
    moved = []
    for name, context, continuation in pairs:
        bare = context.rstrip()
        moved.append((name, bare, context[len(bare) :] + continuation))
    texts = [text for _, context, more in moved for text in (context, context + more) if context]
    heads = spelled(tokenizer, texts)
    alone = list(dict.fromkeys(more for _, context, more in moved if not context))
    plain = dict(zip(alone, tokenizer.encode_batch(alone, special=False), strict=True))
    found = []
    for name, context, more in moved:
        head = heads[context] if context else []
        rest = heads[context + more][len(head) :] if context else plain[more]
        if not head:
            head = [first_token(tokenizer, name)]
            rest = rest[1:] if rest[:1] == head else rest
        if not rest:
            raise InputError(f"{name}: of {more!r:.60} no token is left; mend or leave it out")
        found.append(Ending(head + rest, len(rest)))
    return found


def spelled(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, list[int]]:
    """The ids of each text, with the special tokens that stand before one, once, and none after."""
    different = list(dict.fromkeys(texts))
    before, after = tokenizer.around
    found = {}
    for text, ids in zip(different, tokenizer.encode_batch(different), strict=True):
        ids = ids[: len(ids) - len(after)]
        twice = before and ids[: 2 * len(before)] == before * 2  # the text spells them itself
        found[text] = ids[len(before) :] if twice else ids
    return found


def first_token(tokenizer: Tokenizer, name: str) -> int:
    """What stands before a text that has no context."""
    first = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    if first is None:
        raise InputError(
            f"{name}: has no context, and the tokenizer no token that begins or ends a text; give "
            "the question a context"
        )
    return first


def kept(ending: Ending, limit: int) -> Ending:
    """The end of what is longer than the model reads, which foretells one token more."""
    return Ending(ending.ids[-limit - 1 :], min(ending.n_targets, limit))


def values(
    questions: Sequence[Question], found: Sequence[Sequence[Foretold]], metrics: Sequence[str]
) -> dict[str, list[float]]:
    """Metric -> 1 for each question whose likeliest choice is right, else 0.

    acc: by the log-probability; acc_norm and acc_bytes: by that over the characters, and over the
    bytes, of the choice. Of equally likely choices the first is taken.
    """
    told: dict[str, list[float]] = {metric: [] for metric in metrics}
    for question, answers in zip(questions, found, strict=True):
        likely = np.array([answer.log_probability for answer in answers])
        sizes: Mapping[str, list[int]] = {
            "acc": [1] * len(answers),
            "acc_norm": [len(choice) for choice in question.choices],
            "acc_bytes": [len(choice.encode()) for choice in question.choices],
        }
        for metric in metrics:
            best = int(np.argmax(likely / np.array(sizes[metric])))
            told[metric].append(float(best == question.answer))
    return told


def last_words(found: Sequence[Sequence[Foretold]]) -> dict[str, list[float]]:
    """Of LAMBADA (Paperno et al. 2016): whether each token of the last word is the likeliest, and
    the word's log-probability."""
    return {
        "acc": [float(one.greedy) for (one,) in found],
        "log_probability": [one.log_probability for (one,) in found],
    }

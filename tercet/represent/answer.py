"""Which stretch of a context answers a question, by the span head: where it begins and ends.

The score of a stretch is the logit of its first token as a beginning and of its last as an end
(Devlin et al. 2019, section 4.2). Where a context has several windows, a stretch counts in the one
where its first token has the most context, so that none is counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tercet.answers import Answer
from tercet.errors import InputError
from tercet.model import Network, batches, flatten
from tercet.represent.texts import TextReader
from tercet.text.windows import ContextWindow, context_windows

LONGEST = 30  # tokens of an answer, as in the published code


def answered(
    reader: TextReader, asked: Sequence[str], contexts: Sequence[str], n_best: int
) -> list[list[Answer]]:
    """Of each question and its context at most ``n_best`` different answers, at least one, best
    first."""
    if type(n_best) is not int or n_best < 1:
        raise InputError(f"n_best {n_best!r} must be a whole number of 1 or more")
    if len(contexts) != len(asked):
        raise InputError(
            f"{len(contexts):,} contexts for {len(asked):,} questions; give one for each, or one "
            "for all"
        )
    windows: list[ContextWindow] = []
    bounds = [0]
    for number, (question, context) in enumerate(zip(asked, contexts), 1):
        name = "the question" if len(asked) == 1 else f"question {number}"
        windows += context_windows(reader.tokenizer, question, context, reader.limit, name=name)
        bounds.append(len(windows))
    scored = stretches(reader.network, windows)
    return [
        _best(context, windows[start:stop], scored[start:stop], n_best)
        for context, start, stop in zip(contexts, bounds, bounds[1:])
    ]


@torch.inference_mode()
def stretches(network: Network, windows: Sequence[ContextWindow]) -> list[Tensor]:
    """The score of each stretch of each window: (first tokens that count, tokens of an answer)."""
    device = network.tokens.weight.device
    read = network.states if network.encoder is None else network.encode
    found: list[Tensor] = [torch.empty(0)] * len(windows)
    two = network.config.token_types > 1
    for rows in batches([len(window.ids) for window in windows]):
        tokens, layout = flatten([windows[i].ids for i in rows], device)
        types = [kind for i in rows for kind in windows[i].types] if two else None
        given = None if types is None else torch.tensor(types, device=device)
        states = read(tokens, layout, types=given)
        logits = network.heads.spans(states).float().cpu()  # (N, 2)
        for i, own in zip(rows, layout.split(logits)):
            found[i] = _scores(own, windows[i])
    return found


def _scores(logits: Tensor, window: ContextWindow) -> Tensor:
    first, last = window.counts.start, window.counts.stop
    ends = logits[first : window.context.stop, 1]
    ends = torch.cat([ends, ends.new_full((LONGEST,), -torch.inf)])
    return logits[first:last, 0, None] + ends.unfold(0, LONGEST, 1)[: last - first]


def _best(
    context: str, windows: Sequence[ContextWindow], scored: Sequence[Tensor], n_best: int
) -> list[Answer]:
    """Of tokens that are parts of one character, several stretches are the same characters."""
    scores = torch.cat(list(scored))  # (first tokens, lengths)
    firsts = [
        (window, place - window.context.start) for window in windows for place in window.counts
    ]
    chances = scores.double().flatten().softmax(0)
    answers: dict[tuple[int, int], Answer] = {}
    for choice in chances.argsort(descending=True, stable=True).tolist():
        if len(answers) == n_best or not chances[choice]:
            break
        (window, first), more = firsts[choice // LONGEST], choice % LONGEST
        start, end = window.characters[first][0], window.characters[first + more][1]
        if (start, end) not in answers:
            answers[start, end] = Answer(context[start:end], start, end, chances[choice].item())
    return list(answers.values())

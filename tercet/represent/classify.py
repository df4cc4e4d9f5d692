"""From texts, or pairs of them, to what a classifier says: batches by tokens, no padding.

Training and use read texts through here, so that what is used is what was learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tercet.answers import Label, Labels, Ranked, Value
from tercet.errors import InputError
from tercet.model import Layout, Network, batches
from tercet.model.evaluating import evaluating
from tercet.text import CutReport, Tokenizer, fit

Text = str | tuple[str, str]  # one text, or a pair
CUTTING = ("keep-start", "keep-end", "middle-out")  # a label is of one window: none slides


class Read(NamedTuple):
    """A text as the network reads it. types: which text of a pair each id belongs to."""

    ids: list[int]
    types: list[int] | None = None


def read(
    tokenizer: Tokenizer, texts: Sequence[Text], limit: int, policy: str, report: CutReport
) -> list[Read]:
    """Each text with its special tokens, cut to ``limit`` tokens as ``policy`` says. Of a pair the
    longer one loses its end first, whatever is kept of single texts."""
    single = [text for text in texts if isinstance(text, str)]
    ids = iter(tokenizer.encode_batch(single))
    special = tokenizer.special_counts
    found = []
    for number, text in enumerate(texts, 1):
        name = "the text" if len(texts) == 1 else f"text {number}"
        if isinstance(text, str):
            (window,) = fit(
                next(ids),
                limit,
                policy,  # type: ignore[arg-type]
                special=special,
                report=report,
                name=name,
                choices=CUTTING,
            )
            found.append(Read(window.ids))
        else:
            found.append(_pair(tokenizer, text, limit, policy, report, name))
    return found


def _pair(
    tokenizer: Tokenizer,
    pair: tuple[str, str],
    limit: int,
    policy: str,
    report: CutReport,
    name: str,
) -> Read:
    ids, types = tokenizer.encode_pair(*pair)
    if len(ids) <= limit:
        report.add(len(ids), 0)
        return Read(ids, types)
    if policy == "error":
        raise InputError(
            f"{name} and its pair have {len(ids):,} tokens and the model takes {limit:,}; shorten "
            "them, or choose another overflow policy: keep-start"
        )
    first, second = (len(tokenizer.encode(text, special=False)) for text in pair)
    before, after = tokenizer.special_counts
    special = len(ids) - first - second
    room = limit - special
    if room < 2:
        raise InputError(f"a limit of {limit} tokens leaves no room for a pair; give {special + 2}")
    kept = max(room - second, min(first, room // 2))  # of the first
    begin, end = before + first, len(ids) - after - second  # the special tokens between them
    rows = [
        *range(before + kept),
        *range(begin, end + room - kept),
        *range(len(ids) - after, len(ids)),
    ]
    report.add(first + second, len(ids) - limit)
    return Read([ids[i] for i in rows], [types[i] for i in rows])


def logits(network: Network, texts: Sequence[Read]) -> Tensor:
    """(B, labels) float32 on the CPU, in the caller's order."""
    return _read_off(network, texts, network.heads.classify, network.config.n_labels)


def features(network: Network, texts: Sequence[Read]) -> Tensor:
    """(B, D) float32 on the CPU, in the caller's order: what the classifier's matrix multiplies."""
    return _read_off(network, texts, network.heads.classified, network.config.d_model)


@torch.inference_mode()
def _read_off(
    network: Network,
    texts: Sequence[Read],
    head: Callable[[Tensor, Layout], Tensor],
    width: int,
) -> Tensor:
    """(B, width) of what a head makes of the states."""
    device = network.tokens.weight.device
    found = torch.empty(len(texts), width)
    with evaluating(network):
        for rows in batches([len(text.ids) for text in texts]):
            states, layout = _states(network, [texts[i] for i in rows], device)
            found[torch.tensor(rows)] = head(states, layout).float().cpu()
    return found


def ranked(texts: list[str], logits: Tensor) -> list[Ranked]:
    """The texts by their logits (B,), the highest first."""
    scores = logits.sigmoid().tolist()
    order = logits.argsort(descending=True, stable=True).tolist()
    return [Ranked(texts[i], scores[i], i) for i in order]


def answers(
    logits: Tensor, names: Sequence[str], problem: str | None, temperature: float
) -> list[Label] | list[Labels] | list[Value]:
    """What logits (B, labels) mean, by what the labels are to a text (Hugging Face's
    problem_type; none said: one label each, or a number where there is one output)."""
    if problem == "regression" or (problem is None and len(names) == 1):
        return [Value(value) for value in logits[:, 0].tolist()]
    if problem == "multi_label_classification":
        rows = (logits / temperature).sigmoid().tolist()
        return [
            Labels([n for n, p in zip(names, row) if p >= 0.5], dict(zip(names, row, strict=True)))
            for row in rows
        ]
    found = []
    for row in (logits / temperature).softmax(-1).tolist():
        best = max(range(len(row)), key=row.__getitem__)
        found.append(Label(names[best], row[best], dict(zip(names, row, strict=True))))
    return found


def _states(network: Network, texts: Sequence[Read], device: torch.device) -> tuple[Tensor, Layout]:
    """The last states (N, D). An encoder-decoder's decoder reads the text too, one token later."""
    layout = Layout([len(text.ids) for text in texts], device=device)
    tokens = torch.tensor([token for text in texts for token in text.ids], device=device)
    types = [kind for text in texts for kind in text.types or [0] * len(text.ids)]
    inputs: dict[str, Any] = {}
    if any(types) and network.config.token_types:
        inputs["types"] = torch.tensor(types, device=device)
    if network.config.family == "encoder-decoder":
        inputs |= {"source": tokens, "source_layout": layout}
        tokens = tokens.roll(1)
        tokens[layout.first] = start_of(network)
    return network.states(tokens, layout, **inputs), layout


def start_of(network: Network) -> int:
    """What an encoder-decoder's decoder reads first."""
    start = network.config.start_id
    if start is None:
        raise InputError("this encoder-decoder's folder names no start token; set start_id")
    return start

"""How well texts answer a query, each read together with it by a cross-encoder (Nogueira and Cho
2019): slower than comparing vectors, and more exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tercet.answers import Ranked
from tercet.model import Network, batches, flatten
from tercet.text import CutReport, Tokenizer
from tercet.text.pairs import TextPair, fitted_pair

GPU_TOKENS, CORE_TOKENS = 16_384, 1_024  # of a batch, as represent.encode has them


def rank(
    network: Network,
    tokenizer: Tokenizer,
    query: str,
    texts: list[str],
    limit: int,
    report: CutReport,
) -> list[Ranked]:
    """The texts, best first; of equals the earlier first. Texts beyond the limit lose their end."""
    pairs = [fitted_pair(tokenizer, query, text, limit, report) for text in texts]
    logits = pair_logits(network, pairs)  # (n,)
    scores = logits.sigmoid().tolist()
    order = logits.argsort(descending=True, stable=True).tolist()
    return [Ranked(texts[i], scores[i], i) for i in order]


@torch.inference_mode()
def pair_logits(network: Network, pairs: Sequence[TextPair]) -> torch.Tensor:
    """(n,) float32, the only label of a network's classifier for each pair."""
    network.eval()
    device = network.tokens.weight.device
    budget = CORE_TOKENS * torch.get_num_threads() if device.type == "cpu" else GPU_TOKENS
    found = torch.empty(len(pairs))
    for rows in batches([len(pair.ids) for pair in pairs], budget):
        tokens, layout = flatten([pairs[i].ids for i in rows], device)
        types = None
        if network.config.token_types > 1:
            types = torch.tensor([t for i in rows for t in pairs[i].types], device=device)
        states = network.states(tokens, layout, types=types)
        logits = network.heads.classify(states, layout)  # (b, 1)
        found[torch.tensor(rows)] = logits[:, 0].float().cpu()
    return found

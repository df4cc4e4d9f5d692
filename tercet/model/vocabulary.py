"""New tokens for a network that has learned without them. Knows no tokenizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tercet.model import Network

SPREAD = 0.01  # of the known rows' standard deviation


@torch.no_grad()
def add_tokens(network: Network, known: int, size: int, seed: int = 0) -> None:
    """Rows of table and output layer for the tokens ``known`` to ``size``; those that a rounded-up
    table has for them already begin anew, since nothing has taught them.

    Each begins with the mean of the known rows. As an output row it then has a logit no higher than
    the known ones' logarithm of the mean of exponentials, so all of them together take at most
    their share of the probability and what the model says of old tokens hardly changes (Hewitt
    2021); a random row may take all. A hundredth of the rows' spread is added, drawn from ``seed``,
    since two equal rows could not be told apart.
    """
    config = network.config
    rows = max(size, config.vocab_size)
    output = network.heads.output
    network.tokens.weight = nn.Parameter(_more(network.tokens.weight, known, size, rows, seed))
    network.tokens.num_embeddings = rows
    if output is not None and not config.tie_embeddings:
        output.weight = nn.Parameter(_more(output.weight, known, size, rows, seed + 1))
    if output is not None:
        output.out_features = rows
    if (bias := network.heads.output_bias) is not None:
        more = _more(bias[:, None], known, size, rows, seed + 2)
        network.heads.output_bias = nn.Parameter(more[:, 0])
    network.config = config.replace(vocab_size=rows)
    network.tie()


def _more(table: Tensor, known: int, size: int, rows: int, seed: int) -> Tensor:
    """(rows, D) from (V, D)."""
    found = table[:known].float()
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(size - known, table.shape[1], generator=draw).to(table.device)
    new = found.mean(0) + SPREAD * noise * found.std(0)
    whole = torch.cat([table, table.new_zeros(rows - len(table), table.shape[1])])
    whole[known:size] = new.to(whole)
    return whole

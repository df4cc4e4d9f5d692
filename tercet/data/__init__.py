"""From token ids to batches over the flat stream. Knows neither the network nor the optimizer."""

from tercet.data.batches import Batch, CausalText, MaskedText, Masking, Pairs, Rows
from tercet.data.order import keyed, sample_order

__all__ = ["Batch", "CausalText", "MaskedText", "Masking", "Pairs", "Rows", "keyed", "sample_order"]

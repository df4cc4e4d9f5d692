"""From token ids to batches over the flat stream. Knows neither the network nor the optimizer."""

from tercet.data.answered import Answers, Choices, Talks
from tercet.data.draw import Draw, Mixture, Pieces, Rows, Sample, SentencePairs, TextPairs
from tercet.data.masking import Masking
from tercet.data.order import keyed, sample_order
from tercet.data.shape import Batch, Causal, Masked, Shape, Spans, Translation
from tercet.data.shards import Tokens
from tercet.data.stream import Stream

__all__ = [
    "Answers",
    "Batch",
    "Causal",
    "Choices",
    "Draw",
    "Masked",
    "Masking",
    "Mixture",
    "Pieces",
    "Rows",
    "Sample",
    "SentencePairs",
    "Shape",
    "Spans",
    "Stream",
    "Talks",
    "TextPairs",
    "Tokens",
    "Translation",
    "keyed",
    "sample_order",
]

"""Writing: greedy and sampled generation, streaming and beam search over the one cached forward."""

from tercet.generate.engine import Finished, generate, stream
from tercet.generate.grammar import Grammar
from tercet.generate.sampling import Sampling, TokenRules
from tercet.generate.search import Beam, beam_search

__all__ = [
    "Beam",
    "Finished",
    "Grammar",
    "Sampling",
    "TokenRules",
    "beam_search",
    "generate",
    "stream",
]

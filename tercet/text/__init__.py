"""Text in and out of the models: tokenizers, reading files, and what becomes of long texts."""

from tercet.text.overflow import POLICIES, CutReport, Overflow, Window, fit
from tercet.text.passages import Passages
from tercet.text.read import blocks, lines
from tercet.text.special import SPECIAL, Special
from tercet.text.streamer import Streamer
from tercet.text.tokenizer import Tokenizer
from tercet.text.train import train_tokenizer

__all__ = [
    "POLICIES",
    "SPECIAL",
    "CutReport",
    "Overflow",
    "Passages",
    "Special",
    "Streamer",
    "Tokenizer",
    "Window",
    "blocks",
    "fit",
    "lines",
    "train_tokenizer",
]

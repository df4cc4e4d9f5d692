"""All that knows Hugging Face's spelling: folders in and out, and names of the hub."""

from tercet.hf.adapters import base_of, is_adapter
from tercet.hf.configs import OURS
from tercet.hf.embedding import EmbeddingSettings
from tercet.hf.extras import Extras
from tercet.hf.hub import find, find_settings
from tercet.hf.reading import config_of, library_of, load
from tercet.hf.writing import row_for, save, save_adapter

__all__ = [
    "OURS",
    "EmbeddingSettings",
    "Extras",
    "base_of",
    "config_of",
    "find",
    "find_settings",
    "is_adapter",
    "library_of",
    "load",
    "row_for",
    "save",
    "save_adapter",
]

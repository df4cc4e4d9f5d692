"""All that knows Hugging Face's spelling: folders in and out, and names of the hub."""

from tercet.hf.convert import config_of, load, row_for, save
from tercet.hf.embedding import EmbeddingSettings
from tercet.hf.extras import Extras
from tercet.hf.hub import find, find_settings

__all__ = [
    "EmbeddingSettings",
    "Extras",
    "config_of",
    "find",
    "find_settings",
    "load",
    "row_for",
    "save",
]

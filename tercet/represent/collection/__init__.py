"""Texts on disk that can be found by meaning and by words."""

from tercet.represent.collection.collection import Collection
from tercet.represent.collection.items import Added, Item
from tercet.represent.collection.search import Hit

__all__ = ["Added", "Collection", "Hit", "Item"]

"""Texts as a collection: indexed, searched, put into topics."""

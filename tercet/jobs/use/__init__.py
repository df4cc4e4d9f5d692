"""A model in use, a verb a file."""

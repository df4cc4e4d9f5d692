"""The verbs `evaluate ...` and `compare`."""

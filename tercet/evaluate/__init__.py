"""What a model is worth: perplexity, classification, probes, similarity, translation, n-grams to
beat. A module loads when it is asked for."""

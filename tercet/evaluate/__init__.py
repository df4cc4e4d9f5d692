"""What a model is worth: perplexity, multiple choice, classification, probes, similarity,
translation, n-grams to beat. A module loads when it is asked for."""

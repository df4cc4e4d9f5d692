"""One Transformer for the three families: encoder, decoder, encoder-decoder."""

"""Times of words and segments: alignment heads, cross-attention, time warping, derivation and measurement."""

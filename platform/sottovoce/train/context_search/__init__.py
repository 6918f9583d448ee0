"""Search of the right audio context: what trimming costs, and what it brings."""

"""Checkpoints that can be trusted: copied at once, written behind, whole or not there, verified when read."""

"""Checkpoint to served variants, each scored before it may serve."""

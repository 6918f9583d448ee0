"""Text normalization and scoring."""

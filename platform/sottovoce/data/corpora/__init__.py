"""Readers of corpora: one file per layout, all returning the same rows."""

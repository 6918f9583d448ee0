"""Corpora as their authors wrote them: one file per layout, all giving the same rows."""

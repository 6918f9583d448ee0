"""Synthetic speech, the embedded base model, and the quickstart's parts."""

"""Scores that say where a model errs, and whether one model is better than another."""

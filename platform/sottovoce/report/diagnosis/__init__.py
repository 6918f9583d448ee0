"""Diagnosis of a run from its metrics: what went wrong, and which setting to change."""

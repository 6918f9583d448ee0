"""The report on a training run: its curves, its diagnosis and its settings."""

"""A run's report.html: its curves, what they say, and what it was made of."""

from sottovoce.train.report.page import write_report

__all__ = ["write_report"]

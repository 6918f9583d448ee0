"""What is in a prepared corpus, for people (report.html) and programs (report.json)."""

from sottovoce.data.report.page import write_report

__all__ = ["write_report"]

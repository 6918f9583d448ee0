"""The report on a prepared corpus: report.html for people, report.json for programs."""

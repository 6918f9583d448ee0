"""The quickstart's report: one HTML page that needs nothing beside it."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sottovoce.demo.ask import Answer
from sottovoce.demo.quickstart_result import QuickstartResult, show_result, write_result
from sottovoce.page.template import load_template
from sottovoce.train.report.plots import Marks, draw_error_rates, draw_losses


def publish_result(result: QuickstartResult, answers: Sequence[Answer], output: Path) -> None:
    """Write ``result.json`` and the report, and print the tables."""
    write_result(result, output)
    write_report(result, answers, Path(result.report))
    show_result(result, answers, console=Console())


def write_report(result: QuickstartResult, answers: Sequence[Answer], path: Path) -> None:
    """Write loss and WER curves, the table of variants, and references beside transcripts."""
    page = load_template("report.html.j2", package="sottovoce.demo", folder="assets").render(
        result=result,
        answers=answers,
        panels=(draw_losses(result.rows, (), Marks()), draw_error_rates(result.rows, Marks())),
    )
    path.write_text(page, encoding="utf-8")

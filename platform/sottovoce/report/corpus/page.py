"""Write the report on a prepared corpus: ``report.html`` for people, ``report.json`` for programs."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from sottovoce.data.prepare import PreparedData
from sottovoce.report.corpus.contents import Histogram, Report
from sottovoce.report.corpus.findings import find_all
from sottovoce.report.corpus.listening import AudibleExample, choose_examples, load_examples
from sottovoce.report.template import load_template

logger = logging.getLogger(__name__)

_NUM_SHOWN = 10  # rows of a table on the page; report.json lists more


def write_report(data: PreparedData, folder: Path) -> tuple[str, ...]:
    """Write ``report.html`` and ``report.json``.

    The page is self-contained, ten recordings included, and runs no script.

    Args:
        data: a corpus after every row was checked.
        folder: receives both files.

    Returns:
        Warnings to read before training on this data, which are also logged: ``name: sentence``, one for each kind of
        finding.
    """
    started = time.monotonic()
    report = find_all(data)
    examples, notes = load_examples(choose_examples(data.utterances))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(render_page(report, examples, notes), encoding="utf-8")
    logger.info(
        "reported on %d utterances with %d warnings and %d examples in %.1f s",
        report.num_utterances,
        len(report.warnings),
        len(examples),
        time.monotonic() - started,
    )
    warnings = tuple(f"{warning.name}: {warning.sentence}" for warning in report.warnings)
    for warning in warnings:
        logger.warning("%s", warning)
    return warnings


def render_page(report: Report, examples: Sequence[AudibleExample], notes: Sequence[str]) -> str:
    """Render the page; all texts from the corpus are escaped."""
    # Imported here: Ray workers that check rows import this package without plots.
    from sottovoce.report.corpus.plots import draw_histogram

    def draw(histogram: Histogram | None, xlabel: str, ylabel: str) -> str:
        return "" if histogram is None else draw_histogram(histogram, xlabel=xlabel, ylabel=ylabel)

    template = load_template("page.html.j2", package="sottovoce.report", folder="corpus")
    return template.render(report=report, examples=examples, notes=notes, draw=draw, shown=_NUM_SHOWN)

"""Write a run's report: one page that needs nothing beside it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sottovoce.atomic_write import atomic_write
from sottovoce.report.diagnosis.diagnose import diagnose
from sottovoce.report.diagnosis.finding import Finding
from sottovoce.report.diagnosis.groups import compare_groups
from sottovoce.report.template import load_template
from sottovoce.train.config import TrainingConfig, flatten
from sottovoce.train.metrics.curves import CURVES_FILE, CurvePoint, read_curves
from sottovoce.train.record import TrainingRecord, read_run

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Setting:
    """One setting of the run as the page shows it."""

    name: str
    value: str
    is_default: bool


def write_report(
    record: TrainingRecord, curves: Sequence[CurvePoint], findings: Sequence[Finding], *, folder: Path
) -> None:
    """Write ``report.html``; replaced at once, so that who looks at it meets a whole page.

    Args:
        record: of the run, or what there is of it so far.
        curves: the points that were logged; with none, the page has what the evaluations show.
        findings: what ``diagnose`` said about both.
        folder: of the run, whose name is the run's.
    """
    path = folder / REPORT_FILE
    atomic_write(path, render_page(record, curves, findings, name=folder.resolve().name))
    logger.info("report with %d findings in %s", len(findings), path)


def report_run(folder: Path) -> tuple[Finding, ...]:
    """Write the report of a run that has finished, still runs or was interrupted.

    Args:
        folder: the run's output.

    Raises:
        ConfigError: no run is kept there.
        NoGoodCheckpointError: an unfinished run whose checkpoints are all damaged.
        StorageError: the storage of its checkpoints does not answer.
    """
    record, curves = read_run(folder), read_curves(folder / CURVES_FILE)
    findings = diagnose(record, curves)
    write_report(record, curves, findings, folder=folder)
    return findings


def render_page(record: TrainingRecord, curves: Sequence[CurvePoint], findings: Sequence[Finding], *, name: str) -> str:
    """Give the page; all names are escaped."""
    # Imported here: training workers import what is beside this file, and draw nothing.
    from sottovoce.report.run.plots import Marks, draw_error_rates, draw_figures, draw_losses

    panels = []
    if record.rows:
        marks = Marks(kept=record.best_step if len(record.rows) > 1 else None, resumed=record.resumed_at)
        panels = [
            draw_error_rates(record.rows, marks),
            draw_losses(record.rows, curves, marks),
            *draw_figures(curves, marks, max_grad_norm=record.training.max_grad_norm),
        ]
    template = load_template("page.html.j2", package="sottovoce.report", folder="run")
    return template.render(
        name=name,
        record=record,
        findings=findings,
        panels=panels,
        has_curves=bool(curves),
        groups=compare_groups(record) if record.rows else [],
        settings=list_settings(record.training),
    )


def list_settings(training: TrainingConfig) -> list[Setting]:
    """List all settings by name, each with whether it is the default."""
    defaults = dict(flatten(TrainingConfig().model_dump(mode="json")))
    return [
        Setting(name, _describe(value), is_default=name in defaults and defaults[name] == value)
        for name, value in flatten(training.model_dump(mode="json"))
    ]


def _describe(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_describe, value)) or "none"
    return str(value)

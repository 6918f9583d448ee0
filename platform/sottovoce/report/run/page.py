"""Write the report of a training run: one self-contained page."""

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
    """One setting of the run, formatted for the page."""

    name: str
    value: str
    is_default: bool


def write_report(
    record: TrainingRecord, curves: Sequence[CurvePoint], findings: Sequence[Finding], *, folder: Path
) -> None:
    """Write ``report.html`` atomically, so that a reader never sees half a page.

    Args:
        record: of the run, finished or not.
        curves: the logged points. Without them the page shows the evaluations only.
        findings: the result of ``diagnose``.
        folder: the run's folder, which names the run.
    """
    path = folder / REPORT_FILE
    atomic_write(path, render_page(record, curves, findings, name=folder.resolve().name))
    logger.info("report with %d findings in %s", len(findings), path)


def report_run(folder: Path) -> tuple[Finding, ...]:
    """Write the report of a run that has finished, is running or was interrupted.

    Args:
        folder: the run's output.

    Raises:
        ConfigError: no run is stored there.
        NoGoodCheckpointError: an unfinished run whose checkpoints are all damaged.
        StorageError: the storage of its checkpoints does not answer.
    """
    record, curves = read_run(folder), read_curves(folder / CURVES_FILE)
    findings = diagnose(record, curves)
    write_report(record, curves, findings, folder=folder)
    return findings


def render_page(record: TrainingRecord, curves: Sequence[CurvePoint], findings: Sequence[Finding], *, name: str) -> str:
    """Render the page; all names are escaped."""
    # Imported here: training workers import this package without drawing.
    from sottovoce.report.run.plots import Marks, draw_error_rates, draw_losses, draw_metrics

    panels = []
    if record.rows:
        marks = Marks(kept=record.best_step if len(record.rows) > 1 else None, resumed=record.resumed_at)
        panels = [
            draw_error_rates(record.rows, marks),
            draw_losses(record.rows, curves, marks),
            *draw_metrics(curves, marks, max_grad_norm=record.training.max_grad_norm),
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

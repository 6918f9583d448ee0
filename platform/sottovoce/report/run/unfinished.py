"""A run's record before its end: what was known at its start, and what its last checkpoint says."""

import logging
from pathlib import Path

from pydantic import ValidationError

from sottovoce.atomic_write import write_whole
from sottovoce.checkpoints.saver import build_store
from sottovoce.checkpoints.state import STATE_FILE, read_run_state
from sottovoce.errors import ConfigError
from sottovoce.report.diagnosis.diagnose import diagnose
from sottovoce.report.diagnosis.finding import Finding
from sottovoce.report.run.page import write_report
from sottovoce.train.metrics.curves import CURVES_FILE, read_curves
from sottovoce.train.record import RECORD_FILE, RunState, TrainingRecord, add_state

logger = logging.getLogger(__name__)

STARTED_FILE = "started.json"
"""The record as it is before the first step."""


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


def write_started(record: TrainingRecord, folder: Path) -> None:
    """Keep what is known of a run at its start."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / STARTED_FILE, record.model_dump_json(indent=2) + "\n")


def read_run(folder: Path) -> TrainingRecord:
    """Read the record of a run, or of as much as there is of it.

    Raises:
        ConfigError: no run is kept there, or another release's.
        NoGoodCheckpointError: an unfinished run whose checkpoints are all damaged.
        StorageError: the storage of its checkpoints does not answer.
    """
    for name in (RECORD_FILE, STARTED_FILE):
        path = folder / name
        if path.is_file():
            try:
                record = TrainingRecord.model_validate_json(path.read_text(encoding="utf-8"))
            except ValidationError as error:
                raise ConfigError(f"{path} cannot be read; was it written by another release? {error}") from error
            return record if name == RECORD_FILE else _add_last_state(record, folder)
    raise ConfigError(f"{folder} holds no run: neither {RECORD_FILE} nor {STARTED_FILE}; name a run's output folder")


def _add_last_state(started: TrainingRecord, folder: Path) -> TrainingRecord:
    store = build_store(started.training.checkpoints, output=folder.resolve())
    with store.latest(under=STATE_FILE) as last:
        state = RunState() if last is None else read_run_state(last.folder)
    best_step = min(state.rows, key=lambda row: row.wer).step if state.rows else 0
    return add_state(started, state, best_step=best_step)

"""Check whether a run was slowed down or lost data: data wait, skipped steps, loss scale, rejects."""

from collections.abc import Sequence

import numpy as np

from sottovoce.report.diagnosis.finding import Finding, SettingChange, change, series_of, slower
from sottovoce.report.template import format_percent
from sottovoce.train.metrics.curves import CurvePoint
from sottovoce.train.record import REJECTS_FILE, DataSummary, TrainingRecord

_DATA_WAIT = 0.05  # Sottovoce's own bar
_LONG_DATA_WAIT = 0.2  # guess
_SKIPPED_SHARE = 0.01  # guess, of the steps
_SCALER_SKIPS = 8  # guess: torch's scaler starts at 65 536 and halves at each skipped step until gradients fit
_LOST_SCALE = 1.0  # guess: below it the scaler shrinks gradients, which it should prevent
_MANY_REJECTS = 0.01  # the default bound of our jobs
_NUM_NAMED = 3
_ENOUGH_POINTS = 2  # the first contains the start of the stream


def find_data_wait(record: TrainingRecord, curves: Sequence[CurvePoint]) -> Finding | None:
    """Check whether the steps waited for data after the start of the stream."""
    wait, later = record.data_wait, _wait_after_start(curves)
    if wait <= _DATA_WAIT or (later is not None and later <= _DATA_WAIT):
        return None
    return Finding(
        name="data_wait",
        severity="warning" if wait > _LONG_DATA_WAIT else "note",
        seen=f"Workers waited for decoded audio during {format_percent(wait)} of the steps' time "
        f"({record.data_wait_s:.0f} of {record.step_s:.0f} s).",
        advice="Decode more at a time, on more CPU cores or additional nodes. Lighter augmentation and audio stored "
        "near the workers help, too.",
        changes=_decode_more(record.data),
    )


def _wait_after_start(curves: Sequence[CurvePoint]) -> float | None:
    """Return the waited share of the steps' time after the first point; None if it is unknown."""
    waits, paces = series_of(curves, "train/data_wait"), series_of(curves, "train/steps_per_s")
    if len(waits) < _ENOUGH_POINTS:
        return None
    seconds = np.ones(len(waits) - 1)
    if np.array_equal(waits.steps, paces.steps):
        seconds = np.diff(waits.steps) / np.maximum(paces.values[1:], 1e-9)  # an interval that waits takes longer
    return float(np.average(waits.values[1:], weights=seconds))


def _decode_more(data: DataSummary) -> tuple[SettingChange, ...]:
    """Propose twice the run's values; nothing if its record does not have them."""
    settings = (("data.tasks_per_worker", data.tasks_per_worker), ("data.prefetch_batches", data.prefetch_batches))
    return tuple(
        SettingChange(name=name, value=max(1, 2 * had), before=had) for name, had in settings if had is not None
    )


def find_skipped_steps(record: TrainingRecord, curves: Sequence[CurvePoint]) -> Finding | None:
    """Check whether more steps without finite loss or gradient were skipped than the scaler's start explains."""
    skipped = series_of(curves, "train/skipped_steps")
    total = max(record.skipped_steps, *map(int, skipped.values[-1:]), 0)
    if total <= _SKIPPED_SHARE * record.num_steps + (_SCALER_SKIPS if record.precision == "fp16" else 0):
        return None
    first = skipped.steps[skipped.values > 0]
    when = f", the first by step {first[0]}" if len(first) else ""
    precision = (change(record, "precision", "bf16"),) if record.precision == "fp16" else ()
    return Finding(
        name="steps_skipped",
        severity="warning",
        seen=f"{total} of {record.num_steps} steps were skipped because a loss or gradient was not finite{when}.",
        advice="Lower the learning rate" + (", or use bf16 if the hardware supports it." if precision else "."),
        changes=(slower(record, 2.0), *precision),
    )


def find_lost_loss_scale(record: TrainingRecord, curves: Sequence[CurvePoint]) -> Finding | None:
    """Check whether fp16's loss scale fell so far that small gradients are lost."""
    scale = series_of(curves, "train/loss_scale")
    if record.precision != "fp16" or not len(scale) or scale.values[-1] >= _LOST_SCALE:
        return None
    return Finding(
        name="loss_scale_collapsed",
        severity="serious",
        seen=f"The loss scale fell from {scale.values.max():g} to {scale.values[-1]:g} at step {scale.steps[-1]}: "
        "gradients keep overflowing in fp16.",
        advice="Use bf16 if the hardware supports it, or lower the learning rate.",
        changes=(change(record, "precision", "bf16"), slower(record, 2.0)),
    )


def find_unusual_settings(record: TrainingRecord) -> Finding | None:
    """Repeat the warnings given at the start about settings far from the values known to work."""
    if not record.warnings:
        return None
    return Finding(
        name="unusual_settings",
        severity="note",
        seen=" ".join(f"{warning[:1].upper()}{warning[1:].rstrip('.')}." for warning in record.warnings),
        advice="If the run went well, keep them; otherwise start a new run with values known to work.",
    )


def find_rejects(record: TrainingRecord) -> Finding | None:
    """Report the recordings that were left out."""
    rejects = record.data.rejects
    total = sum(rejects.values())
    if not total:
        return None
    share = total / (total + record.data.num_train + record.data.num_validation)
    reasons = sorted(rejects.items(), key=lambda reason: (-reason[1], reason[0]))
    named = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in reasons[:_NUM_NAMED])
    return Finding(
        name="rejects",
        severity="warning" if share > _MANY_REJECTS else "note",
        seen=f"{total} recordings ({format_percent(share)}) were left out: {named}"
        f"{', and others' if len(reasons) > _NUM_NAMED else ''}.",
        advice="The manifest's rejects.jsonl and report.html list those that preparation left out, with reasons; "
        f"{REJECTS_FILE} in the run's folder lists those that training left out.",
    )

"""Check the evaluations of a run: whether training helped, when it stopped helping, and how certain that is."""

import math

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.report.diagnosis.finding import Finding, SettingChange, change, gentler_method, slower
from sottovoce.report.template import format_percent
from sottovoce.train.record import TrainingRecord, decide

NOTABLE_WER = 0.005  # half a point: a loss of accuracy by Sottovoce's own gates
_LOSS_RISE = 0.05  # guess, of the lowest validation loss, and
_LOSS_RISE_NATS = 0.03  # at least this much: in our run on spoken digits, losses near 0.03 moved by 0.018 by chance
_WER_RISE = 0.05  # guess, of the lowest WER
_PLATEAU = 0.02  # guess: WERs within this fraction of the lowest count as equal
_PLATEAU_ROWS = 3  # guess: a usual patience
_PLATEAU_SHARE = 0.25  # guess, of the steps
_LATE_SHARE = 0.25  # guess: the last part of the run, in which gains count as late
_LATE_GAIN = 0.05  # guess, relative to the WER before
_PATIENCE = 3  # guess: about a third of the evaluations of a run
_MAX_FACTOR = 100.0  # above it "more than a hundred times" is enough
_MAX_VALIDATION_FRACTION = 0.3  # guess: more would cost training too much


def find_no_gain(record: TrainingRecord) -> Finding | None:
    """Check whether no evaluation was better than the base model's."""
    later = record.rows[1:]
    if record.best_step != 0 or not later:
        return None
    lowest = min(later, key=lambda row: row.error_rate)
    return Finding(
        name="worse_than_the_base",
        severity="serious" if record.is_finished else "warning",
        seen=f"The base model's {record.best.rate_name} of {format_percent(record.baseline.error_rate)} "
        "was never beaten: the lowest since is "
        f"{format_percent(lowest.error_rate)} at step {lowest.step}. The run keeps the base model.",
        advice="Lower the learning rate or train fewer weights. If the losses fell nevertheless, compare the style of "
        "the transcripts (case, numbers, punctuation) with the base model's output, and check their language.",
        changes=(slower(record, 5.0), *gentler_method(record)),
    )


def find_rising_loss(record: TrainingRecord) -> Finding | None:
    """Check whether the validation loss rose while WER still fell, as in published fine-tunes."""
    measured = [row for row in record.rows if math.isfinite(row.validation_loss)]
    best = record.best
    if not measured or not math.isfinite(best.validation_loss):
        return None
    lowest = min(measured, key=lambda row: row.validation_loss)
    rise = best.validation_loss - lowest.validation_loss
    if best.step <= lowest.step or best.error_rate >= lowest.error_rate:
        return None
    if rise < max(_LOSS_RISE_NATS, _LOSS_RISE * lowest.validation_loss):
        return None
    masks = max(2, 2 * record.training.spec_augment.num_time_masks)
    percent = f"{100 * rise / max(lowest.validation_loss, 1e-9):.0f} %"
    return Finding(
        name="validation_loss_rises",
        severity="note",
        seen=f"The validation loss was lowest at step {lowest.step} ({lowest.validation_loss:.3f}) and {percent} "
        f"higher at step {best.step} ({best.validation_loss:.3f}), while {best.rate_name} still fell from "
        f"{format_percent(lowest.error_rate)} to {format_percent(best.error_rate)}: the model over-fits and grows more "
        "confident in its mistakes.",
        advice="The checkpoint with the lowest WER was kept, and should be. For a better one let patience end the run, "
        "lower the learning rate, or add speech or augmentation.",
        changes=(*_patience(record), slower(record, 2.0), change(record, "spec_augment.num_time_masks", masks)),
    )


def find_rising_wer(record: TrainingRecord) -> Finding | None:
    """Check whether WER rose again while the training loss still fell, which is over-fitting."""
    best, last = record.best, record.rows[-1]
    later = [row for row in record.rows if row.step > best.step]
    if best.training_loss is None or last.training_loss is None or len(later) < 2:
        return None
    rise = last.error_rate - best.error_rate
    if rise < max(NOTABLE_WER, _WER_RISE * best.error_rate) or last.training_loss > best.training_loss:
        return None
    return Finding(
        name="wer_rises",
        severity="warning",
        seen=f"{best.rate_name} rose from {format_percent(best.error_rate)} at step {best.step} to "
        f"{format_percent(last.error_rate)} at step {last.step}, while the training loss fell "
        f"from {best.training_loss:.3f} to {last.training_loss:.3f}: the "
        "model memorizes the training speech.",
        advice="The checkpoint with the lowest WER was kept. Stop earlier, lower the learning rate, train fewer "
        "weights, or add speech or augmentation.",
        changes=(*_patience(record), _shorter(record, best), slower(record, 2.0), *gentler_method(record)),
    )


def find_plateau(record: TrainingRecord) -> Finding | None:
    """Check whether WER stopped falling, and since which step."""
    best, last = record.best, record.rows[-1]
    tolerance = _PLATEAU * best.error_rate
    start = next(row for row in record.rows if row.error_rate <= best.error_rate + tolerance)
    since = [row for row in record.rows if row.step > start.step]
    if not start.step or len(since) < _PLATEAU_ROWS or last.step - start.step < _PLATEAU_SHARE * last.step:
        return None
    has_stopped = decide(record.rows, patience=record.training.patience).stops
    return Finding(
        name="wer_stopped_falling",
        severity="note",
        seen=f"{best.rate_name} has not fallen since step {start.step}, where it was "
        f"{format_percent(start.error_rate)}: "
        f"{format_percent(best.error_rate)} at its lowest (step {best.step}), "
        f"{format_percent(last.error_rate)} at step {last.step}. "
        f"The {last.step - start.step} steps since took {_minutes(last.seconds - start.seconds)}.",
        advice="Patience ended the run, as configured." if has_stopped else "Stop earlier, or let patience do so.",
        changes=() if has_stopped else (*_patience(record), _shorter(record, start)),
    )


def find_still_improving(record: TrainingRecord) -> Finding | None:
    """Check whether a run ended while WER was still falling."""
    last = record.rows[-1]
    if not record.is_finished or record.best_step != last.step or len(record.rows) < 3:
        return None
    before = [row for row in record.rows if row.step <= (1 - _LATE_SHARE) * last.step][-1]
    gain = 1 - last.error_rate / max(before.error_rate, 1e-9)
    if gain < _LATE_GAIN or before.step == 0:
        return None
    return Finding(
        name="still_improving",
        severity="note",
        seen=f"The last evaluation is the best: {last.rate_name} fell from {format_percent(before.error_rate)} "
        f"at step {before.step} to "
        f"{format_percent(last.error_rate)} at step {last.step}, the end of the run.",
        advice="Train longer; with patience the run ends by itself.",
        changes=(_longer(record), *_patience(record)),
    )


def find_uncertain_gain(record: TrainingRecord) -> Finding | None:
    """Check whether the 95 % intervals of the base model and the best checkpoint overlap."""
    baseline, best = record.baseline, record.best
    gap = baseline.error_rate - best.error_rate
    (low, _), (_, high) = baseline.error_interval, best.error_interval
    if gap <= 0 or high < low:
        return None
    # intervals shrink with the square root of the number of utterances
    factor = (((baseline.error_rate - low) + (high - best.error_rate)) / gap) ** 2
    times = f"about {factor:.1f}" if factor <= _MAX_FACTOR else "more than a hundred"
    data = record.data
    fraction = data.num_validation / max(1, data.num_validation + data.num_train)
    wanted = round(min(_MAX_VALIDATION_FRACTION, fraction * factor), 2)
    return Finding(
        name="gain_uncertain",
        severity="warning",
        seen=f"{best.rate_name} fell from {_interval(baseline)} to {_interval(best)}, and these 95 % intervals "
        f"overlap: on {data.num_validation} validation utterances the gain may be chance.",
        advice=f"Measure on more: with {times} times as many validation utterances such a gain would be certain.",
        changes=(SettingChange(name="prepare.validation_fraction", value=wanted, before=round(fraction, 2)),)
        if wanted > fraction
        else (),
    )


def find_few_evaluations(record: TrainingRecord) -> Finding | None:
    """Check whether a run was evaluated too rarely for its curves to be informative."""
    last = record.rows[-1]
    wanted = max(1, last.step // 10)
    if not record.is_finished or not 2 <= len(record.rows) <= 3 or wanted >= record.training.evaluate_every_steps:
        return None
    return Finding(
        name="few_evaluations",
        severity="note",
        seen=f"{last.step} steps were evaluated {len(record.rows) - 1} times: the best checkpoint may lie "
        "between, and over-fitting cannot be seen.",
        advice="Evaluate about ten times per run.",
        changes=(change(record, "evaluate_every_steps", wanted),),
    )


def _patience(record: TrainingRecord) -> tuple[SettingChange, ...]:
    patience = record.training.patience
    return () if patience is not None and patience <= _PATIENCE else (change(record, "patience", _PATIENCE),)


def _shorter(record: TrainingRecord, end: EvaluationRow) -> SettingChange:
    if record.training.max_steps is not None:
        return change(record, "max_steps", end.step)
    return change(record, "num_epochs", max(1, math.ceil(end.epoch)))


def _longer(record: TrainingRecord) -> SettingChange:
    name = "num_epochs" if record.training.max_steps is None else "max_steps"
    return change(record, name, math.ceil(1.5 * (record.training.max_steps or record.training.num_epochs)))


def _interval(row: EvaluationRow) -> str:
    low, high = row.error_interval
    return f"{format_percent(row.error_rate)} ({100 * low:.1f} to {100 * high:.1f})"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"

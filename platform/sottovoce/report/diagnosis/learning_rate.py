"""Check whether the learning rate and its warm-up fitted the run."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from sottovoce.report.diagnosis.finding import Finding, Series, change, known_rate, series_of, slower
from sottovoce.report.template import format_percent
from sottovoce.train.methods import round_rate
from sottovoce.train.metrics.curves import CurvePoint
from sottovoce.train.record import TrainingRecord

_EARLY_WER = 1.2  # guess: times the base model's, and
_EARLY_POINTS = 0.02  # guess: this much more as well, for bases with few errors
_LOSS_RISE = 1.3  # guess: times the lowest, of medians over sixths of the run
_SPIKE = 2.0  # guess: times the median of the points before, and
_SPIKE_LOSS = 0.1  # guess: this many nats more as well, because small losses double by chance
_BEFORE_SPIKE = 5  # points
_NUM_SPIKES = 2  # guess: a single one may be a bad batch
_GRADIENT_GROWTH = 3.0  # guess: of medians, from the quarter after the warm-up to the last
_CLIPPED_SHARE = 0.9  # guess; harmless by itself, because Adam ignores the scale of a gradient
_MIN_POINTS = 12  # guess: fewer points do not separate a trend from noise
_BUMP = 1.3  # guess: times the lowest loss before it
_EARLY_SHARE = 0.2  # guess: a bump after a fifth of the run does not come from the warm-up
_WARMUP_SHARE = 0.06  # 50 of 800 steps: a published fine-tune of large-v3 on a throat microphone
_LITTLE_FALL = 0.9  # guess: the training loss at the end over that of the first evaluation
_LITTLE_GAIN = 0.1  # guess, of the base model's WER


def find_rate_too_high(record: TrainingRecord, curves: Sequence[CurvePoint]) -> Finding | None:
    """Check whether losses, gradients or an early evaluation show that the steps were too large."""
    losses = series_of(curves, "train/loss").after(early_end(record))
    broken = [*_early_damage(record), *_lost_loss(record), *_loss_rise(record, losses)]
    unsteady = [*_spikes(losses), *_gradient_growth(record, curves)]
    if not broken and not unsteady:
        return None
    signs, known = [*broken, *unsteady, *_clipping(record, curves)], known_rate(record)
    usual = "" if known is None else f" Known to work for a model of this size: about {known:.3g}."
    return Finding(
        name="learning_rate_too_high",
        severity="serious" if broken else "warning",
        seen=f"At a learning rate of {record.training.peak_lr:g} {'; '.join(signs)}.{usual}",
        advice="Lower the learning rate. If that does not help, look at the utterances with the highest loss: wrong "
        "transcripts have the same effect.",
        changes=(slower(record, 5.0 if broken else 2.0),),
    )


def find_rate_too_low(record: TrainingRecord) -> Finding | None:
    """Check whether neither the training loss nor WER fell by much in a whole run."""
    losses = [row.training_loss for row in record.rows if row.training_loss is not None]
    if not record.is_finished or len(losses) < 2 or not losses[-1] <= losses[0]:
        return None
    gain = 1 - record.best.error_rate / max(record.baseline.error_rate, 1e-9)
    if losses[-1] < _LITTLE_FALL * losses[0] or gain >= _LITTLE_GAIN:
        return None
    training = record.training
    return Finding(
        name="learning_rate_too_low",
        severity="note",
        seen=f"The training loss hardly fell, from {losses[0]:.3f} to {losses[-1]:.3f}, and "
        f"{record.best.rate_name} from "
        f"{format_percent(record.baseline.error_rate)} to {format_percent(record.best.error_rate)}, "
        f"at a learning rate of "
        f"{training.peak_lr:g} in {record.num_steps} steps.",
        advice="Raise the learning rate or train longer, unless the base model knows this speech already.",
        changes=(change(record, "learning_rate", round_rate(3 * training.peak_lr)),),
    )


def find_short_warmup(record: TrainingRecord, curves: Sequence[CurvePoint]) -> Finding | None:
    """Check whether the loss rose early in the run and then fell below its former level."""
    losses = series_of(curves, "train/loss")
    early, late = losses.until(early_end(record)), losses.after(early_end(record))
    if len(early) < 2 or len(late) < 2:
        return None
    lowest_before = np.minimum.accumulate(early.values)
    index = int(np.argmax(early.values - lowest_before))
    peak, before = float(early.values[index]), float(lowest_before[index])
    has_recovered = float(np.median(late.values[len(late) // 2 :])) < before
    if peak < max(_BUMP * before, before + _SPIKE_LOSS) or not has_recovered:
        return None
    warmup, last = record.training.warmup_steps, int(losses.steps[-1])
    wanted = min(max(2 * warmup, round(_WARMUP_SHARE * last), 1), max(1, last // 4))
    return Finding(
        name="warmup_too_short",
        severity="note",
        seen=f"The training loss rose early, from {before:.3f} to {peak:.3f} at step {int(early.steps[index])}, before "
        f"it fell, with {warmup} warm-up steps.",
        advice="Let the learning rate rise more slowly; the model has to relearn what the first steps destroy.",
        changes=(change(record, "warmup_steps", wanted),) if wanted > warmup else (slower(record, 2.0),),
    )


def early_end(record: TrainingRecord) -> float:
    """Return the step up to which losses are attributed to the warm-up."""
    return max(3.0 * record.training.warmup_steps, _EARLY_SHARE * record.num_steps)


def _early_damage(record: TrainingRecord) -> Iterator[str]:
    if len(record.rows) < 2:
        return
    baseline, first = record.rows[:2]
    if (
        first.error_rate > _EARLY_WER * baseline.error_rate + _EARLY_POINTS
        and not first.validation_loss < baseline.validation_loss
    ):
        yield (
            f"{first.rate_name} was {format_percent(first.error_rate)} at step {first.step}, against the base model's "
            f"{format_percent(baseline.error_rate)}, and the validation loss no lower"
        )


def _lost_loss(record: TrainingRecord) -> Iterator[str]:
    lost = [row.step for row in record.rows if row.step and not math.isfinite(row.validation_loss)]
    if lost:
        yield f"the validation loss was not finite from step {lost[0]} on"


def _loss_rise(record: TrainingRecord, losses: Series) -> Iterator[str]:
    """Compare the end of the run with its lowest loss. With few points the means between evaluations are used."""
    if len(losses) >= _MIN_POINTS:
        steps = [int(np.median(part.steps)) for part in losses.parts(6)]
        levels = [float(np.median(part.values)) for part in losses.parts(6)]
    else:
        trained = [(row.step, row.training_loss) for row in record.rows if row.training_loss is not None]
        steps, levels = [step for step, _ in trained], [loss for _, loss in trained]
    if len(levels) < 3:
        return
    lowest = int(np.argmin(levels))
    if levels[-1] > max(_LOSS_RISE * levels[lowest], levels[lowest] + _SPIKE_LOSS):
        yield (
            f"the training loss rose from {levels[lowest]:.3f} around step {steps[lowest]} to {levels[-1]:.3f} around "
            f"step {steps[-1]}"
        )


def _spikes(losses: Series) -> Iterator[str]:
    if len(losses) < _MIN_POINTS:
        return
    indices = range(_BEFORE_SPIKE, len(losses))
    levels = np.array([np.median(losses.values[index - _BEFORE_SPIKE : index]) for index in indices])
    values, steps = losses.values[_BEFORE_SPIKE:], losses.steps[_BEFORE_SPIKE:]
    found = np.flatnonzero((values > _SPIKE * levels) & (values > levels + _SPIKE_LOSS))
    if len(found) >= _NUM_SPIKES:
        first = found[0]
        yield (
            f"the training loss jumped {len(found)} times to more than twice its level, first at step {steps[first]} "
            f"from {levels[first]:.3f} to {values[first]:.3f}"
        )


def _gradient_growth(record: TrainingRecord, curves: Sequence[CurvePoint]) -> Iterator[str]:
    norms = series_of(curves, "train/gradient_norm").after(record.training.warmup_steps)
    if len(norms) < _MIN_POINTS:
        return
    first, *_, last = (float(np.median(part.values)) for part in norms.parts(4))
    if last > max(_GRADIENT_GROWTH * first, record.training.max_grad_norm):
        yield f"the gradient's norm grew from {first:.3g} after the warm-up to {last:.3g} at the end (medians)"


def _clipping(record: TrainingRecord, curves: Sequence[CurvePoint]) -> list[str]:
    norms, limit = series_of(curves, "train/gradient_norm"), record.training.max_grad_norm
    share = float(np.mean(norms.values > limit)) if len(norms) >= _MIN_POINTS else 0.0
    if share < _CLIPPED_SHARE:
        return []
    return [f"the gradient was clipped to {limit:g} at {100 * share:.0f} % of the logged steps"]

"""A finding: what was seen, with numbers and steps, and what to change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sottovoce.schema import Record
from sottovoce.train.methods import known_range, round_rate
from sottovoce.train.metrics.curves import CurvePoint
from sottovoce.train.record import TrainingRecord

Severity: TypeAlias = Literal["serious", "warning", "note"]
"""serious: the run, or part of what it made, should not be used as it is; note: worth knowing for the next run."""

FindingName: TypeAlias = Literal[
    "worse_than_the_base",
    "learning_rate_too_high",
    "group_got_worse",
    "unusual_settings",
    "wer_rises",
    "loss_scale_collapsed",
    "steps_skipped",
    "gain_uncertain",
    "warmup_too_short",
    "validation_loss_rises",
    "learning_rate_too_low",
    "wer_stopped_falling",
    "still_improving",
    "few_evaluations",
    "data_wait",
    "rejects",
]

SettingValue: TypeAlias = str | int | float | None


class SettingChange(Record):
    """A setting and the value to try."""

    name: str
    """As on the command line: ``training.`` and ``data.`` of jobs.train_whisper, ``prepare.`` of
    jobs.prepare_manifest."""
    value: SettingValue
    before: SettingValue = None
    """What this run had, where its record says so."""

    def describe(self) -> str:
        """Give it in a few words."""
        before = "" if self.before is None else f" (was {_number(self.before)})"
        return f"{self.name}={_number(self.value)}{before}"


class Finding(Record):
    """One thing that a run's figures say."""

    name: FindingName
    severity: Severity
    seen: str
    """What was seen: full sentences, with numbers and steps."""
    advice: str
    """What to do about it, in words."""
    changes: tuple[SettingChange, ...] = ()
    """Settings to change, the most promising first; one at a time tells which of them helped."""

    @property
    def title(self) -> str:
        """Its name in words."""
        return self.name.replace("_", " ").replace("wer", "WER").capitalize().replace("Wer", "WER")

    def describe(self) -> str:
        """Give it in one line, for logs and model cards."""
        try_this = f" Try {', '.join(change.describe() for change in self.changes)}." if self.changes else ""
        return f"{self.title}: {self.seen} {self.advice}{try_this}"


def change(record: TrainingRecord, name: str, value: SettingValue) -> SettingChange:
    """Propose a value for a setting of training.

    Args:
        record: holds the present value.
        name: of a field of ``TrainingConfig``, with a dot below it.
        value: to try.
    """
    found: object = record.training
    for part in name.split("."):
        found = getattr(found, part)
    assert found is None or isinstance(found, str | int | float)
    return SettingChange(name=f"training.{name}", value=value, before=found)


def slower(record: TrainingRecord, factor: float) -> SettingChange:
    """Propose a learning rate so many times lower, or the one known to work where that is lower, too."""
    rate = record.training.peak_lr
    known = known_rate(record)
    lower = known if known is not None and known <= rate / factor else rate / factor
    return change(record, "learning_rate", round_rate(lower))


def known_rate(record: TrainingRecord) -> float | None:
    """Give the learning rate known to work for the model's size and the method; None where the size is not known."""
    return known_range(record.num_parameters, record.training.method).known if record.num_parameters else None


def _number(value: SettingValue) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, eq=False)
class Series:
    """P points of one figure, in the order of their steps; all values are finite."""

    steps: NDArray[np.int64]
    """(P,)"""
    values: NDArray[np.float64]
    """(P,)"""

    def __len__(self) -> int:
        return len(self.steps)

    def after(self, step: float) -> "Series":
        """Give the points of later steps."""
        return self._where(self.steps > step)

    def until(self, step: float) -> "Series":
        """Give the points up to a step and its own."""
        return self._where(self.steps <= step)

    def parts(self, number: int) -> list["Series"]:
        """Cut the points into so many parts of about as many points each."""
        places = np.array_split(np.arange(len(self)), number)
        return [Series(self.steps[part], self.values[part]) for part in places]

    def _where(self, wanted: NDArray[np.bool_]) -> "Series":
        return Series(self.steps[wanted], self.values[wanted])


def series_of(curves: Sequence[CurvePoint], name: str) -> Series:
    """Take one figure; of several values at a step the last counts, and values that are not finite are left out."""
    values = {point.step: point.values[name] for point in curves if name in point.values}
    finite = sorted((step, value) for step, value in values.items() if np.isfinite(value))
    return Series(
        np.array([step for step, _ in finite], dtype=np.int64),
        np.array([value for _, value in finite], dtype=np.float64),
    )

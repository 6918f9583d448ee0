"""A finding about a run: the observation, with numbers and steps, and the settings to change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sottovoce.schema import Record
from sottovoce.train.config import CHANGEABLE
from sottovoce.train.methods import METHODS, known_range, round_rate
from sottovoce.train.metrics.curves import CurvePoint
from sottovoce.train.record import TrainingRecord

Severity: TypeAlias = Literal["serious", "warning", "note"]
"""serious: the run, or part of its result, should not be used as it is. note: worth knowing for the next run."""

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

# A resumed run keeps its precision: only ``auto`` may be replaced by the precision it stands for.
_RESUMABLE = CHANGEABLE - {"training.precision"}


class SettingChange(Record):
    """A setting and the value to try."""

    name: str
    """Name on the command line: ``training.`` and ``data.`` of jobs.train_whisper, ``prepare.`` of
    jobs.prepare_manifest."""
    value: SettingValue
    before: SettingValue = None
    """The value of this run, if its record has it."""

    @property
    def needs_new_run(self) -> bool:
        """Whether the change needs a new run; else the same command accepts it when it resumes the run."""
        return self.name not in _RESUMABLE

    def describe(self) -> str:
        """Return setting, value and former value in a few words."""
        before = "" if self.before is None else f" (was {_number(self.before)})"
        return f"{self.name}={_number(self.value)}{before}"


class Finding(Record):
    """One problem, or one fact worth knowing, that the metrics of a run show."""

    name: FindingName
    severity: Severity
    seen: str
    """The observation: full sentences, with numbers and steps."""
    advice: str
    """What to do about it, in words."""
    changes: tuple[SettingChange, ...] = ()
    """Settings to change, the most promising first. Changed one at a time, they show which of them helped."""

    @property
    def title(self) -> str:
        """The name in words."""
        return self.name.replace("_", " ").replace("wer", "WER").capitalize().replace("Wer", "WER")

    @property
    def new_run_changes(self) -> tuple[SettingChange, ...]:
        """Changes that need a new run."""
        return tuple(change for change in self.changes if change.needs_new_run)

    @property
    def resumable_changes(self) -> tuple[SettingChange, ...]:
        """Changes that the same command accepts when it resumes the run."""
        return tuple(change for change in self.changes if not change.needs_new_run)

    def describe(self) -> str:
        """Return the finding in one line, for logs and model cards."""
        proposals = {
            "Start a new run with": self.new_run_changes,
            "Resume this run, or start a new one, with": self.resumable_changes,
        }
        sentences = [
            f" {start} {', '.join(change.describe() for change in changes)}."
            for start, changes in proposals.items()
            if changes
        ]
        return f"{self.title}: {self.seen} {self.advice}{''.join(sentences)}"


def change(record: TrainingRecord, name: str, value: SettingValue) -> SettingChange:
    """Propose a value for a setting of training.

    Args:
        record: holds the present value.
        name: a field of ``TrainingConfig``; a dot leads to a nested one.
        value: the value to try.
    """
    found: object = record.training
    for part in name.split("."):
        found = getattr(found, part)
    assert found is None or isinstance(found, str | int | float)
    return SettingChange(name=f"training.{name}", value=value, before=found)


def slower(record: TrainingRecord, factor: float) -> SettingChange:
    """Propose a learning rate ``factor`` times lower, or the rate known to work if that is lower still."""
    rate = record.training.peak_lr
    known = known_rate(record)
    lower = known if known is not None and known <= rate / factor else rate / factor
    return change(record, "learning_rate", round_rate(lower))


def gentler_method(record: TrainingRecord) -> tuple[SettingChange, ...]:
    """Propose a method that changes less of the base model; nothing if there is none."""
    gentler = METHODS[record.training.method].gentler
    return () if gentler is None else (change(record, "method", gentler),)


def known_rate(record: TrainingRecord) -> float | None:
    """Return the learning rate known to work for the model's size and the method; None if the size is unknown."""
    return known_range(record.num_parameters, record.training.method).known if record.num_parameters else None


def _number(value: SettingValue) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, eq=False)
class Series:
    """P points of one metric in the order of their steps; all values are finite."""

    steps: NDArray[np.int64]
    """(P,)"""
    values: NDArray[np.float64]
    """(P,)"""

    def __len__(self) -> int:
        return len(self.steps)

    def after(self, step: float) -> "Series":
        """Return the points of later steps."""
        return self._where(self.steps > step)

    def until(self, step: float) -> "Series":
        """Return the points up to and including a step."""
        return self._where(self.steps <= step)

    def parts(self, number: int) -> list["Series"]:
        """Split the points into ``number`` parts of about equal size."""
        indices = np.array_split(np.arange(len(self)), number)
        return [Series(self.steps[part], self.values[part]) for part in indices]

    def _where(self, wanted: NDArray[np.bool_]) -> "Series":
        return Series(self.steps[wanted], self.values[wanted])


def series_of(curves: Sequence[CurvePoint], name: str) -> Series:
    """Return the series of one metric: the last value of each step, values that are not finite left out."""
    values = {point.step: point.values[name] for point in curves if name in point.values}
    finite = sorted((step, value) for step, value in values.items() if np.isfinite(value))
    return Series(
        np.array([step for step, _ in finite], dtype=np.int64),
        np.array([value for _, value in finite], dtype=np.float64),
    )

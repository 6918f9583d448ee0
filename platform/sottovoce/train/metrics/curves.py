"""The metrics of a run: kept in its folder, sent to its trackers, and exported as Ray's own metrics."""

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from accelerate import Accelerator
from ray.util.metrics import Gauge

from sottovoce.atomic_write import atomic_write
from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.train.metrics.trackers import Trackers

logger = logging.getLogger(__name__)

CURVES_FILE = "curves.jsonl"
_UNNAMEABLE = re.compile(r"[^\w.-]")  # what MLflow refuses in the name of a metric, and the slash that divides ours
_PREFIX = "sottovoce_"
_NOT_PROMETHEUS = re.compile(r"[^a-zA-Z0-9_]")
_TAGS = ("run", "rank")


class RayMetrics:
    """One gauge per metric, tagged with run and rank. Does nothing outside Ray."""

    def __init__(self, *, run: str, rank: int) -> None:
        self._tags = {"run": run, "rank": str(rank)}
        self._gauges: dict[str, Gauge] = {}

    def show(self, values: Mapping[str, float]) -> None:
        """Set the gauge of each metric: ``train/loss`` becomes ``sottovoce_train_loss``, and Ray prepends ``ray_``."""
        if not ray.is_initialized():
            return
        for name, value in values.items():
            if name not in self._gauges:
                self._gauges[name] = Gauge(name_gauge(name), description=f"Sottovoce: {name}", tag_keys=_TAGS)
            self._gauges[name].set(value, tags=self._tags)


def name_gauge(name: str) -> str:
    """Return a metric's name in the characters that Prometheus accepts."""
    return _PREFIX + _NOT_PROMETHEUS.sub("_", name)


@dataclass(frozen=True)
class CurvePoint:
    """Metrics logged together. Training and validation at one step are two points."""

    step: int
    """Steps taken before it; 0 is the base model."""
    values: Mapping[str, float]
    """By name, such as ``train/loss``; NaN if it was not finite."""


def read_curves(path: Path) -> tuple[CurvePoint, ...]:
    """Read the points of a run in the order they were logged; none if the file is missing.

    An incomplete line, as a killed run can leave behind, is skipped with a warning.
    """
    if not path.is_file():
        return ()
    points = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            values = json.loads(line)
            step = int(values.pop("step"))
            points.append(CurvePoint(step, {name: _read_value(value) for name, value in values.items()}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s: line %d is skipped: %s", path, number, error)
    return tuple(points)


def append_point(path: Path, point: CurvePoint) -> None:
    """Append a line; it outlives the process once this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_write_line(point))


def keep_points(path: Path, *, last_step: int | None) -> tuple[CurvePoint, ...]:
    """Atomically drop what was logged after a step and return the rest; drop everything when None."""
    found = read_curves(path)
    kept = tuple(point for point in found if last_step is not None and point.step <= last_step)
    atomic_write(path, "".join(map(_write_line, kept)))
    return kept


class Curves:
    """The log of a run's metrics: every rank exports its own to Ray, and the first rank writes the rest."""

    def __init__(
        self,
        accelerator: Accelerator,
        *,
        output: Path,
        trackers: tuple[str, ...] = (),
        hyperparameters: Mapping[str, object] | None = None,
    ) -> None:
        """Prepare to log; nothing is opened yet.

        Args:
            accelerator: has the rank.
            output: the run's folder, whose name is the run's.
            trackers: their names.
            hyperparameters: what trackers record about the run, nested in any way.
        """
        self._path = output / CURVES_FILE
        self._is_writing = accelerator.is_main_process
        self._trackers = Trackers(trackers, output=output, hyperparameters=hyperparameters or {})
        self._metrics = RayMetrics(run=output.name, rank=accelerator.process_index)

    @contextmanager
    def opened(self, last_step: int | None) -> Iterator[None]:
        """Log within this block.

        Args:
            last_step: the step from which a resumed run continues; later points are dropped. None at a run's start.

        Raises:
            TrackerUnavailableError: a tracker is not installed where this worker runs.
            TrackerError: a tracker does not open at a run's start; a resumed run goes on without it.
        """
        has_failed = True
        try:
            if self._is_writing:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._trackers.open(keep_points(self._path, last_step=last_step), last_step=last_step)
            yield
            has_failed = False
        finally:
            self._trackers.close(has_failed=has_failed)

    def log_training(
        self, step: int, values: Mapping[str, float], *, learning_rate: float, own: Mapping[str, float] | None = None
    ) -> None:
        """Log what a ``Meter`` read after a step.

        Args:
            step: steps taken.
            values: of all ranks together.
            learning_rate: of the step.
            own: values that differ on this rank; only Ray's metrics, which are tagged with the rank, show them.
        """
        logged = {f"train/{name}": value for name, value in values.items()} | {"train/learning_rate": learning_rate}
        self._log(CurvePoint(step, logged), own={f"train/{name}": value for name, value in (own or {}).items()})

    def log_validation(self, row: EvaluationRow) -> None:
        """Log an evaluation."""
        values = {"loss": row.validation_loss, "wer": row.wer, "cer": row.cer, **row.metrics}
        values |= {f"wer_{group.kind}_{_UNNAMEABLE.sub('_', group.name)}": group.wer for group in row.groups}
        self._log(CurvePoint(row.step, {f"validation/{name}": value for name, value in values.items()}), own={})

    def _log(self, point: CurvePoint, *, own: Mapping[str, float]) -> None:
        self._metrics.show({**point.values, **own})
        if self._is_writing:
            append_point(self._path, point)
            self._trackers.log(point.step, point.values)


def _write_line(point: CurvePoint) -> str:
    """Format a point as a line of JSON, which has neither NaN nor infinity."""
    values = {name: value if math.isfinite(value) else None for name, value in point.values.items()}
    return json.dumps({"step": point.step, **values}) + "\n"


def _read_value(value: float | None) -> float:
    return math.nan if value is None else float(value)

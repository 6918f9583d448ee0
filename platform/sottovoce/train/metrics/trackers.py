"""A run's trackers: TensorBoard, MLflow and Weights & Biases, through accelerate, all below the run's folder.

A resumed run continues the same run of each tracker, and no point appears twice:

TensorBoard   a new event file that makes readers drop what was logged after the checkpoint
MLflow        the same run, whose id is in trackers.json; only points that it lacks are sent
W&B           the same id. Offline, a killed process leaves an unfinished file, so the run is written anew from
              curves.jsonl and the earlier file is moved away; online, only points that the server lacks are sent
"""

import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker
from pydantic import ValidationError

from sottovoce.atomic_write import atomic_write
from sottovoce.errors import TrackerError, TrackerUnavailableError
from sottovoce.schema import Record

logger = logging.getLogger(__name__)

TENSORBOARD_FOLDER = "tensorboard"
MLFLOW_FOLDER = "mlruns"
WANDB_FOLDER = "wandb"  # wandb's own choice
TRACKERS_FILE = "trackers.json"
_SUPERSEDED_FOLDER = "superseded"
_PROJECT = "sottovoce"  # MLflow's experiment, W&B's project, the folder below TensorBoard's
_PACKAGES = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow-skinny", "mlflow"), "wandb": ("wandb",)}
# What a user sets for trackers in the driver's shell. No keys: Ray's dashboard shows the environment of workers, so
# WANDB_API_KEY and MLFLOW_TRACKING_TOKEN belong in the nodes' own environment.
_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TAGS",
    "WANDB_MODE",
    "WANDB_BASE_URL",
    "WANDB_ENTITY",
    "WANDB_PROJECT",
    "WANDB_RUN_GROUP",
    "WANDB_TAGS",
)
_QUIET_ENVIRONMENT = {
    "mlflow": {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_FILE_STORE": "true",  # a folder needs no database; MLflow 3 refuses one without this
        # its own defaults retry for minutes, in which all ranks would stand still
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    },
    "wandb": {"WANDB_ERROR_REPORTING": "false"},
}


def check_trackers(names: Iterable[str]) -> None:
    """Check that the packages of all trackers are installed.

    Raises:
        TrackerUnavailableError: one is not.
    """
    for name in names:
        if not any(map(_is_installed, _PACKAGES[name])):
            raise TrackerUnavailableError(name, _PACKAGES[name][0])


def tracker_environment() -> dict[str, str]:
    """Return the trackers' variables of the driver for its workers, which otherwise have those of their node's Ray."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def keep_quiet(name: str) -> None:
    """Switch off a tracker's telemetry and long retries, before it is imported; what the user has set stays."""
    for variable, value in _QUIET_ENVIRONMENT.get(name, {}).items():
        os.environ.setdefault(variable, value)


def _is_installed(package: str) -> bool:
    """Whether a package is installed, by its metadata: a folder named wandb here would pass for the module."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


class Point(Protocol):
    """Metrics logged together; ``curves.CurvePoint`` is one."""

    @property
    def step(self) -> int:
        """Steps taken before it."""

    @property
    def values(self) -> Mapping[str, float]:
        """By name."""


class TrackerRuns(Record):
    """``trackers.json``: the ids of this run in its trackers."""

    mlflow: str | None = None
    mlflow_uri: str | None = None
    """Where MLflow keeps it; None for the store below the run's folder."""
    wandb: str | None = None


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Flatten nested settings, as in ``spec_augment.num_time_masks``, to values that every tracker can store."""
    flat: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, str | int | float | bool):
            flat[prefix + name] = value
        else:
            flat[prefix + name] = json.dumps(value)
    return flat


@dataclass
class _Sink:
    """One open tracker, and which points it has already."""

    name: str
    tracker: GeneralTracker
    first_step: int = 0
    """It has all points before this step."""
    last_steps: dict[str, int] = field(default_factory=dict)
    """The last step it has, by metric."""
    is_own_store: bool = False
    """Whether MLflow stores it below the run's folder."""

    def send(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values that the tracker does not have."""
        new = {name: value for name, value in values.items() if step > self.last_steps.get(name, self.first_step - 1)}
        if new:
            self.tracker.log(new, step=step)


class Trackers:
    """The trackers of a run's first rank. One that fails during the run is dropped with an error in the log."""

    def __init__(self, names: Iterable[str], *, output: Path, hyperparameters: Mapping[str, object]) -> None:
        self._names, self._output = tuple(names), output
        self._hyperparameters = flatten(hyperparameters)
        self._sinks: list[_Sink] = []

    def open(self, kept: Iterable[Point], *, last_step: int | None) -> None:
        """Start or continue each tracker's run; only the first rank calls it.

        Args:
            kept: the points up to ``last_step``.
            last_step: the step from which a resumed run continues; None at a run's start.

        Raises:
            TrackerUnavailableError: a package is not installed on this node.
            TrackerError: a tracker does not open at a run's start; a resumed run goes on without it.
        """
        check_trackers(self._names)
        for name in self._names:
            keep_quiet(name)
            try:
                self._sinks.append(self._open(name, kept, last_step=last_step))
            except _failures_of(name) as error:
                if last_step is None:
                    raise TrackerError(name, str(error)) from error
                logger.exception("%s does not open; the run goes on without it", name)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log metrics to each tracker."""
        for sink in tuple(self._sinks):
            self._guard(sink, partial(sink.send, step, values))

    def close(self, *, has_failed: bool) -> None:
        """Flush and close the trackers, and mark the run as finished or failed in those that record it."""
        for sink in tuple(self._sinks):
            self._guard(sink, partial(_finish, sink, has_failed=has_failed))
        self._sinks.clear()

    def _guard(self, sink: _Sink, send: Callable[[], None]) -> None:
        """Drop a tracker that fails: a run's hours are worth more than curves that curves.jsonl has too."""
        try:
            send()
        except _failures_of(sink.name):
            logger.exception("%s failed; the run goes on without it, its metrics are in curves.jsonl", sink.name)
            self._sinks.remove(sink)

    def _open(self, name: str, kept: Iterable[Point], *, last_step: int | None) -> _Sink:
        if name == "tensorboard":
            return self._open_tensorboard(last_step)
        sink = self._open_mlflow() if name == "mlflow" else self._open_wandb()
        for point in kept:
            sink.send(point.step, point.values)
        return sink

    def _open_tensorboard(self, last_step: int | None) -> _Sink:
        folder = self._output / TENSORBOARD_FOLDER
        tracker = TensorBoardTracker(_PROJECT, folder, purge_step=0 if last_step is None else last_step + 1)
        tracker.start()
        if last_step is None:
            tracker.store_init_configuration(self._hyperparameters)
        return _Sink("tensorboard", tracker)

    def _open_mlflow(self) -> _Sink:
        import mlflow  # optional

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            mlflow.set_tracking_uri((self._output / MLFLOW_FOLDER).resolve().as_uri())
        known = self._read_runs()
        run_id = known.mlflow if known.mlflow_uri == uri else None
        tracker = MLflowTracker(_PROJECT, run_id=run_id, run_name=self._output.name)
        tracker.start()
        if run_id is not None:
            return _Sink("mlflow", tracker, last_steps=_read_last_steps(run_id), is_own_store=uri is None)
        tracker.store_init_configuration(self._hyperparameters)
        self._write_runs(known.model_copy(update={"mlflow": tracker.tracker.info.run_id, "mlflow_uri": uri}))
        return _Sink("mlflow", tracker, is_own_store=uri is None)

    def _open_wandb(self) -> _Sink:
        folder = self._output / WANDB_FOLDER
        for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            os.environ.setdefault(variable, str(folder / "cache"))
        known = self._read_runs()
        run_id = known.wandb or uuid.uuid4().hex[:8]
        self._write_runs(known.model_copy(update={"wandb": run_id}))
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            _put_away(folder, run_id)
        tracker = WandBTracker(
            os.environ.get("WANDB_PROJECT", _PROJECT),
            dir=str(self._output),
            id=run_id,
            name=self._output.name,
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings={"console": "off", "silent": True},
        )
        tracker.start()
        tracker.store_init_configuration(self._hyperparameters)
        return _Sink("wandb", tracker, first_step=tracker.tracker.starting_step)

    def _read_runs(self) -> TrackerRuns:
        path = self._output / TRACKERS_FILE
        try:
            return TrackerRuns.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return TrackerRuns()
        except ValidationError as error:
            logger.warning("%s cannot be read, so trackers start new runs: %s", path, error)
            return TrackerRuns()

    def _write_runs(self, runs: TrackerRuns) -> None:
        atomic_write(self._output / TRACKERS_FILE, runs.model_dump_json() + "\n")


def _failures_of(name: str) -> tuple[type[Exception], ...]:
    """Return the errors a tracker raises when its disk or server fails; called only after one was raised."""
    if name == "mlflow":
        from mlflow.exceptions import MlflowException  # optional

        return OSError, MlflowException
    if name == "wandb":
        import wandb  # optional

        return OSError, wandb.Error
    return (OSError,)


def _read_last_steps(run_id: str) -> dict[str, int]:
    """Read the last step of each metric in a run of MLflow."""
    import mlflow  # optional

    client = mlflow.MlflowClient()
    names = client.get_run(run_id).data.metrics
    return {name: max(metric.step for metric in client.get_metric_history(run_id, name)) for name in names}


def _put_away(folder: Path, run_id: str) -> None:
    """Move a run's earlier offline files to a folder that ``wandb sync`` does not read."""
    for earlier in folder.glob(f"offline-run-*-{run_id}"):
        (folder / _SUPERSEDED_FOLDER).mkdir(exist_ok=True)
        earlier.rename(folder / _SUPERSEDED_FOLDER / earlier.name)


def _finish(sink: _Sink, *, has_failed: bool) -> None:
    tracker: Any = sink.tracker
    if sink.name == "mlflow":
        import mlflow  # optional

        mlflow.end_run("FAILED" if has_failed else "FINISHED")
        if sink.is_own_store:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # else it would look as if the user had set it
    elif sink.name == "wandb":
        import wandb  # optional

        tracker.tracker.finish(exit_code=int(has_failed))
        wandb.teardown()  # finish alone returns before the offline file is whole
    else:
        tracker.finish()

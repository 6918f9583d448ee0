"""One trial inside Ray Tune: it starts a run of Ray Train, reports its rate to Tune, and passes Tune's decisions on.

Ray Train 2 starts its workers from the process that calls ``fit``, so a trial is a driver without workers of its own.
Tune stops a trial by killing that process. Here the run is asked to stop instead, so that its workers, placement group
and checkpoint end as in any run.
"""

import math
import threading
import time
import uuid
from dataclasses import replace
from typing import Any

import ray
from ray.tune import PlacementGroupFactory, Trainable

from sottovoce.checkpoints.run_state import EvaluationRow
from sottovoce.checkpoints.saver import build_store
from sottovoce.train.metrics.pruner import Posted, start_pruner
from sottovoce.train.run import TrainingRun, build_trainer, run_training

RATE = "error_rate"
"""The rate that chooses; see ``Rates``."""
EVALUATION = "evaluation"
"""Number of the evaluation; 0 is that of the base model."""
ROW = "row"
"""The whole ``EvaluationRow``."""
ENDS = "ends"
"""Whether the run ended by itself; Tune also sets its own ``done`` when it prunes a trial."""
ERROR = "error"
"""The error that ended the run early; the result has no row then."""
_DRIVER_CPUS = 0.01  # the trial's own process only waits; its workers have a placement group of their own
_INTERVAL_S = 0.1
_STOP_TIMEOUT_S = 60.0


class TrialRun(Trainable):
    """Ray Tune's trainable: each ``step`` returns the next evaluation of the run."""

    def setup(
        self, config: dict[str, Any], runs: dict[int, TrainingRun] | None = None, *, keep_checkpoints: bool = True
    ) -> None:
        """Start the run with the number in the config.

        Args:
            config: ``{"number": int}``.
            runs: all runs by number; None only because Ray requires a default.
            keep_checkpoints: keep the checkpoints of a run that has ended.
        """
        assert runs is not None
        self._keeps_checkpoints = keep_checkpoints
        run = runs[config["number"]]
        name = f"trial-{uuid.uuid4().hex}"
        self._pruner = start_pruner(name)
        task = replace(run.task, pruner=name)
        self._run = replace(run, task=task, trainer=build_trainer(task, run.config))
        self._reported: list[EvaluationRow] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._fit, name="trial", daemon=True)
        self._thread.start()

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Request almost nothing, since the run's workers need the cluster."""
        return PlacementGroupFactory([{"CPU": _DRIVER_CPUS}])

    def step(self) -> dict[str, Any]:
        """Let the run continue, and wait for its next evaluation or for the error that ends it."""
        if self._reported:
            ray.get(self._pruner.allow.remote(self._reported[-1].step))
        posted = self._wait_for_row()
        index = len(self._reported)
        if posted is None:
            return {RATE: math.nan, EVALUATION: index - 1, ERROR: self._describe_error(), "done": True}
        row = posted.rows[index]
        self._reported.append(row)
        is_last = posted.is_last and len(self._reported) == len(posted.rows)
        if is_last:
            self._thread.join()
        return {
            RATE: row.error_rate,
            EVALUATION: index,
            ROW: row.model_dump(mode="json"),
            ENDS: is_last,
            "done": is_last,
        }

    def cleanup(self) -> None:
        """Stop a run that still continues, before this process ends; the search has noted the trial's end by then."""
        if self._thread.is_alive():
            ray.get(self._pruner.stop.remote())
            self._thread.join(_STOP_TIMEOUT_S)
        has_ended = self._error is None and not self._thread.is_alive()
        if has_ended and not self._keeps_checkpoints:
            build_store(self._run.config.checkpoints, output=self._run.task.output).clear()

    def _fit(self) -> None:
        try:
            run_training(self._run, is_shown=False)
        except Exception as error:  # noqa: BLE001 - Ray Train raises anything a worker raised; ``step`` reports it as the trial's error
            self._error = error

    def _wait_for_row(self) -> Posted | None:
        """Wait for an evaluation that was not reported to Tune yet; return None if the run ended without one."""
        while True:
            is_over = not self._thread.is_alive()
            posted: Posted = ray.get(self._pruner.read.remote())
            if len(posted.rows) > len(self._reported):
                return posted
            if is_over:
                return None
            time.sleep(_INTERVAL_S)

    def _describe_error(self) -> str:
        if self._error is None:
            return "the run ended without its last evaluation"
        return f"{type(self._error).__name__}: {self._error}"

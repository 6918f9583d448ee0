"""One trial inside Ray Tune: it starts a run of Ray Train, hands its WER to Tune, and carries Tune's answer back.

Ray Train 2 starts its workers from whatever process calls ``fit``, so a trial holds a driver and no workers. Tune's
usual way to stop a trial is to end that process; here the run is told to stop instead, so that workers, placement
group and checkpoint end as in any run.
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
from sottovoce.train.pruner import Posted, start_pruner
from sottovoce.train.run import TrainingRun, build_trainer, run_training

WER = "wer"
EVALUATION = "evaluation"
"""Number of the evaluation; 0 is the base model's."""
ROW = "row"
"""The whole ``EvaluationRow``."""
ENDS = "ends"
"""The run ends here by itself; Tune's own ``done`` is also set where it gives a trial up."""
ERROR = "error"
"""What ended the run before its time; there is no row then."""
_DRIVER_CPUS = 0.01  # a trial's own process only waits; its workers have their own placement group
_INTERVAL_S = 0.1
_STOP_TIMEOUT_S = 60.0


class TrialRun(Trainable):
    """What Ray Tune calls a trainable: each ``step`` gives the next evaluation of the run."""

    def setup(
        self, config: dict[str, Any], runs: dict[int, TrainingRun] | None = None, *, keep_checkpoints: bool = True
    ) -> None:
        """Start the run whose number the config names.

        Args:
            config: ``{"number": int}``.
            runs: by number; None only in the signature Ray asks for.
            keep_checkpoints: leave them when the run has ended.
        """
        assert runs is not None
        self._keeps_checkpoints = keep_checkpoints
        run = runs[config["number"]]
        name = f"trial-{uuid.uuid4().hex}"
        self._pruner = start_pruner(name)
        task = replace(run.task, pruner=name)
        self._run = replace(run, task=task, trainer=build_trainer(task, run.config))
        self._given: list[EvaluationRow] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._fit, name="trial", daemon=True)
        self._thread.start()

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """Ask for next to nothing, and leave the cluster to the run's workers."""
        return PlacementGroupFactory([{"CPU": _DRIVER_CPUS}])

    def step(self) -> dict[str, Any]:
        """Let the run go on, and wait for its next evaluation, or for the error that ends it."""
        if self._given:
            ray.get(self._pruner.allow.remote(self._given[-1].step))
        posted = self._wait_for_row()
        place = len(self._given)
        if posted is None:
            return {WER: math.nan, EVALUATION: place - 1, ERROR: self._describe_error(), "done": True}
        row = posted.rows[place]
        self._given.append(row)
        is_last = posted.is_last and len(self._given) == len(posted.rows)
        if is_last:
            self._thread.join()
        return {WER: row.wer, EVALUATION: place, ROW: row.model_dump(mode="json"), ENDS: is_last, "done": is_last}

    def cleanup(self) -> None:
        """End the run, if it goes on, before this process ends; the driver has noted its end by now."""
        if self._thread.is_alive():
            ray.get(self._pruner.stop.remote())
            self._thread.join(_STOP_TIMEOUT_S)
        has_ended = self._error is None and not self._thread.is_alive()
        if has_ended and not self._keeps_checkpoints:
            build_store(self._run.config.checkpoints, output=self._run.task.output).clear()

    def _fit(self) -> None:
        try:
            run_training(self._run, is_shown=False)
        except Exception as error:  # noqa: BLE001 - crosses to the thread that raises it
            self._error = error

    def _wait_for_row(self) -> Posted | None:
        """Wait until the run has posted more than was given to Tune; None where it ended without."""
        while True:
            is_over = not self._thread.is_alive()
            posted: Posted = ray.get(self._pruner.read.remote())
            if len(posted.rows) > len(self._given):
                return posted
            if is_over:
                return None
            time.sleep(_INTERVAL_S)

    def _describe_error(self) -> str:
        if self._error is None:
            return "the run ended without its last evaluation"
        return f"{type(self._error).__name__}: {self._error}"

"""Trainings without worker processes: Ray Train's local mode runs the one worker where the test runs.

A worker's process imports torch and transformers, and Ray Train starts half a dozen more beside it: tens of seconds of
CPU for a run of three steps. What a test shows of the loop, of its settings or of its files needs none of them. Batches
of a step stay as many as the settings say, so the one worker learns what two would; Ray Data's tasks read the audio.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import ray.cloudpickle
import ray.train
from accelerate.state import AcceleratorState, GradientState
from ray.train.torch import TorchTrainer

from sottovoce.train import resources, run
from sottovoce.train.config import TrainingConfig
from sottovoce.train.run import build_trainer
from sottovoce.train.task import WorkerTask
from sottovoce.tune import trial, tuner
from sottovoce.tune.trial import TrialRun


def _build_local_trainer(task: WorkerTask, config: TrainingConfig) -> TorchTrainer:
    unwatched = replace(task, training=task.training | {"stuck_after_s": None})  # only an actor can be killed
    return build_trainer(unwatched, config)


@contextmanager
def training_in_process() -> Iterator[None]:
    """Start every training within the block without worker processes."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (run, trial):
            patch.setattr(module, "build_trainer", _build_local_trainer)
        patch.setattr(resources, "build_scaling", lambda _config, *, use_gpu: ray.train.ScalingConfig(num_workers=0))
        try:
            yield
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()


class InProcessTrial(TrialRun):
    """A search's trial whose training runs in the trial's own process."""

    def setup(self, config: dict[str, Any], **parameters: Any) -> None:
        self._patches = ExitStack()
        self._patches.enter_context(training_in_process())
        super().setup(config, **parameters)

    def cleanup(self) -> None:
        super().cleanup()
        self._patches.close()


@contextmanager
def trials_in_process() -> Iterator[None]:
    """Start every trial within the block without worker processes."""
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)  # Ray's workers do not find the tests' own modules
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuner, "TrialRun", InProcessTrial)
        try:
            yield
        finally:
            ray.cloudpickle.unregister_pickle_by_value(module)

"""Trainings without worker processes: Ray Train's local mode runs the one worker where the test runs.

A worker's process imports torch and transformers, and Ray Train starts half a dozen more beside it: tens of seconds of
CPU for a run of three steps. What a test shows of the loop, of its settings or of its files needs none of them. Batches
of a step stay as many as the settings say, so the one worker learns what two would; Ray Data's tasks read the audio.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import ray.train
from accelerate.state import AcceleratorState, GradientState
from ray.train.torch import TorchTrainer

from sottovoce.train import resources
from sottovoce.train.config import TrainingConfig
from sottovoce.train.run import build_trainer
from sottovoce.train.task import WorkerTask


def _build_local_trainer(task: WorkerTask, config: TrainingConfig) -> TorchTrainer:
    unwatched = replace(task, training=task.training | {"stuck_after_s": None})  # only an actor can be killed
    return build_trainer(unwatched, config)


@contextmanager
def training_in_process() -> Iterator[None]:
    """Start every training within the block without worker processes."""
    module = sys.modules[build_trainer.__module__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "build_trainer", _build_local_trainer)
        patch.setattr(resources, "build_scaling", lambda _config, *, use_gpu: ray.train.ScalingConfig(num_workers=0))
        try:
            yield
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()

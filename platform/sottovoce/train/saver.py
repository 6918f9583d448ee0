"""Checkpoints of a run on their way to storage and back."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray.train
from accelerate import Accelerator

from sottovoce.model.checkpoint import Checkpoint
from sottovoce.train.record import RunState
from sottovoce.train.state import write_state

UNSCORED = 1e9  # reported as WER by checkpoints between evaluations: Ray keeps the lowest, and JSON knows no infinity


class Saver:
    """What writes a worker's checkpoints; every rank has part in it."""

    def __init__(self, checkpoint: Checkpoint, accelerator: Accelerator) -> None:
        self._checkpoint, self._accelerator = checkpoint, accelerator

    def save(self, state: RunState, *, wer: float) -> None:
        """Write and report a checkpoint."""
        with tempfile.TemporaryDirectory() as folder:
            write_state(Path(folder), state, checkpoint=self._checkpoint, accelerator=self._accelerator)
            ray.train.report({"step": state.step, "wer": wer}, checkpoint=ray.train.Checkpoint.from_directory(folder))


@contextmanager
def found_checkpoint() -> Iterator[Path | None]:
    """Give the folder of the checkpoint this worker goes on from; None at the start of a run."""
    found = ray.train.get_checkpoint()
    if found is None:
        yield None
        return
    with found.as_directory() as folder:
        yield Path(folder)

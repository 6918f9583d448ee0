"""Checkpoints of a run: the model as Hugging Face files, and beside it all that a resumed run needs.

checkpoint/       the model, ready to be loaded anywhere
accelerate/       optimizer, gradient scaler and every rank's random state
run_state.json    step, rows and rejects so far
"""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from pydantic import ValidationError

from sottovoce.errors import CheckpointError
from sottovoce.model.checkpoint import Checkpoint, save_checkpoint
from sottovoce.train.record import RunState

MODEL_FOLDER = "checkpoint"
_ACCELERATE_FOLDER = "accelerate"
_STATE_FILE = "run_state.json"


def leave_weights_to_model_folder(accelerator: Accelerator) -> None:
    """Keep accelerate from writing and reading the weights a second time."""

    def before_saving(models: list[Any], weights: list[Any], folder: str) -> None:
        weights.clear()

    def before_loading(models: list[Any], folder: str) -> None:
        models.clear()

    accelerator.register_save_state_pre_hook(before_saving)
    accelerator.register_load_state_pre_hook(before_loading)


def write_state(folder: Path, state: RunState, *, checkpoint: Checkpoint, accelerator: Accelerator) -> None:
    """Write one rank's part: its random state everywhere, all the rest from the first rank."""
    accelerator.save_state(str(folder / _ACCELERATE_FOLDER))
    if accelerator.is_main_process:
        save_checkpoint(checkpoint, folder / MODEL_FOLDER)
        (folder / _STATE_FILE).write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_accelerate_state(folder: Path, accelerator: Accelerator) -> None:
    """Put optimizer, scaler and this rank's random state back; only a run's own files are read."""
    accelerator.load_state(str(folder / _ACCELERATE_FOLDER))


def read_run_state(folder: Path) -> RunState:
    """Read where a run stood.

    Raises:
        CheckpointError: no such file, or another release's.
    """
    try:
        return RunState.model_validate_json((folder / _STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise CheckpointError(
            folder, f"{_STATE_FILE} cannot be read; start the run in a new folder: {error}"
        ) from error


def read_resumed(folder: Path) -> RunState:
    """Read where a run stood, and note that it goes on from there, unless it was at its end.

    Raises:
        CheckpointError: see ``read_run_state``.
    """
    state = read_run_state(folder)
    if state.is_finished:
        return state
    return state.model_copy(update={"resumed_at": (*state.resumed_at, state.step)})

"""What a checkpoint of a run holds: the model as Hugging Face files, and beside it all that a resumed run needs.

checkpoint/                       the model, ready to be loaded anywhere
training/optimizer.safetensors    the optimizer's tensors
training/optimizer.json           the rest of its state
training/scaler.json              of the gradient scaler, where there is one
training/random.json              every rank's random state
run_state.json                    step, rows and rejects so far
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from sottovoce.errors import CheckpointError
from sottovoce.train.checkpoints.optimizer_state import OptimizerValues, join_state
from sottovoce.train.checkpoints.random_state import RandomState, set_random_state
from sottovoce.train.record import RunState

logger = logging.getLogger(__name__)

MODEL_FOLDER = "checkpoint"
STATE_FILE = "run_state.json"
OPTIMIZER_TENSORS_FILE = "training/optimizer.safetensors"
_OPTIMIZER_VALUES_FILE = "training/optimizer.json"
_SCALER_FILE = "training/scaler.json"
_RANDOM_FILE = "training/random.json"
_RANDOM_STATES = TypeAdapter(tuple[RandomState, ...])


def state_files(
    state: RunState,
    *,
    optimizer: OptimizerValues,
    scaler: Mapping[str, Any] | None,
    random_states: Sequence[RandomState],
) -> dict[str, list[bytes]]:
    """Give the small files of a checkpoint, by path.

    Args:
        state: where the run stands.
        optimizer: all but its tensors.
        scaler: state of the gradient scaler; None without one.
        random_states: of the ranks, in their order.
    """
    files = {
        STATE_FILE: [state.model_dump_json(indent=2).encode(), b"\n"],
        _OPTIMIZER_VALUES_FILE: [optimizer.model_dump_json().encode()],
        _RANDOM_FILE: [_RANDOM_STATES.dump_json(tuple(random_states))],
    }
    if scaler is not None:
        files[_SCALER_FILE] = [json.dumps(dict(scaler)).encode()]
    return files


def load_training_state(folder: Path, accelerator: Accelerator, optimizer: torch.optim.Optimizer) -> None:
    """Put optimizer, scaler and this rank's random state back.

    A rank that was not there when the checkpoint was written keeps the random state it has.

    Args:
        folder: a verified checkpoint.
        accelerator: gives the scaler and the rank.
        optimizer: of the same parameters in the same groups.

    Raises:
        CheckpointError: files are missing, or belong to another model or release.
    """
    try:
        values = OptimizerValues.model_validate_json((folder / _OPTIMIZER_VALUES_FILE).read_bytes())
        optimizer.load_state_dict(join_state(load_file(folder / OPTIMIZER_TENSORS_FILE), values))
        random_states = _RANDOM_STATES.validate_json((folder / _RANDOM_FILE).read_bytes())
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(json.loads((folder / _SCALER_FILE).read_bytes()))
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(folder, f"its training state does not fit this run: {error}") from error
    rank = accelerator.process_index
    if rank < len(random_states):
        set_random_state(random_states[rank])


def read_run_state(folder: Path) -> RunState:
    """Read where a run stood.

    Raises:
        CheckpointError: no such file, or another release's.
    """
    try:
        return RunState.model_validate_json((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise CheckpointError(folder, f"{STATE_FILE} cannot be read; start the run in a new folder: {error}") from error


def read_resumed(folder: Path) -> RunState:
    """Read where a run stood, and note that it goes on from there, unless it was at its end.

    Raises:
        CheckpointError: see ``read_run_state``.
    """
    state = read_run_state(folder)
    if state.is_finished:
        return state
    return state.model_copy(update={"resumed_at": (*state.resumed_at, state.step)})

"""The content of a run's checkpoint: the model as Hugging Face files, and everything a resumed run needs.

checkpoint/                       the model, which transformers can load
training/optimizer.safetensors    the optimizer's tensors
training/optimizer.json           the rest of the optimizer's state
training/scaler.json              the gradient scaler's state, if there is one
training/random.json              the random state of every rank
run_state.json                    step, rows and rejects so far
"""

import base64
import json
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sottovoce.checkpoints.run_state import RunState
from sottovoce.errors import CheckpointError
from sottovoce.schema import Record


class OptimizerValues(Record):
    """The part of an optimizer's state that is not tensors."""

    state: dict[int, dict[str, Any]]
    """Values by number of the parameter."""
    param_groups: list[dict[str, Any]]


def split_state(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], OptimizerValues]:
    """Split an ``Optimizer.state_dict()`` into tensors and other values.

    Returns:
        Tensors under ``<number of the parameter>.<key>``, and everything else.
    """
    tensors: dict[str, Tensor] = {}
    values: dict[int, dict[str, Any]] = {}
    for number, entries in state["state"].items():
        values[number] = {}
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{key}"] = value
            else:
                values[number][key] = value
    return tensors, OptimizerValues(state=values, param_groups=list(state["param_groups"]))


def join_state(tensors: Mapping[str, Tensor], values: OptimizerValues) -> dict[str, Any]:
    """Build the dictionary that ``Optimizer.load_state_dict`` reads."""
    state: dict[int, dict[str, Any]] = {number: dict(entries) for number, entries in values.state.items()}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    groups = [{key: _restore(key, value) for key, value in group.items()} for group in values.param_groups]
    return {"state": state, "param_groups": groups}


def _restore(key: str, value: object) -> object:
    """Turn lists back into tuples, such as betas, which JSON does not have; ``params`` was a list before."""
    return tuple(value) if isinstance(value, list) and key != "params" else value


class RandomState(Record):
    """The state of every random generator of a process."""

    python: tuple[int, tuple[int, ...], float | None]
    """``random.getstate()``."""
    numpy: tuple[str, tuple[int, ...], int, int, float]
    """``numpy.random.get_state()``."""
    torch: str
    """State of the CPU generator, in Base64."""
    cuda: tuple[str, ...] = ()
    """The same for each CUDA device of this process."""


def read_random_state() -> RandomState:
    """Read the random state of this process."""
    name, key, position, has_gauss, gauss = np.random.get_state(legacy=True)
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    python: Any = random.getstate()
    return RandomState(
        python=python,
        numpy=(str(name), tuple(int(one) for one in np.asarray(key)), int(position), int(has_gauss), float(gauss)),
        torch=_to_text(torch.get_rng_state()),
        cuda=tuple(map(_to_text, cuda)),
    )


def set_random_state(state: RandomState) -> None:
    """Set the random state of this process; GPUs that the saved state does not cover keep theirs."""
    random.setstate(state.python)
    name, key, position, has_gauss, gauss = state.numpy
    np.random.set_state((name, np.array(key, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(_to_tensor(state.torch))
    if torch.cuda.is_available():
        for device, text in zip(range(torch.cuda.device_count()), state.cuda, strict=False):
            torch.cuda.set_rng_state(_to_tensor(text), device)


def _to_text(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _to_tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


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
    """Serialize the small files of a checkpoint.

    Args:
        state: the run's progress.
        optimizer: the optimizer's state without its tensors.
        scaler: state of the gradient scaler; None without one.
        random_states: one for each rank, in order.

    Returns:
        Content in parts, by path.
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
    """Restore the optimizer, the scaler and this rank's random state.

    A rank that did not exist when the checkpoint was written keeps its random state.

    Args:
        folder: a verified checkpoint.
        accelerator: has the scaler and the rank.
        optimizer: one with the same parameters in the same groups.

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
    """Read the progress of a run from one of its checkpoints.

    Raises:
        CheckpointError: there is no such file, or an unknown release wrote it.
    """
    try:
        return RunState.model_validate_json((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise CheckpointError(folder, f"{STATE_FILE} cannot be read; start the run in a new folder: {error}") from error


def read_resumed(folder: Path) -> RunState:
    """Read the progress of a run and, unless the run was finished, note that it resumes from there.

    Raises:
        CheckpointError: see ``read_run_state``.
    """
    state = read_run_state(folder)
    if state.is_finished:
        return state
    return state.model_copy(update={"resumed_at": (*state.resumed_at, state.step)})

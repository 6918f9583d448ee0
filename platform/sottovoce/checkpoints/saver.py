"""Save the checkpoints of a run in the background, and find the one to resume from.

The first rank copies weights and optimizer state in memory and continues training; one of its threads writes the copy.
A checkpoint therefore costs the time of copying, and memory for one more copy of weights and optimizer state on the
first rank.
"""

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import ray.train
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from ray.train.collective import broadcast_from_rank_zero
from safetensors import safe_open
from torch import Tensor
from transformers import WhisperFeatureExtractor
from transformers.utils import SAFE_WEIGHTS_NAME

from sottovoce.audio.remote import is_remote
from sottovoce.checkpoints.run_state import RunState
from sottovoce.checkpoints.saved import Saved
from sottovoce.checkpoints.state import (
    MODEL_FOLDER,
    OPTIMIZER_TENSORS_FILE,
    RandomState,
    read_random_state,
    split_state,
    state_files,
)
from sottovoce.checkpoints.store import CheckpointStore, Files
from sottovoce.checkpoints.tensors import HostCopies, TensorFile
from sottovoce.errors import ConfigError, SottovoceError
from sottovoce.model.adapter import ADAPTER_WEIGHTS_FILE
from sottovoce.model.checkpoint import Checkpoint, save_checkpoint

_METADATA = {"format": "pt"}  # transformers refuses to read weights without it


@dataclass(frozen=True)
class ModelPart:
    """A model to be saved; the files that do not change during a run are read once."""

    checkpoint: Checkpoint
    files: Mapping[str, bytes]
    """All files but the weights, by name."""
    weights_file: str
    metadata: Mapping[str, str]
    """Metadata of the weights' file."""

    def weights(self) -> dict[str, Tensor]:
        """Return the weights by their names in the file: the adapter's, or all of the model's, tied ones once."""
        if self.checkpoint.adapter is not None:
            return self.checkpoint.adapter.state()
        return untied(self.checkpoint.model.state_dict())


def read_model_part(checkpoint: Checkpoint) -> ModelPart:
    """Read the files of a model that training does not change: configs, tokenizer, feature extractor."""
    with TemporaryDirectory() as name:
        folder, metadata = Path(name), dict(_METADATA)
        if checkpoint.adapter is None:
            checkpoint.model.save_pretrained(folder, state_dict={}, safe_serialization=True)  # configs alone
            checkpoint.tokenizer.save_pretrained(folder)
            WhisperFeatureExtractor(feature_size=checkpoint.num_mel_bins).save_pretrained(folder)
            weights_file = SAFE_WEIGHTS_NAME
        else:
            save_checkpoint(checkpoint, folder)
            weights_file = ADAPTER_WEIGHTS_FILE
            with safe_open(folder / weights_file, framework="pt") as weights:
                metadata = dict(weights.metadata() or {})
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != weights_file}
    return ModelPart(checkpoint, files, weights_file, metadata)


def untied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop weights that already appear under an earlier name: Whisper's output layer is its embedding."""
    seen: set[tuple[int, int]] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        storage = (tensor.data_ptr(), tensor.numel())
        if tensor.numel() == 0 or storage not in seen:
            own[name] = tensor
        seen.add(storage)
    return own


logger = logging.getLogger(__name__)

_FOLDER = "checkpoints"


def build_store(checkpoints: str | None, *, output: Path) -> CheckpointStore:
    """Open the checkpoint store of a run.

    Args:
        checkpoints: folder or URI for the checkpoints of many runs; None for a folder below ``output``.
        output: the run's output folder; its name is the name of the run.

    Raises:
        ConfigError: a protocol that is unknown, or whose package is not installed.
    """
    return CheckpointStore(str(output / _FOLDER) if checkpoints is None else f"{checkpoints.rstrip('/')}/{output.name}")


def resolve_root(checkpoints: str | None) -> str | None:
    """Make the setting ``checkpoints`` absolute, so that workers in other folders find the same location.

    Raises:
        ConfigError: other processes cannot see that storage.
    """
    if checkpoints is None:
        return None
    if checkpoints.startswith("memory:"):
        raise ConfigError(f"checkpoints={checkpoints}: memory is seen by one process only; name a folder or a bucket")
    return checkpoints if is_remote(checkpoints) or "://" in checkpoints else str(Path(checkpoints).resolve())


def checkpoints_below(checkpoints: str | None, *names: str) -> str | None:
    """Return the setting ``checkpoints`` for a group of runs; other groups may use the same names of output folders.

    Args:
        checkpoints: the setting; None stays None, since each run then has its own store.
        names: folder names of the group, outermost first.
    """
    return None if checkpoints is None else "/".join((checkpoints.rstrip("/"), *names))


class Saver:
    """Writes the checkpoints of a run; every rank takes part.

    Args:
        checkpoint: the model in training.
        accelerator: has the ranks.
        optimizer: its state is saved too.
        store: receives the checkpoints.
        keep_best: see ``CheckpointStore.write``.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        accelerator: Accelerator,
        optimizer: torch.optim.Optimizer,
        *,
        store: CheckpointStore,
        keep_best: int,
    ) -> None:
        self._accelerator, self._optimizer = accelerator, optimizer
        self._store, self._keep_best = store, keep_best
        self._part = read_model_part(checkpoint) if accelerator.is_main_process else None
        self._copies = HostCopies()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._written: Future[Saved] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except SottovoceError as fault:
            if error is None:
                raise
            logger.warning("%s", fault)  # the other error ends the run

    def save(self, state: RunState, *, wer: float | None) -> None:
        """Copy the content of a checkpoint, and start writing the copy.

        Args:
            state: the run's progress.
            wer: the rate that chooses, a fraction; see ``Saved``. None if it was not measured.

        Raises:
            CheckpointWriteError: the previous checkpoint could not be written.
        """
        random_states: list[RandomState] = gather_object([read_random_state()])
        if self._part is None:
            return
        self.wait()
        files = self._copy(self._part, state, random_states)
        self._written = self._thread.submit(
            self._store.write, files, step=state.step, wer=wer, keep_best=self._keep_best
        )

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            CheckpointWriteError: it could not be written.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def close(self) -> None:
        """Wait until the last checkpoint is written, and end the thread.

        Raises:
            CheckpointWriteError: it could not be written.
        """
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _copy(self, part: ModelPart, state: RunState, random_states: list[RandomState]) -> Files:
        """Copy everything that the next step changes."""
        moments, values = split_state(self._optimizer.state_dict())
        weights = part.weights()
        copies = self._copies.take({f"weights.{name}": tensor for name, tensor in weights.items()} | moments)
        scaler = self._accelerator.scaler
        own = state_files(
            state,
            optimizer=values,
            scaler=None if scaler is None else scaler.state_dict(),
            random_states=random_states,
        )
        model = {f"{MODEL_FOLDER}/{name}": [content] for name, content in part.files.items()}
        return {
            **model,
            f"{MODEL_FOLDER}/{part.weights_file}": TensorFile(
                {name: copies[f"weights.{name}"] for name in weights}, part.metadata
            ),
            OPTIMIZER_TENSORS_FILE: TensorFile({name: copies[name] for name in moments}),
            **own,
        }


@contextmanager
def found_checkpoint(store: CheckpointStore) -> Iterator[Path | None]:
    """Yield the folder of the checkpoint to resume from, the same on all workers; None at the start of a run.

    The first rank chooses the newest intact checkpoint and broadcasts its name.

    Raises:
        NoGoodCheckpointError: there are checkpoints, but all are damaged.
        CheckpointError: this worker finds the chosen checkpoint missing or damaged.
        StorageError: the storage does not answer.
    """
    if ray.train.get_context().get_world_rank() == 0:
        with store.latest() as opened:
            broadcast_from_rank_zero(None if opened is None else opened.saved.name)
            yield None if opened is None else opened.folder
        return
    name: str | None = broadcast_from_rank_zero(None)
    if name is None:
        yield None
        return
    with store.opened(name) as opened:
        yield opened.folder

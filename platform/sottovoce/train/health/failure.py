"""Errors of a run: raised by the driver as they were raised by a worker, in one sentence, and never retried in vain.

Ray Train restarts its workers after any exception, as often as the settings allow. That is right for a process or a
node that died, and a waste for a damaged checkpoint or a batch that does not fit into memory: those fail each time. So
an error of ours ends the run at once, and the driver raises the same error.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray.train
from ray.exceptions import RayTaskError

from sottovoce.errors import SottovoceError, StuckWorkerError, TrainingMemoryError
from sottovoce.schema import FRAMES_PER_SECOND, Example
from sottovoce.train.health.heartbeat import Killed

if TYPE_CHECKING:  # Ray Train's controller imports this module and needs no torch
    from sottovoce.train.batches import TrainBatch

_MAX_IDS = 8  # in a sentence
_RAY_ADDS = "\nFailed to apply "  # Ray Data appends how often it tried to the first argument of a task's error
_NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")  # torch's CPU allocator, CUDA, cuBLAS and cuDNN
_SMALLER_STEP = (
    "set training.gradient_checkpointing and run the same command again; or, in another output folder, lower "
    "data.batch_size or data.batch_s and raise training.accumulation_steps by as much (a step then learns from as many "
    "utterances), or take training.method lora"
)
_SMALLER_EVALUATION = "lower training.evaluation_batch_size"


class EndAtOwnErrors(ray.train.UserCallback):
    """Ends a run whose worker raised an error of ours; Ray Train calls this before it decides on a retry."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:  # noqa: ANN401, ARG002, RUF100
        """Look at the errors of the workers that failed.

        Raises:
            ray.train.ControllerError: one is ours; Ray does not retry this kind, and passes it to the driver.
        """
        for _, exception in sorted(worker_exceptions.items()):
            error = find_own_error(exception)
            if error is not None:
                raise ray.train.ControllerError(error)


@contextmanager
def raised_by_worker() -> Iterator[None]:
    """Wrap a worker's whole work: unwrap an error of ours that a Ray task raised.

    Raises:
        SottovoceError: the error as the task raised it.
    """
    try:
        yield
    except RayTaskError as caught:
        error = find_own_error(caught)
        if error is None:
            raise
        raise error from caught


@contextmanager
def raised_by_driver(killed: Killed) -> Iterator[None]:
    """Wrap the driver's wait for a run.

    Args:
        killed: the workers that were killed because they stood still, up to now whenever it is read.

    Raises:
        SottovoceError: the error with which a worker ended the run.
        StuckWorkerError: the run ended because one worker too many stood still. A worker that was killed earlier, and
            that the run has outlived, is not blamed.
        ray.train.TrainingFailedError: anything else that ended it.
    """
    try:
        yield
    except ray.train.ControllerError as caught:
        error = find_own_error(caught.controller_failure)
        if error is None:
            raise
        raise error from None  # Ray's wrapper adds many lines and no information
    except ray.train.WorkerGroupError as caught:
        stuck = killed.last_not_outlived()
        if stuck is None:
            raise
        raise StuckWorkerError(stuck.describe(), len(killed.all) - 1) from caught


def find_own_error(exception: BaseException) -> SottovoceError | None:
    """Return the error of ours in an exception, without what Ray wraps around it or adds; None for other exceptions."""
    inner: Any = exception.cause if isinstance(exception, RayTaskError) else exception
    if not isinstance(inner, SottovoceError):
        return None
    arguments = [value.split(_RAY_ADDS)[0] if isinstance(value, str) else value for value in inner.args]
    if tuple(arguments) == inner.args:
        return inner
    return type(inner)(*arguments)


@contextmanager
def memory_explained(doing: str, describe: Callable[[], str], *, evaluates: bool = False) -> Iterator[None]:
    """Wrap the work on one batch: explain an error that means too little memory.

    Args:
        doing: the work, as in "training step 7".
        describe: returns a description of the batch; called only for an error.
        evaluates: whether the remedy names settings of the evaluation instead of the step.

    Raises:
        TrainingMemoryError: there is not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        if isinstance(error, TrainingMemoryError) or not (is_memory or any(text in str(error) for text in _NO_MEMORY)):
            raise
        remedy = _SMALLER_EVALUATION if evaluates else _SMALLER_STEP
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise TrainingMemoryError(doing, describe(), remedy, reason) from error


def describe_batch(batch: "TrainBatch") -> str:
    """Describe a batch by its size and examples."""
    num_examples, num_mel_bins, num_frames = batch.input_features.shape
    return (
        f"{num_examples} examples padded to {num_frames / FRAMES_PER_SECOND:g} s ({name_ids(batch.ids)}), features "
        f"{num_examples} x {num_mel_bins} x {num_frames}, labels {' x '.join(map(str, batch.labels.shape))}"
    )


def describe_examples(examples: Sequence[Example]) -> str:
    """Describe examples by their number, the longest and their ids."""
    longest_s = max(example.duration_s for example in examples)
    ids = [one.id for example in examples for one in example.utterances]
    return f"{len(examples)} examples, the longest of {longest_s:.1f} s ({name_ids(ids)})"


def name_ids(ids: Sequence[str]) -> str:
    """List the first few ids, and how many more there are."""
    named = ", ".join(ids[:_MAX_IDS]) or "unnamed"
    return named if len(ids) <= _MAX_IDS else f"{named} and {len(ids) - _MAX_IDS} more"

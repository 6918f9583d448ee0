"""Errors of a run on their way to the person who started it: typed, in one sentence, and never tried again in vain.

Ray Train starts its workers again after any exception, as often as the settings allow. That is right for a process or
a node that died, and a waste for a checkpoint that is damaged or a batch that does not fit: those come back each time.
So an error of ours ends the run at once, and the driver raises the very same one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray.train
import torch
from ray.exceptions import RayTaskError

from sottovoce.errors import SottovoceError, StuckWorkerError, TrainingMemoryError
from sottovoce.schema import FRAMES_PER_SECOND, Example
from sottovoce.train.batches import TrainBatch
from sottovoce.train.health.heartbeat import Killed

_MAX_IDS = 8  # in a sentence
_RAY_ADDS = "\nFailed to apply "  # Ray Data writes how often it tried behind the first argument of a task's error
_NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")  # torch's CPU allocator, CUDA, cuBLAS and cuDNN
_SMALLER_STEP = (
    "set training.gradient_checkpointing and run the same command again; or, in another output folder, lower "
    "data.batch_size or data.batch_s and raise training.accumulation_steps by as much (a step then learns from as many "
    "utterances), or take training.method lora"
)
_SMALLER_EVALUATION = "lower training.evaluation_batch_size"


class EndAtOwnErrors(ray.train.UserCallback):
    """Ends a run whose worker raised an error of ours; Ray Train calls this where it decides on trying again."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:  # noqa: ANN401, ARG002, RUF100
        """Look at the errors of the workers that failed.

        Raises:
            ray.train.ControllerError: one is ours; Ray tries this kind not again, and hands it to the driver.
        """
        for _, exception in sorted(worker_exceptions.items()):
            error = find_own_error(exception)
            if error is not None:
                raise ray.train.ControllerError(error)


@contextmanager
def raised_by_worker() -> Iterator[None]:
    """Wrap a worker's whole work: an error of ours that comes out of a Ray task loses what Ray has wrapped it in.

    Raises:
        SottovoceError: the error, as it was raised there.
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
        killed: the workers that were killed because they stood still, up to now whenever it is looked at.

    Raises:
        SottovoceError: the one a worker ended the run with.
        StuckWorkerError: the run ended because the last of those that stood still was one too many; a worker that
            was killed earlier, and which the run has outlived, is not to blame.
        ray.train.TrainingFailedError: anything else that ended it.
    """
    try:
        yield
    except ray.train.ControllerError as caught:
        error = find_own_error(caught.controller_failure)
        if error is None:
            raise
        raise error from None  # Ray's wrapper says nothing more, in many lines
    except ray.train.WorkerGroupError as caught:
        stuck = killed.last_not_outlived()
        if stuck is None:
            raise
        raise StuckWorkerError(stuck.describe(), len(killed.all) - 1) from caught


def find_own_error(exception: BaseException) -> SottovoceError | None:
    """Give the error of ours that an exception is or that Ray has wrapped, without what Ray adds; None for others."""
    inner: Any = exception.cause if isinstance(exception, RayTaskError) else exception
    if not isinstance(inner, SottovoceError):
        return None
    arguments = [value.split(_RAY_ADDS)[0] if isinstance(value, str) else value for value in inner.args]
    if tuple(arguments) == inner.args:
        return inner
    return type(inner)(*arguments)


@contextmanager
def memory_explained(doing: str, describe: Callable[[], str], *, evaluates: bool = False) -> Iterator[None]:
    """Wrap whatever takes memory for one batch.

    Args:
        doing: what is done, as in "training step 7".
        describe: gives the batch in words, when it is needed.
        evaluates: which settings the remedy names.

    Raises:
        TrainingMemoryError: there is not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if isinstance(error, TrainingMemoryError) or not (is_memory or any(text in str(error) for text in _NO_MEMORY)):
            raise
        remedy = _SMALLER_EVALUATION if evaluates else _SMALLER_STEP
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise TrainingMemoryError(doing, describe(), remedy, reason) from error


def describe_batch(batch: TrainBatch) -> str:
    """Give a batch's size and examples in words."""
    num_examples, num_mel_bins, num_frames = batch.input_features.shape
    return (
        f"{num_examples} examples padded to {num_frames / FRAMES_PER_SECOND:g} s ({name_ids(batch.ids)}), features "
        f"{num_examples} x {num_mel_bins} x {num_frames}, labels {' x '.join(map(str, batch.labels.shape))}"
    )


def describe_examples(examples: Sequence[Example]) -> str:
    """Give the number, the longest and the ids of examples in words."""
    longest_s = max(example.duration_s for example in examples)
    ids = [one.id for example in examples for one in example.utterances]
    return f"{len(examples)} examples, the longest of {longest_s:.1f} s ({name_ids(ids)})"


def name_ids(ids: Sequence[str]) -> str:
    """Give the first few ids, and how many more there are."""
    named = ", ".join(ids[:_MAX_IDS]) or "unnamed"
    return named if len(ids) <= _MAX_IDS else f"{named} and {len(ids) - _MAX_IDS} more"

"""Ray Datasets whose rows are steps: how they are divided into tasks, and how one after the other is read."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ExecutionResources, TaskPoolStrategy
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from sottovoce.data.batch_reader import read_steps

_IDLE_STEP_S = 0.01  # an idle step takes 2 ms; one that waits for tasks up to 100
_NUM_IDLE_STEPS = 5  # in a row: steps right after the end of a task are short too, and must not be delayed
_PAUSE_S = 0.05  # short compared to a batch, which takes 0.1 s or more
_TASKS_IN_STORE = 3  # for each running task and the one being read: its output and twice that waiting
_ROWS_PER_DATASET = 4_096  # Ray Data creates all input before it starts; starting a Dataset takes a second


class IdlePause(ExecutionCallback):
    """Sleeps briefly after several idle scheduling steps in a row.

    When enough is prefetched and no further task may run, Ray 2.60's loop does not wait: its thread takes 93 % of a
    core of each training worker, and 4 % with this callback (measured on two cores). Remove it when
    ``StreamingExecutor.run`` waits by itself.
    """

    def __init__(self) -> None:
        self._num_idle = 0
        self._step_started = time.perf_counter()

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Sleep if the last steps were idle; Ray calls this after each step of its loop."""
        is_idle = time.perf_counter() - self._step_started < _IDLE_STEP_S
        self._num_idle = self._num_idle + 1 if is_idle else 0
        if self._num_idle >= _NUM_IDLE_STEPS:
            time.sleep(_PAUSE_S)
        self._step_started = time.perf_counter()


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """How a Dataset of steps is divided into tasks."""

    steps: int
    """Rows of one task."""
    tasks: int
    """That run at a time."""
    cpus: float
    """That each reserves."""
    step_bytes: float
    """Of the largest row."""

    @property
    def store_bytes(self) -> float:
        """Memory [bytes] for batches that wait or are being read; by default Ray Data would fill half the store."""
        return _TASKS_IN_STORE * (1 + self.tasks) * self.steps * self.step_bytes


def build_step_dataset(
    reader: Any,  # noqa: ANN401 - Ray's references are untyped
    *,
    microbatches: Sequence[int],
    first: int,
    last: int,
    options: TaskOptions,
) -> ray.data.Dataset:
    """Build the Dataset of some microbatches, with rows of ``BATCH_SCHEMA``.

    Args:
        reader: reference to a BatchReader in the object store.
        microbatches: those to read of each step, in reading order.
        first: index of the first row among these microbatches of all steps, starting with those of step 0.
        last: index after the last row.
        options: of its tasks.
    """
    size = options.steps
    tasks = [{"first": start, "last": min(start + size, last)} for start in range(first, last, size)]
    # from_items, not range: reading a range is a separate operator, whose tasks request a whole CPU.
    dataset = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
        partial(read_steps, reader=reader, microbatches=tuple(microbatches)),
        batch_size=None,
        batch_format="pyarrow",
        compute=TaskPoolStrategy(size=options.tasks),
        num_cpus=options.cpus,
    )
    execution = dataset.context.execution_options
    execution.preserve_order = True
    execution.resource_limits = ExecutionResources(object_store_memory=options.store_bytes)
    dataset.context.enable_progress_bars = False
    dataset.context.raise_original_map_exception = True  # otherwise Ray raises its own error, without the cause
    dataset.context.custom_execution_callback_classes.append(IdlePause)
    return dataset


def read_rows(
    build: Callable[[int, int], ray.data.Dataset], *, first: int, last: int, prefetch_batches: int
) -> Iterator[pa.Table]:
    """Yield tables of one row, from one Dataset after the other.

    Args:
        build: builds the Dataset of the rows from one index to before another.
        first: index of the first row.
        last: index after the last row.
        prefetch_batches: rows that are fetched ahead.
    """
    for start in range(first, last, _ROWS_PER_DATASET):
        dataset = build(start, min(start + _ROWS_PER_DATASET, last))
        yield from dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=prefetch_batches)

"""Keep Ray Data's scheduling thread from spinning while its consumer is busy."""

import time

from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor

_IDLE_STEP_S = 0.01  # a step with nothing to do takes 2 ms; one that waits for tasks takes up to 100
_NUM_IDLE_STEPS = 5  # in a row: those right after a task's end are short too, and should not be held up
_PAUSE_S = 0.05  # against batches that take a tenth of a second and more, and are prefetched


class IdlePause(ExecutionCallback):
    """Sleep a little once several scheduling steps in a row had nothing to do.

    When enough is prefetched and nothing more may run, Ray 2.60's loop does not wait: its thread takes 93 % of a core
    of each training worker, and 4 % with this (measured on two cores). Can go when ``StreamingExecutor.run`` waits by
    itself.
    """

    def __init__(self) -> None:
        self._num_idle = 0
        self._step_started = time.perf_counter()

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Called by Ray after each step of the loop."""
        is_idle = time.perf_counter() - self._step_started < _IDLE_STEP_S
        self._num_idle = self._num_idle + 1 if is_idle else 0
        if self._num_idle >= _NUM_IDLE_STEPS:
            time.sleep(_PAUSE_S)
        self._step_started = time.perf_counter()

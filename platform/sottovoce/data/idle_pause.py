"""Keep Ray Data's scheduling thread from spinning while its consumer is busy."""

import time

from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor

_PAUSE_S = 0.02  # against batches that take a tenth of a second and more, and are prefetched


class IdlePause(ExecutionCallback):
    """Sleep a little after each scheduling step.

    With nothing running and nothing wanted, Ray 2.60's loop does not wait: its thread took half a core of each
    training worker (measured on two cores). Can go when ``StreamingExecutor.run`` waits by itself.
    """

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Called by Ray after each step of the loop."""
        time.sleep(_PAUSE_S)

"""Run the engine of a replica off the event loop: decodings take turns, errors are isolated to their window."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

from serve.observe.engine_metrics import record_batch, record_start, record_window
from serve.turns import RunningBatch, Turns
from serve.window import PendingWindow, Window
from sottovoce.audio.waveform import from_pcm
from sottovoce.recognize.recognizer import Recognizer
from sottovoce.recognize.steps import BatchDecoding, Step
from sottovoce.schema import WindowResult

_SLICE_S = 0.01  # a visit to the event loop takes about a hundredth of it
_BATCHES_IN_MEMORY = 2  # one that is fresh, and as many windows of long ones


class Engine:
    """The replica's cores, on which one decoding at a time takes a step.

    ``async with engine`` waits until nothing is being decoded, and nothing is while the block runs: a model can be
    unloaded. Windows that come meanwhile wait.
    """

    def __init__(
        self,
        find: Callable[[str], Recognizer | None],
        *,
        max_batch_size: int,
        batch_wait_timeout_s: float,
    ) -> None:
        """Prepare; nothing runs before the first window.

        Args:
            find: returns the loaded model of a key; None if it is not loaded any more.
            max_batch_size: windows that begin together.
            batch_wait_timeout_s: longest wait for a batch to fill.
        """
        self._find = find
        self._max_batch_size = max_batch_size
        self._batch_wait_timeout_s = batch_wait_timeout_s
        self._waiting: deque[PendingWindow] = deque()
        self._turns = Turns()
        self._lock = asyncio.Lock()
        self._num_pausing = 0
        self._free_since = 0.0
        self._step_started: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def decode(self, key: str, window: Window) -> WindowResult | None:
        """Decode a window, in a batch with others that wait for the same model.

        Args:
            key: of the model.
            window: leaves the queue, or its batch, if the caller is cancelled.

        Returns:
            The result; None if the model is not loaded any more.

        Raises:
            Exception: the engine's error about this window.
        """
        pending = PendingWindow(key, window)
        self._waiting.append(pending)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await pending.result()

    def running_s(self) -> float:
        """Return the seconds since the running step started; 0 when none runs."""
        return 0.0 if self._step_started is None else time.monotonic() - self._step_started

    async def __aenter__(self) -> Self:
        """Wait until nothing is being decoded."""
        self._num_pausing += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._num_pausing -= 1
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Go on."""
        self._num_pausing -= 1
        self._lock.release()

    async def _run(self) -> None:
        """Decode until no window waits. Somebody who waits for a pause gets it once the running decodings are over."""
        while self._waiting:
            async with self._lock:
                while len(self._turns) or (self._waiting and not self._num_pausing):
                    if not self._num_pausing:
                        await self._begin()
                    if len(self._turns):
                        await self._advance(self._turns.choose())

    async def _begin(self) -> None:
        """Let the windows that wait begin, unless fresh ones are being decoded or their batch may still fill."""
        while self._waiting and self._waiting[0].is_settled:
            self._waiting.popleft()
        room = min(self._max_batch_size, _BATCHES_IN_MEMORY * self._max_batch_size - self._turns.num_windows)
        if not self._waiting or self._turns.has_fresh or room <= 0:
            return
        left_s = self._filling_s()
        if left_s > 0.0:
            if not len(self._turns):
                await asyncio.sleep(left_s)
            return
        key = self._waiting[0].key
        taken = self._take_waiting(key, room)
        recognizer = self._find(key)
        if recognizer is None or not taken:  # unloaded, or every caller has left
            for pending in taken:
                pending.settle(None)
            return
        started = time.monotonic()
        record_start(key, [started - one.window.arrived for one in taken], share=len(taken) / self._max_batch_size)
        await self._open(key, recognizer, taken)

    def _filling_s(self) -> float:
        """Return how long a batch may still fill. After a batch has ended, its callers need a moment to come back."""
        if len(self._waiting) >= self._max_batch_size:
            return 0.0
        opened = max(self._waiting[0].window.arrived, self._free_since)
        return opened + self._batch_wait_timeout_s - time.monotonic()

    def _take_waiting(self, key: str, most: int) -> list[PendingWindow]:
        """Take windows of one model out of the queue, the first ones."""
        taken: list[PendingWindow] = []
        others: deque[PendingWindow] = deque()
        for pending in self._waiting:
            (taken if pending.key == key and len(taken) < most else others).append(pending)
        self._waiting = others
        return [pending for pending in taken if not pending.is_settled]

    async def _open(self, key: str, recognizer: Recognizer, windows: Sequence[PendingWindow]) -> None:
        """Prepare the decodings of windows. Where that fails, each is prepared alone."""
        try:
            decodings = await asyncio.to_thread(_prepare, recognizer, [pending.window for pending in windows])
        except Exception as error:  # noqa: BLE001 - torch and ONNX Runtime raise anything; it must fail this window only
            await self._retry_alone(key, recognizer, windows, error)
            return
        for decoding in decodings:
            batch = [windows[index] for index in decoding.indices]
            self._turns.add(RunningBatch(key, recognizer, decoding, batch))

    async def _retry_alone(
        self, key: str, recognizer: Recognizer, windows: Sequence[PendingWindow], error: Exception
    ) -> None:
        """Decode each window of a failed batch alone; one that was alone has failed."""
        left = [pending for pending in windows if not pending.is_settled]
        if len(windows) == 1:
            for pending in left:
                record_window(key, pending.window.options, error)
                pending.settle(error)
            return
        for pending in left:
            await self._open(key, recognizer, [pending])

    async def _advance(self, batch: RunningBatch) -> None:
        """Take some steps of a decoding: until a window has ended, or for some milliseconds."""
        self._step_started = started = time.monotonic()
        try:
            step = await asyncio.to_thread(_take_steps, batch)
        except Exception as error:  # noqa: BLE001 - as in _open
            self._turns.remove(batch)
            await self._retry_alone(batch.key, batch.recognizer, batch.windows, error)
            return
        finally:
            self._step_started = None
        if step is not None:
            self._turns.take(batch, step, seconds=time.monotonic() - started)
        if batch.is_over:
            self._turns.remove(batch)
            record_batch(batch.key, seconds=batch.seconds, num_tokens=batch.total_tokens)
            if not batch.is_long:
                self._free_since = time.monotonic()


def _prepare(recognizer: Recognizer, windows: Sequence[Window]) -> list[BatchDecoding]:
    return recognizer.decode_in_steps(
        [from_pcm(window.pcm) for window in windows], [window.options for window in windows]
    )


def _take_steps(batch: RunningBatch) -> Step | None:
    """Take steps until a window has ended, or for some milliseconds; return the last one."""
    until = time.monotonic() + _SLICE_S
    last: Step | None = None
    for last in batch.decoding.steps:
        if last.ended or time.monotonic() > until:
            break
    return last

"""Send windows to the transcriber replicas, and again where a replica died with them."""

import asyncio
import logging
from collections.abc import Awaitable, Generator, Sequence
from typing import Any, Protocol

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from serve.errors import OverloadedError, TranscriberLostError
from sottovoce.schema import DecodeOptions, Pcm, WindowResult

_MAX_RETRIES = 2
_BACKOFF_S = 0.1  # doubled each time; long enough for the router to hear of a death (guess, untested)

_log = logging.getLogger(__name__)


class PendingResult(Protocol):
    """A window on its way, as Serve's DeploymentResponse."""

    def __await__(self) -> Generator[Any, None, WindowResult]:
        """Wait for the result."""

    def cancel(self) -> None:
        """Give the window up; its place in a batch becomes free if it has not started."""


class TranscribeMethod(Protocol):
    """The remote method that takes one window."""

    def remote(self, pcm: Pcm, options: DecodeOptions) -> PendingResult:
        """Send a window."""


class DescribeMethod(Protocol):
    """The remote method that tells what is served."""

    def remote(self) -> Awaitable[Any]:
        """Ask."""


class TranscriberHandle(Protocol):
    """What the gateway needs of Serve's DeploymentHandle; tests put a fake in its place."""

    @property
    def transcribe(self) -> TranscribeMethod:
        """One window in, one result out."""

    @property
    def describe(self) -> DescribeMethod:
        """What is served."""


async def send_windows(
    handle: TranscriberHandle, windows: Sequence[Pcm], options: DecodeOptions, *, max_in_flight: int
) -> list[WindowResult]:
    """Transcribe windows on all replicas at once.

    Args:
        handle: the transcriber deployment.
        windows: each (S,) int16, 16 000 Hz, at most the model's context long.
        options: for all of them.
        max_in_flight: windows that wait or run at a time.

    Returns:
        One result for each window, in order.

    Raises:
        OverloadedError: no room in the transcribers' queue.
        TranscriberLostError: the replica died, and so did those of both retries.
    """
    room = asyncio.Semaphore(max_in_flight)

    async def send_in_turn(pcm: Pcm) -> WindowResult:
        async with room:
            return await _send(handle, pcm, options)

    tasks = [asyncio.create_task(send_in_turn(pcm)) for pcm in windows]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _send(handle: TranscriberHandle, pcm: Pcm, options: DecodeOptions) -> WindowResult:
    """Send one window; transcribing changes nothing, so sending it again is safe."""
    lost: Exception | None = None
    for attempt in range(1 + _MAX_RETRIES):
        if attempt:
            await asyncio.sleep(_BACKOFF_S * 2 ** (attempt - 1))
        try:
            return await _cancel_with_caller(handle.transcribe.remote(pcm, options))
        except BackPressureError as error:
            raise OverloadedError(error.args[1]) from error
        except (RayActorError, ReplicaUnavailableError, DeploymentUnavailableError) as error:
            _log.warning(
                "a transcriber replica was lost with a window, attempt %d: %s", attempt + 1, type(error).__name__
            )
            lost = error
    raise TranscriberLostError(1 + _MAX_RETRIES) from lost


async def _cancel_with_caller(pending: PendingResult) -> WindowResult:
    """Wait for a result; a caller that gives up takes the window back from the replica."""
    try:
        return await pending
    except asyncio.CancelledError:
        pending.cancel()
        raise

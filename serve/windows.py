"""Send windows to the transcriber replicas, and again where a replica died with them."""

import asyncio
import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from serve.errors import OverloadedError, TranscriberLostError
from serve.models.served_model import ServedModel
from sottovoce.schema import DecodeOptions, Pcm, WindowResult

_MAX_RETRIES = 2
_BACKOFF_S = 0.1  # doubled each time; long enough for the router to hear of a death (guess, untested)

_log = logging.getLogger(__name__)


class PendingResult(Protocol):
    """A call on its way, as Serve's DeploymentResponse."""

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the result."""

    def cancel(self) -> None:
        """Give the window up; its place in a batch becomes free if it has not started."""


class TranscribeMethod(Protocol):
    """The remote method that takes one window."""

    def remote(self, pcm: Pcm, options: DecodeOptions) -> PendingResult:
        """Send a window."""


class DescribeMethod(Protocol):
    """The remote method that loads the model the handle is bound to, and tells what it is."""

    def remote(self) -> PendingResult:
        """Ask."""


class BroadcastResults(Protocol):
    """The answers of all replicas, as Serve's DeploymentBroadcastResponse."""

    async def results_async(self, *, timeout_s: float | None = None, return_exceptions: bool = False) -> list[Any]:
        """Wait for every replica's answer or error."""


class TranscriberHandle(Protocol):
    """What the gateway needs of Serve's DeploymentHandle; tests put a fake in its place."""

    @property
    def transcribe(self) -> TranscribeMethod:
        """One window in, one result out."""

    @property
    def describe(self) -> DescribeMethod:
        """What is served."""

    def broadcast(self, method_name: str, key: str) -> BroadcastResults:
        """Call a method on every replica that runs now."""

    def options(self, *, multiplexed_model_id: str) -> "TranscriberHandle":
        """The same deployment; calls go to a replica that has this model, or loads it."""


async def send_windows(
    handle: TranscriberHandle,
    windows: Sequence[Pcm],
    options: DecodeOptions,
    *,
    model: ServedModel,
    max_in_flight: int,
) -> list[WindowResult]:
    """Transcribe windows on all replicas at once.

    Args:
        handle: the transcriber deployment.
        windows: each (S,) int16, 16 000 Hz, at most the model's context long.
        options: for all of them.
        model: which decodes them.
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
            return await send_window(handle, pcm, options, model=model)

    tasks = [asyncio.create_task(send_in_turn(pcm)) for pcm in windows]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def send_window(
    handle: TranscriberHandle, pcm: Pcm, options: DecodeOptions, *, model: ServedModel
) -> WindowResult:
    """Send one window; transcribing changes nothing, so it is sent again where a replica dies.

    Args:
        handle: the transcriber deployment.
        pcm: (S,) int16, 16 000 Hz, at most the model's context long.
        options: of this window.
        model: which decodes it, as the catalog gave it.

    Raises:
        OverloadedError: no room in the transcribers' queue.
        TranscriberLostError: the replica died, and so did those of both retries.
        ModelLoadError: the model was evicted meanwhile, and its files are gone.
    """
    replicas = handle.options(multiplexed_model_id=model.key)
    result: WindowResult = await _insist(lambda: replicas.transcribe.remote(pcm, options))
    return result


async def describe_model(handle: TranscriberHandle, key: str) -> ServedModel:
    """Have one replica load a model; errors as ``send_window``."""
    replicas = handle.options(multiplexed_model_id=key)
    served: ServedModel = await _insist(lambda: replicas.describe.remote())
    return served


async def describe_everywhere(handle: TranscriberHandle, key: str) -> ServedModel:
    """Have every replica load a model.

    Raises:
        ModelLoadError: no replica could.
        Exception: whatever else Ray says of replicas that died; another attempt may go well.
    """
    answers = await handle.broadcast("prepare", key).results_async(return_exceptions=True)
    for answer in answers:
        if isinstance(answer, ServedModel):
            return answer
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    raise errors[0] if errors else TranscriberLostError(1)


async def _insist(call: Callable[[], PendingResult]) -> Any:  # noqa: ANN401 - whatever the method gives
    """Call a replica, and another where it died meanwhile."""
    lost: Exception | None = None
    for attempt in range(1 + _MAX_RETRIES):
        if attempt:
            await asyncio.sleep(_BACKOFF_S * 2 ** (attempt - 1))
        try:
            return await _cancel_with_caller(call())
        except BackPressureError as error:
            raise OverloadedError(error.args[1]) from error
        except (RayActorError, ReplicaUnavailableError, DeploymentUnavailableError) as error:
            _log.warning("a transcriber replica was lost, attempt %d: %s", attempt + 1, type(error).__name__)
            lost = error
    raise TranscriberLostError(1 + _MAX_RETRIES) from lost


async def _cancel_with_caller(pending: PendingResult) -> Any:  # noqa: ANN401 - whatever the method gives
    """Wait for a result; a caller that gives up takes the call back from the replica."""
    try:
        return await pending
    except asyncio.CancelledError:
        pending.cancel()
        raise

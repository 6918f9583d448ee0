"""Send windows to the transcriber replicas, and again where a replica died with them."""

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any, NoReturn, Protocol

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from serve.errors import ModelNotFoundError, OverloadedError, TranscriberLostError
from serve.models.served_model import ServedModel
from sottovoce.errors import SottovoceError
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
        ModelNotFoundError, ModelLoadError: the model was dropped meanwhile, and its files are gone or damaged.
    """
    replicas = handle.options(multiplexed_model_id=model.key)
    result: WindowResult = await _retry(lambda: replicas.transcribe.remote(pcm, options))
    return result


async def describe_model(handle: TranscriberHandle, key: str) -> ServedModel:
    """Have one replica load a model; errors as ``send_window``."""
    replicas = handle.options(multiplexed_model_id=key)
    served: ServedModel = await _retry(lambda: replicas.describe.remote())
    return served


async def describe_everywhere(handle: TranscriberHandle, key: str) -> ServedModel:
    """Have every replica load a model; one that cannot, for want of memory or on a damaged copy, holds up no other.

    Raises:
        ModelNotFoundError: a replica does not see it, perhaps not yet: shared storage shows a file late on other nodes.
        ModelLoadError: no replica could load it.
        Exception: whatever else Ray says of replicas that died; another attempt may go well.
    """
    answers = await handle.broadcast("prepare", key).results_async(return_exceptions=True)
    for answer in answers:
        if isinstance(answer, ModelNotFoundError):
            _raise_own(answer)
    for answer in answers:
        if isinstance(answer, ServedModel):
            return answer
    for answer in answers:
        if isinstance(answer, Exception):
            _raise_own(answer)
    raise TranscriberLostError(1)


async def _retry(call: Callable[[], PendingResult]) -> Any:  # noqa: ANN401 - whatever the method gives
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
    except RayTaskError as error:
        _raise_own(error)


def _raise_own(error: Exception) -> NoReturn:
    """Raise what a replica raised; of an error of ours Ray makes one whose sentence is a traceback with its host."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, SottovoceError):
        raise error.cause from error
    raise error

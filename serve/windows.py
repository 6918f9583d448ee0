"""Send windows to the transcriber replicas, and send them again when a replica dies."""

import asyncio
import logging
import time
from collections.abc import Callable, Generator
from typing import Any, Protocol

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from serve.errors import ModelNotFoundError, OverloadedError, TranscriberLostError
from serve.models.served_model import ServedModel
from serve.observe.metrics import WINDOW_SECONDS, read_key, record
from serve.observe.request_log import current_request
from sottovoce.errors import SottovoceError
from sottovoce.schema import DecodeOptions, Pcm, WindowResult

_MAX_RETRIES = 4  # a window may meet several deaths; one that kills its replica must end (guess)
_BACKOFF_S = 0.1  # doubled each time; long enough for the router to notice a death (guess, untested)

_log = logging.getLogger(__name__)


class PendingResult(Protocol):
    """A call in flight, as Serve's DeploymentResponse."""

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the result."""

    def cancel(self) -> None:
        """Cancel the call. A window that has not started leaves its batch."""


class TranscribeMethod(Protocol):
    """The remote method that transcribes one window."""

    def remote(self, pcm: Pcm, options: DecodeOptions) -> PendingResult:
        """Send a window."""


class DescribeMethod(Protocol):
    """The remote method that loads the handle's model and describes it."""

    def remote(self) -> PendingResult:
        """Call it."""


class BroadcastResults(Protocol):
    """The answers of all replicas, as Serve's DeploymentBroadcastResponse."""

    async def results_async(self, *, timeout_s: float | None = None, return_exceptions: bool = False) -> list[Any]:
        """Wait for every replica's answer or error."""


class TranscriberHandle(Protocol):
    """The part of Serve's DeploymentHandle that the gateway uses; tests pass a fake."""

    @property
    def transcribe(self) -> TranscribeMethod:
        """One window in, one result out."""

    @property
    def describe(self) -> DescribeMethod:
        """Load and describe the handle's model."""

    def broadcast(self, method_name: str, key: str) -> BroadcastResults:
        """Call a method on every running replica."""

    def options(self, *, multiplexed_model_id: str) -> "TranscriberHandle":
        """Return a handle whose calls go to a replica that has this model, or loads it."""


async def send_window(
    handle: TranscriberHandle, pcm: Pcm, options: DecodeOptions, *, model: ServedModel
) -> WindowResult:
    """Transcribe one window on some replica. Transcription has no side effects, so it is retried when a replica dies.

    Args:
        handle: the transcriber deployment.
        pcm: (S,) int16, 16 000 Hz, at most the model's context long.
        options: decoding options of this window.
        model: the loaded model, from ``Catalog.find``.

    Raises:
        OverloadedError: the transcribers' queue is full.
        TranscriberLostError: the replica died, and so did those of both retries.
        ModelNotFoundError, ModelLoadError: the model was unloaded meanwhile, and its files are gone or damaged.
    """
    replicas = handle.options(multiplexed_model_id=model.key)
    started = time.monotonic()
    result: WindowResult = await _retry(lambda: replicas.transcribe.remote(pcm, options))
    record(WINDOW_SECONDS, time.monotonic() - started, **read_key(model.key).labels)
    current_request().take_window(result)
    return result


async def describe_model(handle: TranscriberHandle, key: str) -> ServedModel:
    """Load a model on one replica and describe it. Raises as ``send_window``."""
    replicas = handle.options(multiplexed_model_id=key)
    served: ServedModel = await _retry(lambda: replicas.describe.remote())
    return served


async def describe_everywhere(handle: TranscriberHandle, key: str) -> ServedModel:
    """Load a model on every replica. A replica that cannot load it does not stop the others.

    Raises:
        ModelNotFoundError: a replica does not see the files, perhaps not yet: shared storage may lag on other nodes.
        ModelLoadError: no replica could load it.
        Exception: Ray's error about a replica that died; another attempt may succeed.
    """
    answers = await handle.broadcast("prepare", key).results_async(return_exceptions=True)
    for answer in answers:
        if isinstance(answer, ModelNotFoundError):
            raise _own_error(answer)
    for answer in answers:
        if isinstance(answer, ServedModel):
            return answer
    for answer in answers:
        if isinstance(answer, Exception):
            raise _own_error(answer)
    raise TranscriberLostError(1)


async def _retry(call: Callable[[], PendingResult]) -> Any:  # noqa: ANN401 - whatever the method gives
    """Call a replica, and retry on another one when it dies."""
    for attempt in range(1 + _MAX_RETRIES):
        if attempt:
            await asyncio.sleep(_BACKOFF_S * 2 ** (attempt - 1))
        try:
            return await _cancel_with_caller(call())
        except BackPressureError as error:
            raise OverloadedError(error.args[1]) from error
        except (RayActorError, ReplicaUnavailableError, DeploymentUnavailableError) as error:
            _log.warning("a transcriber replica was lost, attempt %d: %s", attempt + 1, type(error).__name__)
            if attempt == _MAX_RETRIES:
                raise TranscriberLostError(1 + _MAX_RETRIES) from error
    raise AssertionError("the last attempt returns or raises")


async def _cancel_with_caller(pending: PendingResult) -> Any:  # noqa: ANN401 - whatever the method gives
    """Wait for a result, and cancel the call when the caller is cancelled."""
    try:
        return await pending
    except asyncio.CancelledError:
        pending.cancel()
        raise
    except RayTaskError as error:
        own = _own_error(error)
        if own is not error:
            own.__cause__ = RuntimeError(str(error))  # the replica's traceback, for the log
    try:
        # Outside the handler: Ray's error would be the context of its own cause, and both stay in memory as a cycle.
        raise own
    finally:
        del own  # its traceback refers to this frame


def _own_error(error: Exception) -> Exception:
    """Return the replica's own error: Ray wraps it in one whose message is a traceback with a host name."""
    return error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, SottovoceError) else error

"""Stop on a signal: refuse new requests, answer those in flight, then end. A second signal ends at once."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_POLL_S = 0.2
_LAST_BYTES_S = 0.3  # the proxy sends an answer on after the gateway is done with it
_CALL_TIMEOUT_S = 5.0

_log = logging.getLogger(__name__)


class StopSignals:
    """Ctrl-C and SIGTERM while the service runs."""

    def __init__(self) -> None:
        self.received = threading.Event()
        """Set by the first signal once the service is ready."""
        self._is_ready = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Note the first signal. The next one raises KeyboardInterrupt.

        Raises:
            KeyboardInterrupt: the process shall end at once.
        """
        if self._is_ready and not self.received.is_set():
            self.received.set()
            return
        raise KeyboardInterrupt

    def become_ready(self) -> None:
        """Drain on the first signal from now on; before, it ends the process."""
        self._is_ready = True  # and Ray has put a handler of its own meanwhile
        self.install()

    def install(self) -> None:
        """Handle the signals; only in the main thread."""
        for number in _NUMBERS:
            signal.signal(number, self.handle)

    def ignore(self) -> None:
        """Take no further signals: the rest is bounded."""
        for number in _NUMBERS:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Handle Ctrl-C and SIGTERM until the block is left; only in the main thread."""
    signals = StopSignals()
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    signals.install()
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def drain_gateways(app_name: str, *, timeout_s: float, say: Callable[[str], None]) -> int:
    """Make every gateway refuse new requests, and wait until those in flight are answered.

    Args:
        app_name: the application.
        timeout_s: longest wait.
        say: is called with what the user waits for.

    Returns:
        How many requests were still unanswered at the end.
    """
    until = time.monotonic() + timeout_s
    has_said = False
    while num_open := _begin_drain(app_name):
        if not has_said:
            say(f"requests in flight: {num_open}; new ones are refused, and Ctrl-C again ends at once")
            has_said = True
        if time.monotonic() > until:
            return num_open
        time.sleep(_POLL_S)
    time.sleep(_LAST_BYTES_S)
    return 0


def _begin_drain(app_name: str) -> int:
    """Return how many requests all gateways have open. A dead one has none; one too busy to answer counts as one."""
    try:
        gateways = ray_serve.get_app_handle(app_name)
        answers = gateways.broadcast("drain").results(timeout_s=_CALL_TIMEOUT_S, return_exceptions=True)
    except TimeoutError:
        return 1
    except (RayError, RayServeException) as error:
        _log.warning("the gateways cannot be drained (%s)", type(error).__name__)
        return 0
    return sum(answer for answer in answers if isinstance(answer, int))
